"""Reading logs: the last lines, text cut anywhere, files that begin anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.node.config import Paths
from skate.runtime.node.log_files import LogFiles
from skate.runtime.wire.logs import LogPiece, LogRange
from skate.state import logs
from skate.state.logs import Read, text_of

NODE = b"n" * 16


def reader(log_dir: Path, living: list[str] | None = None, name: str = "worker.log") -> Read:
    """Read as a daemon does, whose session's logs are in a directory called ``logs``."""
    alive = living if living is not None else []
    files = LogFiles(NODE, Paths(str(log_dir.parent)), lambda: iter(alive))
    return lambda start, length: files.read(LogRange(NODE, name, start, length))


def log_dir_in(directory: Path) -> Path:
    log_dir = directory / "skate-0" / "s-0" / "logs"
    log_dir.mkdir(parents=True)
    return log_dir


@given(
    lines=st.lists(st.text(st.characters(blacklist_characters="\n", blacklist_categories=("Cs",)))),
    ends=st.booleans(),
    tail=st.integers(0, 8),
)
def test_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ends: bool, tail: int
) -> None:
    text = "\n".join(lines) + ("\n" if ends and lines else "")
    log_dir = log_dir_in(tmp_path_factory.mktemp("logs"))
    (log_dir / "worker.log").write_bytes(text.encode())
    # ``splitlines`` knows further ends of lines.
    whole = text.split("\n")
    last = [line + "\n" for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
    expected = "".join(last[max(len(last) - tail, 0) :] if tail else [])
    assert "".join(text_of(reader(log_dir), tail, follow=False)) == expected


@pytest.mark.parametrize("tail", [None, 3])
def test_characters_and_lines_are_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: int | None
) -> None:
    monkeypatch.setattr(logs, "READ_SIZE", 3)
    log_dir = log_dir_in(tmp_path)
    (log_dir / "worker.log").write_text("äöü€\n" * 10)
    text = "".join(text_of(reader(log_dir), tail, follow=False))
    assert text == "äöü€\n" * (tail or 10)


def test_a_file_that_is_begun_anew_is_followed(tmp_path: Path) -> None:
    log_dir = log_dir_in(tmp_path)
    path = log_dir / "worker.log"
    path.write_text("one\n")
    living = [str(path)]
    pieces = text_of(reader(log_dir, living), None, follow=True)
    assert next(pieces) == "one\n"
    path.rename(log_dir / "worker.log.1")
    path.write_text("two\n")
    assert next(pieces) == "two\n"
    # What a process printed at last is read before its end counts.
    with path.open("a") as file:
        file.write("three\n")
    living.clear()
    assert "".join(pieces) == "three\n"


def test_a_log_that_moves_when_its_process_crashes_is_read_to_its_end(tmp_path: Path) -> None:
    log_dir = log_dir_in(tmp_path)
    path = log_dir / "worker.log"
    path.write_text("one\n")
    living = [str(path)]
    pieces = text_of(reader(log_dir, living), None, follow=True)
    assert next(pieces) == "one\n"
    with path.open("a") as file:
        file.write("two\n")
    kept = Path(Paths(str(log_dir.parent)).kept_logs)
    kept.mkdir(parents=True)
    path.rename(kept / "worker.log")
    living.clear()
    assert "".join(pieces) == "two\n"


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert list(text_of(reader(tmp_path / "logs"), None, follow=False)) == []
    assert list(text_of(reader(tmp_path / "logs"), 3, follow=True)) == []


@pytest.mark.parametrize(
    "name",
    ["../config", "/etc/passwd", "logs/../config", "..", ".", "", "link", "pipe", "a\0b", "folder"],
)
def test_nothing_but_logs_is_read(tmp_path: Path, name: str) -> None:
    log_dir = log_dir_in(tmp_path)
    (log_dir.parent / "config").write_text("secret")
    (log_dir / "link").symlink_to(log_dir.parent / "config")
    (log_dir / "folder").mkdir()
    os.mkfifo(log_dir / "pipe")
    assert reader(log_dir, name=name)(0, 100) == LogPiece(-1, 0, b"", False)
    files = LogFiles(NODE, Paths(str(log_dir.parent)), lambda: iter(()))
    assert files.rows() == []


@pytest.mark.parametrize(
    ("start", "length", "data"),
    [(-5, 3, b"abc"), (1, -1, b""), (1, 1 << 63, b"bcdef"), (1 << 70, 5, b""), (6, 5, b"")],
)
def test_pieces_have_bounds(tmp_path: Path, start: int, length: int, data: bytes) -> None:
    log_dir = log_dir_in(tmp_path)
    (log_dir / "worker.log").write_text("abcdef")
    assert reader(log_dir)(start, length).data == data
