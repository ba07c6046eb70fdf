"""Lines that many workers print are said once."""

from __future__ import annotations

from skate.runtime.worker.driver_output import MEMORY, WINDOW_SECONDS, Deduplicator


def test_lines_are_prefixed() -> None:
    assert Deduplicator().feed("(f pid=1)", 1, "hello", 0.0) == ["(f pid=1) hello"]


def test_the_same_line_of_others_is_counted() -> None:
    lines = Deduplicator()
    assert lines.feed("(f pid=1)", 1, "x", 0.0) == ["(f pid=1) x"]
    assert lines.feed("(f pid=2)", 2, "x", 0.1) == []
    assert lines.feed("(f pid=3)", 3, "x", 0.2) == []
    expected = ["(f pid=3) x [repeated 2 times more by other processes]"]
    assert lines.expire(WINDOW_SECONDS + 0.3) == expected
    assert lines.feed("(f pid=2)", 2, "x", WINDOW_SECONDS + 0.4) == ["(f pid=2) x"]


def test_one_process_may_repeat_itself() -> None:
    lines = Deduplicator()
    for _ in range(3):
        assert lines.feed("(f pid=1)", 1, "x", 0.0) == ["(f pid=1) x"]
    assert lines.finish() == []


def test_the_end_tells_what_was_counted() -> None:
    lines = Deduplicator()
    lines.feed("(f pid=1)", 1, "x", 0.0)
    lines.feed("(f pid=2)", 2, "x", 0.0)
    assert lines.finish() == ["(f pid=2) x [repeated once more by other processes]"]
    assert lines.finish() == []


def test_memory_is_bounded_and_loses_no_count() -> None:
    lines = Deduplicator()
    lines.feed("(f pid=1)", 1, "first", 0.0)
    lines.feed("(f pid=2)", 2, "first", 0.0)
    printed = [line for i in range(MEMORY) for line in lines.feed("(f pid=1)", 1, str(i), 0.0)]
    assert "(f pid=2) first [repeated once more by other processes]" in printed


def test_empty_lines_are_not_counted() -> None:
    lines = Deduplicator()
    assert lines.feed("(f pid=1)", 1, "", 0.0) == ["(f pid=1) "]
    assert lines.feed("(f pid=2)", 2, "", 0.0) == ["(f pid=2) "]
