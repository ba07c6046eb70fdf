"""Who is ended before memory runs out; and what is read of memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.node.memory import (
    MemoryReader,
    ProcessMemory,
    largest_processes,
    private_bytes,
    table,
)
from skate.runtime.node.memory_guard import (
    IDLE_WORTH,
    SETTLE_SECONDS,
    STUCK_SECONDS,
    Candidate,
    Idle,
    MemoryGuard,
    Reading,
    choose,
    explain,
)
from skate.runtime.worker.memory import FIRST_DELAY_SECONDS, LAST_DELAY_SECONDS, MOST_KILLS, delay

ALICE, BOB = b"alice", b"bob"


def task(name: str, owner: bytes = ALICE, since: float = 0.0, retriable: bool = True) -> Candidate:
    return Candidate(name.encode(), 1, f"task {name}", owner, retriable, since)


def chosen(*candidates: Candidate) -> str:
    found = choose(candidates)
    return found.worker_id.decode() if found is not None else ""


# --------------------------------------------------------------------------- the policy


def test_nobody_is_ended_if_nobody_runs() -> None:
    assert choose([]) is None


def test_the_newest_of_a_caller_goes_first() -> None:
    assert chosen(task("old", since=1), task("new", since=3), task("middle", since=2)) == "new"


def test_the_caller_with_most_tasks_loses_one_first() -> None:
    many = [task(f"a{n}", since=n) for n in range(3)]
    assert chosen(*many, task("b", BOB, since=9)) == "a2"


def test_of_callers_with_as_many_tasks_the_newest_goes() -> None:
    assert chosen(task("a", since=1), task("b", BOB, since=2)) == "b"


def test_what_cannot_be_started_again_goes_last() -> None:
    kept = [task(f"k{n}", since=10 + n, retriable=False) for n in range(3)]
    assert chosen(*kept, task("again", BOB, since=1)) == "again"
    assert chosen(*kept) == "k2"


@given(
    st.lists(
        st.builds(
            task,
            name=st.uuids().map(str),
            owner=st.sampled_from([ALICE, BOB, b"carl"]),
            since=st.floats(0, 100),
            retriable=st.booleans(),
        ),
        min_size=1,
    )
)
def test_whatever_runs_the_choice_keeps_its_word(candidates: list[Candidate]) -> None:
    victim = choose(candidates)
    assert victim in candidates
    assert victim.retriable or not any(c.retriable for c in candidates)
    same = [c for c in candidates if c.owner == victim.owner and c.retriable == victim.retriable]
    assert victim.since == max(c.since for c in same)
    if victim.retriable:
        for owner in {c.owner for c in candidates}:
            assert len([c for c in candidates if c.owner == owner and c.retriable]) <= len(same)


# --------------------------------------------------------------------------- the guard


def test_only_above_the_threshold_and_the_fullest_counts() -> None:
    guard = MemoryGuard(0.9)
    calm, full, fuller = Reading(90, 100, "a"), Reading(91, 100, "b"), Reading(19, 20, "c")
    assert guard.exceeded([calm]) is None
    assert guard.exceeded([calm, full, fuller]) is fuller
    assert guard.exceeded([]) is None
    assert guard.exceeded([Reading(0, 0, "nothing")]) is None


def test_one_at_a_time_and_then_memory_has_to_settle() -> None:
    guard = MemoryGuard(0.9)
    one, two = task("one", since=2), task("two", since=1)
    assert guard.choose([one, two], 0.0) is one
    assert guard.choose([two], 1.0) is None
    guard.worker_ended(b"somebody else", 2.0)
    assert guard.choose([two], 2.0) is None
    guard.worker_ended(b"one", 3.0)
    assert guard.choose([two], 3.0) is None
    assert guard.choose([two], 3.0 + SETTLE_SECONDS) is two


def test_a_worker_that_does_not_end_does_not_stop_the_guard_for_good() -> None:
    guard = MemoryGuard(0.9)
    assert guard.choose([task("stuck")], 0.0) is not None
    assert guard.choose([task("other")], STUCK_SECONDS) is not None


def test_while_nothing_can_be_ended_the_guard_stays_awake() -> None:
    guard = MemoryGuard(0.9)
    assert guard.choose([], 0.0) is None
    assert guard.choose([task("late")], 0.0) is not None


def test_the_explanation_says_what_used_how_much() -> None:
    reading = Reading(15 << 30, 16 << 30, "this machine")
    rows = [ProcessMemory(7, 3 << 30, 2 << 30, "worker of this session: task f")]
    text = explain(reading, 0.9, task("f"), table(rows))
    assert "15.00 of 16.00 GiB (93.8%)" in text
    assert "threshold of 90.0%" in text
    assert "task f was the newest" in text
    assert text.splitlines()[-1].split()[:3] == ["7", "3072", "2048"]
    assert text.endswith("worker of this session: task f")


def test_a_task_is_tried_again_later_each_time_and_not_for_ever() -> None:
    delays = [delay(kills) for kills in range(1, MOST_KILLS + 2)]
    assert delays[0] == FIRST_DELAY_SECONDS
    assert delays[1] == 2 * FIRST_DELAY_SECONDS
    assert delays[-2] == LAST_DELAY_SECONDS
    assert delays[-1] is None


# --------------------------------------------------------------------------- reading


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def proc(tmp_path: Path, groups: str) -> str:
    write(tmp_path / "proc", meminfo="MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    write(tmp_path / "proc" / "self", cgroup=groups)
    return str(tmp_path / "proc")


def test_the_machine(tmp_path: Path) -> None:
    reader = MemoryReader(proc(tmp_path, "0::/\n"), str(tmp_path / "none"))
    assert reader.read() == [Reading(600 * 1024, 1000 * 1024, "this machine")]


def test_pages_that_processors_keep_are_free(tmp_path: Path) -> None:
    reader = MemoryReader(proc(tmp_path, "0::/\n"), str(tmp_path / "none"))
    pages = (300 * 1024) // os.sysconf("SC_PAGE_SIZE")
    zones = f"""Node 0, zone   Normal
  pages free     7
  pagesets
    cpu: 0
              count:    {pages}
              high:     900
    cpu: 1
              count:    0
              high:     900
"""
    write(tmp_path / "proc", zoneinfo=zones)
    assert [reading.used for reading in reader.read()] == [300 * 1024]
    assert [reading.used for reading in reader.read(0.5)] == [300 * 1024]
    # Below the threshold nobody looks.
    assert [reading.used for reading in reader.read(0.7)] == [600 * 1024]


def test_control_groups_of_version_2_and_those_above(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    inner = root / "a" / "b"
    write(
        inner,
        memory__max="max\n",
        memory__current="5000\n",
        memory__stat="anon 1\ninactive_file 1000\n",
    )
    write(
        root / "a",
        memory__max="9000\n",
        memory__current="7000\n",
        memory__stat="inactive_file 2000\n",
    )
    readings = MemoryReader(proc(tmp_path, "0::/a/b\n"), str(root)).read()
    assert readings[1:] == [Reading(5000, 9000, f"the control group {root / 'a'}")]


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    write(
        root / "memory" / "a",
        memory__limit_in_bytes="8000\n",
        memory__usage_in_bytes="3000\n",
        memory__stat="total_inactive_file 500\n",
    )
    write(
        root / "memory",
        memory__limit_in_bytes=f"{(1 << 63) - 4096}\n",
        memory__usage_in_bytes="3000\n",
    )
    groups = "4:cpu,cpuacct:/\n3:memory:/a\n0::/\n"
    readings = MemoryReader(proc(tmp_path, groups), str(root)).read()
    assert readings[1:] == [Reading(2500, 8000, f"the control group {root / 'memory' / 'a'}")]


def test_inside_a_container_the_mounted_group_counts(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    write(root, memory__max="9000\n", memory__current="7000\n")
    readings = MemoryReader(proc(tmp_path, "0::/docker/abc\n"), str(root)).read()
    assert readings[1:] == [Reading(7000, 9000, f"the control group {root}")]


def test_nothing_readable_is_no_error(tmp_path: Path) -> None:
    assert MemoryReader(str(tmp_path), str(tmp_path)).read() == []


def test_this_machine_can_be_read() -> None:
    readings = MemoryReader().read()
    assert readings
    assert all(0 < reading.used <= reading.total for reading in readings)


@pytest.mark.parametrize("count", [1, 3])
def test_the_largest_processes_come_first(count: int) -> None:
    import os

    found = largest_processes({os.getpid(): "this test"}, count)
    assert len(found) == count
    assert [p.rss for p in found] == sorted((p.rss for p in found), reverse=True)
    everybody = largest_processes({os.getpid(): "this test"}, 100_000)
    [ours] = [p for p in everybody if p.pid == os.getpid()]
    assert ours.name == "this test"
    assert 0 < ours.pss <= ours.rss


def test_idle_workers_that_hold_memory_go_first_and_all_at_once() -> None:
    guard = MemoryGuard(0.9)
    idle = [Idle(b"a", IDLE_WORTH), Idle(b"b", IDLE_WORTH - 1), Idle(b"c", 10 * IDLE_WORTH)]
    assert guard.choose_idle(idle, 1.0) == [b"a", b"c"]
    # What that gives back has to show before anybody else is chosen.
    assert guard.choose([task("t")], 1.0) is None
    later = 1.0 + SETTLE_SECONDS
    # One that is needed stays, and is not asked again at once: so work is ended then.
    assert guard.choose_idle(idle, later) == []
    assert guard.choose([task("t")], later) is not None


def test_an_idle_worker_that_was_needed_is_asked_again_in_the_end() -> None:
    guard = MemoryGuard(0.9)
    idle = [Idle(b"a", IDLE_WORTH)]
    assert guard.choose_idle(idle, 1.0) == [b"a"]
    assert guard.choose_idle(idle, 0.9 + STUCK_SECONDS) == []
    assert guard.choose_idle(idle, 1.0 + STUCK_SECONDS) == [b"a"]


def test_there_is_time_to_ask_unless_memory_is_almost_gone() -> None:
    guard = MemoryGuard(0.9)
    assert not guard.is_urgent(Reading(92, 100, "here"))
    assert guard.is_urgent(Reading(96, 100, "here"))


def test_what_a_process_has_for_itself() -> None:
    before = private_bytes(os.getpid())
    held = bytearray(b"x") * (64 << 20)
    assert private_bytes(os.getpid()) - before > 60 << 20
    assert private_bytes(0) == 0
    del held
