"""Workers and actors that die, and what their callers see."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import skate
from skate import exceptions


@skate.remote
def die(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def test_a_dead_worker_says_how(session: None) -> None:
    with pytest.raises(exceptions.WorkerCrashedError, match=r"die\(\) died: .*SIGKILL"):
        skate.get(die.options(max_retries=0).remote(), timeout=20)


def test_segmentation_fault_and_exit_code(session: None) -> None:
    with pytest.raises(exceptions.WorkerCrashedError, match="SIGSEGV"):
        skate.get(die.options(max_retries=0).remote(signal.SIGSEGV), timeout=20)

    @skate.remote(max_retries=0)
    def leave() -> None:
        print("last words", flush=True)
        os._exit(7)

    with pytest.raises(exceptions.WorkerCrashedError, match="exited with code 7") as caught:
        skate.get(leave.remote(), timeout=20)
    log = str(caught.value).split("Its output: ")[1].split()[0].rstrip(".")
    assert "last words" in Path(log).read_text()


def test_crashed_tasks_are_retried(session: None, tmp_path: Path) -> None:
    @skate.remote(max_retries=2)
    def flaky(folder: str) -> int:
        attempt = len(os.listdir(folder))
        Path(folder, str(attempt)).touch()
        if attempt < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return attempt

    assert skate.get(flaky.remote(str(tmp_path)), timeout=20) == 2


def test_tasks_behind_a_crashing_one_are_not_blamed(session: None) -> None:
    @skate.remote(max_retries=0)
    def maybe(i: int) -> int:
        if i == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    refs = [maybe.remote(i) for i in range(100)]
    for i, ref in enumerate(refs):
        if i == 50:
            with pytest.raises(exceptions.WorkerCrashedError):
                skate.get(ref, timeout=20)
        else:
            assert skate.get(ref, timeout=20) == i


@skate.remote
class Fragile:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self) -> int:
        self.value += 1
        return self.value

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def pid(self) -> int:
        return os.getpid()

    def slow_then_pid(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()


def test_actor_death_without_restarts(session: None) -> None:
    actor = Fragile.remote()
    assert skate.get(actor.add.remote(), timeout=20) == 1
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        skate.get(actor.die.remote(), timeout=20)
    with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
        skate.get(actor.add.remote(), timeout=20)


def test_actor_restarts_with_its_constructor(session: None) -> None:
    actor = Fragile.options(max_restarts=1).remote(10)
    assert skate.get(actor.add.remote(), timeout=20) == 11
    with pytest.raises(exceptions.ActorError):
        skate.get(actor.die.remote(), timeout=20)
    assert skate.get(actor.add.remote(), timeout=20) == 11
    with pytest.raises(exceptions.ActorDiedError):
        skate.get(actor.die.remote(), timeout=20)
    with pytest.raises(exceptions.ActorDiedError):
        skate.get(actor.add.remote(), timeout=20)


def test_calls_are_sent_again_with_max_task_retries(session: None) -> None:
    actor = Fragile.options(max_restarts=1, max_task_retries=1).remote()
    pid = skate.get(actor.pid.remote(), timeout=20)
    slow = actor.slow_then_pid.remote(0.5)
    later = [actor.add.remote() for _ in range(5)]
    os.kill(pid, signal.SIGKILL)
    assert skate.get(slow, timeout=20) != pid
    assert skate.get(later, timeout=20) == [1, 2, 3, 4, 5]


def test_kill(session: None) -> None:
    actor = Fragile.options(max_restarts=-1).remote()
    pid = skate.get(actor.pid.remote(), timeout=20)
    skate.kill(actor, no_restart=False)
    deadline = time.monotonic() + 20
    while True:
        try:
            assert skate.get(actor.pid.remote(), timeout=20) != pid
            break
        except exceptions.ActorUnavailableError:
            assert time.monotonic() < deadline
    skate.kill(actor)
    with pytest.raises(exceptions.ActorDiedError, match=r"skate\.kill"):
        skate.get(actor.add.remote(), timeout=20)


def test_constructor_that_raises(session: None) -> None:
    @skate.remote
    class Broken:
        def __init__(self) -> None:
            raise KeyError("no such thing")

        def use(self) -> None: ...

    broken = Broken.remote()
    with pytest.raises(exceptions.ActorDiedError, match="no such thing"):
        skate.get(broken.use.remote(), timeout=20)


def test_constructor_that_kills_its_process(session: None) -> None:
    @skate.remote
    class Broken:
        def __init__(self) -> None:
            os._exit(9)

        def use(self) -> None: ...

    broken = Broken.remote()
    with pytest.raises(exceptions.ActorDiedError, match="exited with code 9"):
        skate.get(broken.use.remote(), timeout=20)


def test_actor_ends_when_its_last_handle_is_gone(session: None) -> None:
    actor = Fragile.remote()
    pid = skate.get(actor.pid.remote(), timeout=20)
    last = actor.slow_then_pid.remote(0.1)
    del actor
    assert skate.get(last, timeout=20) == pid
    _wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_handle_inside_another_actor_keeps_it_alive(session: None) -> None:
    @skate.remote
    class Holder:
        def __init__(self, held: list[object]) -> None:
            self.held = held

        def use(self) -> int:
            value: int = skate.get(self.held[0].add.remote())  # type: ignore[attr-defined]  # a handle
            return value

        def drop(self) -> None:
            self.held = []

    actor = Fragile.remote()
    pid = skate.get(actor.pid.remote(), timeout=20)
    holder = Holder.remote([actor])
    assert skate.get(holder.use.remote(), timeout=20) == 1
    del actor
    assert skate.get([holder.use.remote() for _ in range(3)], timeout=20) == [2, 3, 4]
    skate.get(holder.drop.remote(), timeout=20)
    _wait_until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_random_kills_give_right_answers(session: None) -> None:
    @skate.remote(max_retries=-1)
    def square(i: int) -> tuple[int, int]:
        time.sleep(0.002)
        return i * i, os.getpid()

    refs = [square.remote(i) for i in range(600)]
    killed: set[int] = set()
    for start in range(0, 600, 100):
        value, pid = skate.get(refs[start], timeout=30)
        assert value == start * start
        if pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
    assert [value for value, _ in skate.get(refs, timeout=50)] == [i * i for i in range(600)]


def _wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("retries", [0, 1, -1])
@pytest.mark.parametrize("restarts", [0, 1, -1])
@pytest.mark.parametrize("kind", ["plain", "threaded", "async"])
def test_restarts_and_retries_of_every_kind(
    session: None, tmp_path: Path, kind: str, restarts: int, retries: int
) -> None:
    """A crash in a call: the constructor is replayed, the call repeated, as often as allowed."""

    class Base:
        def __init__(self, word: str) -> None:
            self.word = word

        def crash(self, folder: str) -> str:
            if not any(Path(folder).iterdir()):
                Path(folder, "crashed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return self.word

    class Async(Base):
        async def pid(self) -> int:
            return os.getpid()

    options = {"max_restarts": restarts, "max_task_retries": retries}
    if kind == "threaded":
        options["max_concurrency"] = 3
    actor = skate.remote(Async if kind == "async" else Base).options(**options).remote("word")
    ref = actor.crash.remote(str(tmp_path))
    if not restarts:
        with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
            skate.get(ref, timeout=30)
        return
    if retries:
        assert skate.get(ref, timeout=30) == "word"
    else:
        with pytest.raises(exceptions.ActorUnavailableError, match="restarted"):
            skate.get(ref, timeout=30)
    assert skate.get(actor.crash.remote(str(tmp_path)), timeout=30) == "word"
