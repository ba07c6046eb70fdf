"""Lines, markers, files and bounds of worker output."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.node import logs as module
from skate.runtime.node.logs import MARKER, Forwarder, LineSplitter, LogFile, Piece, WorkerOutput
from skate.runtime.wire.messages import LogLines


def lines(pieces: list[Piece]) -> list[tuple[str, bytes]]:
    assert all(piece.begins_line and piece.ends_line for piece in pieces)
    return [(piece.name, piece.text) for piece in pieces]


# --------------------------------------------------------------------------- splitting


def test_lines_are_complete_ones() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\nb") == [Piece("", b"a", True, True)]
    assert lines(splitter.feed(b"c\n\n")) == [("", b"bc"), ("", b"")]
    assert splitter.finish() == []


def test_what_has_no_newline_comes_at_the_end() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"last words") == []
    assert lines(splitter.finish()) == [("", b"last words")]
    assert splitter.finish() == []


def test_markers_name_what_follows() -> None:
    splitter = LineSplitter()
    data = MARKER + b"f\none\ntwo\n" + MARKER + b"g\nthree\n"
    assert lines(splitter.feed(data)) == [("f", b"one"), ("f", b"two"), ("g", b"three")]


def test_a_marker_behind_an_unfinished_line() -> None:
    splitter = LineSplitter()
    assert lines(splitter.feed(b"open" + MARKER + b"g\nnext\n")) == [("", b"open"), ("g", b"next")]


def test_long_lines_come_in_pieces() -> None:
    splitter = LineSplitter()
    long = b"x" * (module.MAX_LINE + 1)
    assert splitter.feed(long) == [Piece("", long, True, False)]
    assert splitter.feed(b"rest\nnext\n") == [
        Piece("", b"rest", False, True),
        Piece("", b"next", True, True),
    ]


def test_a_long_line_that_ends_with_its_piece() -> None:
    splitter = LineSplitter()
    long = b"x" * (module.MAX_LINE + 1)
    assert splitter.feed(long) == [Piece("", long, True, False)]
    assert splitter.feed(MARKER + b"g\nnext\n") == [
        Piece("", b"", False, True),
        Piece("g", b"next", True, True),
    ]


names = st.text(st.characters(exclude_characters="\n\x1f", codec="utf-8"), max_size=5)
texts = st.binary(max_size=20).filter(lambda b: b"\n" not in b and b"\x1f" not in b)


@given(
    st.lists(st.tuples(names, texts), max_size=8),
    st.lists(st.integers(1, 30), min_size=1, max_size=50),
)
def test_however_it_is_cut_the_same_lines_come_out(
    wanted: list[tuple[str, bytes]], sizes: list[int]
) -> None:
    stream = b"".join(MARKER + n.encode() + b"\n" + text + b"\n" for n, text in wanted)
    splitter = LineSplitter()
    pieces: list[Piece] = []
    for size in sizes:
        pieces += splitter.feed(stream[:size])
        stream = stream[size:]
    pieces += splitter.feed(stream) + splitter.finish()
    assert lines(pieces) == wanted


# --------------------------------------------------------------------------- a worker's output


class Output:
    """Both pipes of a worker, and what was forwarded."""

    def __init__(self, path: Path) -> None:
        self.forwarded: list[LogLines] = []
        out_read, self.stdout = os.pipe()
        err_read, self.stderr = os.pipe()
        self.output = WorkerOutput(str(path), out_read, err_read, self.forwarded.append)
        self.output.pid = 7

    def close(self) -> None:
        self.output.close()
        for fd in (self.stdout, self.stderr):
            os.close(fd)


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    made = Output(tmp_path / "worker.log")
    yield made
    made.close()


def test_silence_makes_no_file(output: Output, tmp_path: Path) -> None:
    assert output.output.pipes[0].read() is False
    assert os.listdir(tmp_path) == []
    assert output.forwarded == []


def test_lines_go_to_the_file_and_the_driver(output: Output, tmp_path: Path) -> None:
    os.write(output.stdout, MARKER + b"f\none\ntwo\n")
    os.write(output.stderr, b"oh\n")
    for pipe in output.output.pipes:
        assert pipe.read() is True
    assert output.forwarded == [LogLines(7, "f", 1, ["one", "two"]), LogLines(7, "", 2, ["oh"])]
    assert (tmp_path / "worker.log").read_bytes() == b"one\ntwo\noh\n"


def test_the_end_brings_what_was_left(output: Output, tmp_path: Path) -> None:
    os.write(output.stdout, b"no newline")
    output.output.close()
    assert output.forwarded == [LogLines(7, "", 1, ["no newline"])]
    assert (tmp_path / "worker.log").read_bytes() == b"no newline\n"


def test_the_driver_gets_the_beginning_of_long_lines(output: Output, tmp_path: Path) -> None:
    size = 3 * module.MAX_LINE
    os.write(output.stdout, b"x" * size)
    while output.output.pipes[0].read():
        pass
    os.write(output.stdout, b"\nnext\n")
    output.output.pipes[0].read()
    [first, second] = [line for message in output.forwarded for line in message.lines]
    assert first == "x" * module.MAX_LINE + " [cut here]"
    assert second == "next"
    assert (tmp_path / "worker.log").stat().st_size == size + len("\nnext\n")


def test_progress_bars_and_broken_bytes_are_readable(output: Output) -> None:
    os.write(output.stdout, b"10%\r20%\r30%\ncrlf\r\n\xff\n")
    output.output.pipes[0].read()
    assert output.forwarded[0].lines == ["30%", "crlf", "\ufffd"]


def test_a_pipe_ends(output: Output) -> None:
    read, write = os.pipe()
    pipe = module.Pipe(read, 1, output.output)
    os.close(write)
    assert pipe.read() is None
    pipe.close()
    pipe.close()


def test_log_files_start_anew_when_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE", 10)
    file = LogFile(str(tmp_path / "log"))
    for text in (b"123456", b"7890ab", b"later"):
        file.write(text)
    file.close()
    assert (tmp_path / "log.1").read_bytes() == b"1234567890ab"
    assert (tmp_path / "log").read_bytes() == b"later"


def test_a_log_that_cannot_be_written_is_lost_quietly(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "missing" / "log"))
    file.write(b"text")
    file.close()


# --------------------------------------------------------------------------- a driver that lags


def test_lines_are_left_out_for_a_driver_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 100)
    sent: list[LogLines] = []
    forwarder = Forwarder(sent.append)

    def say(text: str) -> None:
        forwarder.forward(LogLines(7, "f", 1, [text] * 3))
        forwarder.flush()

    say("a" * 20)
    assert len(sent) == 1
    say("b" * 20)
    say("c" * 20)
    assert len(sent) == 1
    forwarder.caught_up()
    say("d" * 20)
    assert [message.lines[0] for message in sent[1:]] == [
        "[6 lines left out here, see the logs of the workers]",
        "d" * 20,
    ]
