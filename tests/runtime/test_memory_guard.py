"""Workers that take too much memory, under a threshold a little above what is in use now."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sessions import running

import skate
from skate.exceptions import ActorError, OutOfMemoryError
from skate.runtime.node.memory import MemoryReader

SECONDS = 150
STEP = 64 << 20
#: How much more than now may be in use; other tests, and others on this machine, take and
#: free some of it meanwhile.
MARGIN = 2 << 30
#: Nobody allocates more than this, so that the machine survives a guard that sleeps.
MOST = 6 << 30


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SKATE_ENGINE", "native")
    threshold = max((r.used + MARGIN) / r.total for r in MemoryReader().read())
    if threshold >= 0.95:
        pytest.skip("this machine has too little free memory to fill some of it")
    with running(num_cpus=2, memory_usage_threshold=threshold):
        yield


def fill() -> int:
    """Allocate and touch memory until somebody ends us."""
    held = []
    for _ in range(MOST // STEP):
        held.append(bytearray(b"x") * STEP)
        time.sleep(0.01)
    return len(held)


@skate.remote(max_retries=0)
def greedy() -> int:
    return fill()


@skate.remote(max_retries=1)
def greedy_at_first(path: str) -> str:
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= 3:
        fill()
    return "done"


@skate.remote
class Hoarder:
    def fill(self) -> int:
        return fill()

    def pid(self) -> int:
        return os.getpid()


@pytest.mark.timeout(300)
def test_a_task_that_may_not_run_twice_fails_and_says_what_used_how_much(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        skate.get(greedy.remote(), timeout=SECONDS)
    text = str(caught.value)
    assert "greedy()" in text
    assert "memory_usage_threshold" in text
    assert "PSS MiB" in text
    assert "worker of this session: task greedy" in text
    # The user hears of it also where the task is tried again.
    assert "of task greedy was ended to keep" in caplog.text


@pytest.mark.timeout(300)
def test_a_task_is_tried_again_more_often_than_its_retries_allow(tmp_path: Any) -> None:
    path = str(tmp_path / "attempts")
    # It has one retry, and is ended three times.
    assert skate.get(greedy_at_first.remote(path), timeout=SECONDS) == "done"
    assert os.path.getsize(path) >= 4


@pytest.mark.timeout(300)
def test_an_actor_that_may_restart_does_and_its_caller_hears_why() -> None:
    hoarder = Hoarder.options(max_restarts=-1).remote()
    before = skate.get(hoarder.pid.remote(), timeout=SECONDS)
    with pytest.raises(ActorError, match="running out of memory") as caught:
        skate.get(hoarder.fill.remote(), timeout=SECONDS)
    assert "PSS MiB" in str(caught.value)
    assert "worker of this session: actor Hoarder" in str(caught.value)
    assert skate.get(hoarder.pid.remote(), timeout=SECONDS) != before


@pytest.mark.timeout(300)
def test_what_can_be_started_again_goes_before_what_cannot(tmp_path: Any) -> None:
    # Newer than the task and not to be restarted, it stays.
    path = str(tmp_path / "attempts")
    ref = greedy_at_first.options(max_retries=-1).remote(path)
    steady = Hoarder.remote()
    pid = skate.get(steady.pid.remote(), timeout=SECONDS)
    assert skate.get(ref, timeout=SECONDS) == "done"
    assert skate.get(steady.pid.remote(), timeout=SECONDS) == pid


@skate.remote
def keep_some(own: str, other: str) -> int:
    """Keep memory when we have ended, in another process than that of the other one."""
    import builtins

    builtins.kept = bytearray(b"x") * (200 << 20)  # type: ignore[attr-defined]  # made here
    open(own, "w").close()
    deadline = time.monotonic() + SECONDS
    while not os.path.exists(other):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return os.getpid()


@skate.remote
class Filler:
    def fill_until_gone(self, pids: list[int]) -> list[int]:
        held = []
        for _ in range(MOST // (16 << 20)):
            gone = [pid for pid in pids if not os.path.exists(f"/proc/{pid}")]
            if gone:
                return gone
            held.append(bytearray(b"x") * (16 << 20))
            time.sleep(0.02)
        return []


@pytest.mark.timeout(300)
def test_idle_workers_that_hold_memory_go_before_anybody_loses_work(tmp_path: Any) -> None:
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    pids = skate.get([keep_some.remote(*paths), keep_some.remote(*paths[::-1])], timeout=SECONDS)
    assert len(set(pids)) == 2
    # It is not restarted: if it were ended this would fail.
    filler = Filler.remote()
    gone = skate.get(filler.fill_until_gone.remote(pids), timeout=SECONDS)
    assert gone
    assert set(gone) <= set(pids)


def wait_for_file(path: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not os.path.exists(path):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.timeout(300)
def test_the_newest_call_goes_not_that_of_the_newest_worker(tmp_path: Any) -> None:
    def path(name: str) -> str:
        return str(tmp_path / name)

    @skate.remote(max_retries=-1)
    def work(name: str, gate: str, fills: bool = False) -> None:
        with open(path(name), "a") as file:
            file.write("x")
        if fills and os.path.getsize(path(name)) == 1:
            fill()
        wait_for_file(gate)

    open(path("open"), "w").close()
    first = work.remote("first", path("first gate"))
    wait_for_file(path("first"))
    old = work.remote("old", path("old gate"))
    wait_for_file(path("old"))
    # The worker that was granted first gets the call that begins last.
    open(path("first gate"), "w").close()
    skate.get(first, timeout=SECONDS)
    skate.get(work.remote("new", path("open"), fills=True), timeout=SECONDS)
    assert os.path.getsize(path("new")) == 2
    assert os.path.getsize(path("old")) == 1
    open(path("old gate"), "w").close()
    skate.get(old, timeout=SECONDS)


def test_thresholds_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    skate.shutdown()
    with pytest.raises(ValueError, match="memory_usage_threshold must be above 0"):
        skate.init(memory_usage_threshold=0)
    with pytest.raises(TypeError, match="memory_usage_threshold must be a number"):
        skate.init(memory_usage_threshold="0.9")  # type: ignore[arg-type]  # that is the test
    monkeypatch.setenv("SKATE_MEMORY_USAGE_THRESHOLD", "a lot")
    with pytest.raises(TypeError, match="SKATE_MEMORY_USAGE_THRESHOLD"):
        skate.init()
