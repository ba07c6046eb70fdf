"""Reading logs: the last lines, text cut anywhere, files that begin anew."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.state import logs
from skate.state.logs import read_log


@given(
    lines=st.lists(st.text(st.characters(blacklist_characters="\n", blacklist_categories=("Cs",)))),
    ends=st.booleans(),
    tail=st.integers(0, 8),
)
def test_the_last_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ends: bool, tail: int
) -> None:
    text = "\n".join(lines) + ("\n" if ends and lines else "")
    path = tmp_path_factory.mktemp("logs") / "worker.log"
    path.write_bytes(text.encode())
    # ``splitlines`` knows further ends of lines.
    whole = text.split("\n")
    last = [line + "\n" for line in whole[:-1]] + ([whole[-1]] if whole[-1] else [])
    expected = "".join(last[max(len(last) - tail, 0) :] if tail else [])
    assert "".join(read_log(str(path), tail)) == expected


def test_characters_are_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "READ_SIZE", 3)
    path = tmp_path / "worker.log"
    path.write_text("äöü€" * 10)
    assert "".join(read_log(str(path))) == "äöü€" * 10


def test_a_file_that_is_begun_anew_is_followed(tmp_path: Path) -> None:
    session = tmp_path / "session"
    log_dir = session / "logs"
    log_dir.mkdir(parents=True)
    path = log_dir / "worker.log"
    path.write_text("one\n")
    pieces = read_log(str(path), follow=True)
    assert next(pieces) == "one\n"
    path.rename(log_dir / "worker.log.1")
    path.write_text("two\n")
    assert next(pieces) == "two\n"

    def append_and_end() -> None:
        with path.open("a") as file:
            file.write("three\n")
        session.rename(tmp_path / "ended")

    later = threading.Timer(0.2, append_and_end)
    later.start()
    # The last line may come, or be missed with the file; either way it ends.
    assert "".join(pieces) in ("three\n", "")
    later.join()


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert list(read_log(os.fspath(tmp_path / "none.log"))) == []
