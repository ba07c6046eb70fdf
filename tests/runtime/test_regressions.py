"""Defects that were found by trying to break the runtime, each with the program that showed it."""

from __future__ import annotations

import _imp
import functools
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from importlib import _bootstrap as bootstrap
from pathlib import Path
from typing import Any

import pytest
from scripts import Script

import skate
from skate import exceptions
from skate.api import session as engine_session


@skate.remote
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@skate.remote
class Sleeper:
    def sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def echo(self, value: Any) -> Any:
        return value


class TooLateError(Exception):
    pass


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


# Where the signal meets a finalizer Python itself drops what the handler raises, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_handler_that_raises_leaves_the_session_working(session: None) -> None:
    @skate.remote
    def one(x: int) -> int:
        return x

    def handler(*_: object) -> None:
        raise TooLateError

    # Pickled before: what a handler raises meanwhile looks like an error of pickling.
    assert skate.get(one.remote(0), timeout=20) == 0
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for i in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + (i % 40) / 2000)
                skate.get([one.remote(x) for x in range(200)])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except TooLateError:
                pass
    finally:
        # First: with a timer that is still set, the handler of the test runner would be called.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert skate.get([one.remote(x) for x in range(500)], timeout=20) == list(range(500))


@skate.remote
def limits_its_own_time(rounds: int) -> int:
    """Wait for tasks again and again, under a time limit that comes at any moment."""

    def handler(*_: object) -> None:
        raise TooLateError

    # Pickled before: what a handler raises meanwhile looks like an error of pickling.
    skate.get(sleep.remote(0))
    too_late = 0
    before = signal.signal(signal.SIGALRM, handler)
    try:
        for i in range(rounds):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00005 + (i % 40) / 100000)
                skate.get(sleep.remote(0))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except TooLateError:
                too_late += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return too_late


def test_a_signal_handler_that_raises_leaves_its_worker_working(
    cluster: Callable[..., None],
) -> None:
    """A worker that stayed marked as waiting took no tasks, and counted no CPU."""
    cluster(num_cpus=1)
    assert skate.get(limits_its_own_time.remote(400), timeout=120) > 0
    assert skate.get([sleep.remote(0) for _ in range(100)], timeout=20) == [0] * 100
    deadline = time.monotonic() + 10
    while skate.available_resources().get("CPU") != 1.0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert skate.available_resources()["CPU"] == 1.0


def test_the_users_handlers_are_the_users_again(cluster: Callable[..., None]) -> None:
    calls: list[int] = []

    def handler(signum: int, _frame: object) -> None:
        calls.append(signum)

    before = {number: signal.signal(number, handler) for number in (signal.SIGUSR1, signal.SIGALRM)}
    try:
        cluster(num_cpus=1)
        assert skate.get(sleep.remote(0)) == 0
        core = engine_session.current().core  # type: ignore[attr-defined]  # the native one
        with core.lock:
            signal.raise_signal(signal.SIGUSR1)
            assert calls == []
        assert skate.get(sleep.remote(0)) == 0
        assert calls == [signal.SIGUSR1]
        skate.shutdown()
        for number in before:
            assert signal.getsignal(number) is handler
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def test_a_woken_follower_that_leaves_wakes_another(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=4)
    actors = [Sleeper.remote() for _ in range(2)]
    skate.get([actor.sleep.remote(0) for actor in actors])
    for _ in range(5):
        first, second = actors[0].sleep.remote(0.1), actors[1].sleep.remote(0.3)
        threads = [
            in_thread(lambda ref=first: skate.get(ref)),  # type: ignore[misc]  # binds the loop's value
            in_thread(lambda ref=first: skate.wait([ref])),  # type: ignore[misc]
            in_thread(lambda ref=second: skate.get(ref)),  # type: ignore[misc]
        ]
        deadline = time.monotonic() + 5
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
        assert not any(thread.is_alive() for thread in threads)


def test_another_threads_requests_leave_while_one_waits(session: None) -> None:
    actor = Sleeper.remote()
    skate.get(actor.sleep.remote(0))
    slow = actor.sleep.remote(4)
    thread = in_thread(lambda: skate.get(slow))
    time.sleep(0.2)  # the thread is in epoll by now; if not, this tests less
    started = time.monotonic()
    skate.nodes()
    assert time.monotonic() - started < 2
    thread.join(20)


def test_cancelling_a_call_releases_those_behind_it(session: None) -> None:
    actor = Sleeper.remote()
    pending = sleep.remote(600)
    first, second = actor.echo.remote(pending), actor.echo.remote(2)
    failed: list[BaseException] = []

    def waits() -> None:
        try:
            skate.get(first)
        except exceptions.TaskCancelledError as error:
            failed.append(error)

    thread = in_thread(waits)
    time.sleep(0.1)  # as above
    skate.cancel(first)
    assert skate.get(second, timeout=10) == 2
    thread.join(10)
    assert len(failed) == 1
    skate.cancel(pending, force=True)


def test_wait_without_time_sees_borrowed_refs(session: None) -> None:
    @skate.remote
    def poll(refs: list[Any]) -> int:
        deadline = time.monotonic() + 10
        polls = 0
        while time.monotonic() < deadline:
            polls += 1
            if skate.wait(refs, timeout=0)[0]:
                return polls
        return -1

    assert skate.get(poll.remote([skate.put(1)]), timeout=20) > 0


def test_idle_workers_stay_while_others_need_what_they_own(cluster: Callable[..., None]) -> None:
    cluster(num_cpus=1)

    @skate.remote
    def nest(depth: int) -> list[Any]:
        mine = [skate.put(depth)]
        if depth:
            mine += skate.get(nest.remote(depth - 1))
        return mine

    refs = skate.get(nest.remote(4), timeout=20)
    # Surplus workers are retired after some seconds.
    time.sleep(8)
    assert skate.get(refs, timeout=20) == [4, 3, 2, 1, 0]


def test_a_process_left_behind_that_writes_for_ever(session: None) -> None:
    @skate.remote(max_retries=0)
    def leave_a_writer() -> None:
        import subprocess

        writer = subprocess.Popen(["yes"], start_new_session=True)
        with open(f"/proc/{os.getpid()}/stat"):
            pass
        print(writer.pid, flush=True)
        os._exit(3)

    with pytest.raises(exceptions.WorkerCrashedError, match="exited with code 3"):
        skate.get(leave_a_writer.remote(), timeout=20)
    assert skate.get(sleep.remote(0), timeout=20) == 0


def test_a_connection_that_a_task_closes(session: None) -> None:
    @skate.remote(max_retries=0)
    def close_everything() -> None:
        for fd in range(3, 200):
            try:
                if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                    os.close(fd)
            except OSError:
                continue

    with pytest.raises(exceptions.SkateError):
        skate.get(close_everything.remote(), timeout=30)
    assert skate.get([sleep.remote(0) for _ in range(4)], timeout=20) == [0] * 4


def test_reentrant_call_while_another_thread_of_the_actor_pumps(session: None) -> None:
    @skate.remote
    class Relay:
        def call(self, actor: Any) -> int:
            value: int = skate.get(actor.answer.remote())
            return value

    @skate.remote
    class Top:
        def __init__(self) -> None:
            self.relay = Relay.remote()
            self.sleeper = Sleeper.remote()

        def run(self, me: Any) -> float:
            thread = threading.Thread(target=lambda: skate.get(self.sleeper.sleep.remote(4)))
            thread.start()
            time.sleep(0.2)  # lets the thread take the pump
            started = time.monotonic()
            assert skate.get(self.relay.call.remote(me)) == 42
            seconds = time.monotonic() - started
            thread.join()
            return seconds

        def answer(self) -> int:
            return 42

    top = Top.remote()
    assert skate.get(top.run.remote(top), timeout=30) < 2


def test_get_in_a_finalizer_inside_the_runtime_says_so(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import gc, sys, time, skate
        skate.init(num_cpus=1, engine="native")
        sys.unraisablehook = lambda _: None  # nobody reads stderr before the end

        @skate.remote
        def f(x):
            return x

        class Bad:
            def __init__(self):
                self.me = self
            def __del__(self):
                skate.get(f.remote(1))

        gc.set_threshold(20, 2, 2)
        for i in range(300):
            Bad()
            skate.get([f.remote(i) for i in range(5)])
        # And in the background thread, which handles replies while this one sleeps.
        gc.disable()
        for i in range(100):
            Bad()
            refs = [f.remote(i) for i in range(50)]
            gc.enable()
            gc.set_threshold(1, 1, 1)
            time.sleep(0.005)
            gc.disable()
            try:
                skate.get(refs)
            except RuntimeError:
                pass
        gc.enable()
        gc.set_threshold(700, 10, 10)
        print("done", flush=True)
        import os
        skate.shutdown()
        os._exit(0)
        """
    )
    running.wait_for_line("done")
    running.finish()


def test_finalizers_at_exit_start_no_session(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import skate
        skate.init(num_cpus=1, engine="native")

        class Late:
            def __del__(self, put=skate.put):
                put(1)

        late = Late()
        late.me = late
        """
    )
    running.finish()
    assert running.process.returncode == 0
    running.assert_nothing_left()


def test_refs_of_the_parent_fail_in_a_forked_child(script: Callable[[str], Script]) -> None:
    running = script(
        """
        import os, time, skate
        skate.init(num_cpus=1, engine="native")

        @skate.remote
        def slow():
            time.sleep(600)

        ref = slow.remote()
        child = os.fork()
        if not child:
            try:
                skate.get(ref, timeout=20)
            except skate.exceptions.SessionError:
                os._exit(17)
            os._exit(1)
        print("code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        """
    )
    assert running.wait_for_line("code").split() == ["code", "17"]
    running.finish()


@pytest.mark.parametrize("recursive", [True, False])
def test_cancel_reaches_what_the_task_has_started(
    cluster: Callable[..., None], tmp_path: Path, recursive: bool
) -> None:
    cluster(num_cpus=2)

    @skate.remote
    def grandchild(folder: Path) -> None:
        try:
            (folder / "begun").touch()
            while not (folder / "go").exists():
                time.sleep(0.02)
            (folder / "finished").touch()
        finally:
            (folder / "ended").touch()

    @skate.remote
    def child(folder: Path) -> None:
        skate.get(grandchild.remote(folder))

    @skate.remote
    def parent(folder: Path) -> None:
        skate.get(child.remote(folder))

    def wait_for(name: str) -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / name).exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    ref = parent.remote(tmp_path)
    wait_for("begun")
    skate.cancel(ref, recursive=recursive)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(ref, timeout=20)
    if not recursive:
        assert not (tmp_path / "ended").exists()
        (tmp_path / "go").touch()
    wait_for("ended")
    assert (tmp_path / "finished").exists() == (not recursive)
    # Both CPUs are free again.
    assert skate.get(sleep.options(num_cpus=2).remote(0.1), timeout=20) == 0.1


def test_max_task_retries_travels_with_the_handle(session: None) -> None:
    @skate.remote(max_restarts=1, max_task_retries=1)
    class Fragile:
        def pid(self) -> int:
            return os.getpid()

        def slow_pid(self) -> int:
            time.sleep(1)
            return os.getpid()

    @skate.remote
    def use(handle: Any) -> int:
        value: int = skate.get(handle.slow_pid.remote())
        return value

    actor = Fragile.remote()
    pid = skate.get(actor.pid.remote(), timeout=20)
    ref = use.remote(actor)
    time.sleep(0.5)  # the call runs by now; if not, this tests less
    os.kill(pid, signal.SIGKILL)
    assert skate.get(ref, timeout=20) != pid


@pytest.mark.parametrize("concurrency", [1, 4])
def test_exit_actor_is_for_good(session: None, concurrency: int) -> None:
    @skate.remote(max_restarts=-1, max_concurrency=concurrency)
    class Leaver:
        def pid(self) -> int:
            return os.getpid()

        def leave(self) -> None:
            skate.actor.exit_actor()

    actor = Leaver.remote()
    pid = skate.get(actor.pid.remote(), timeout=20)
    with pytest.raises(exceptions.SkateError):
        skate.get(actor.leave.remote(), timeout=20)
    with pytest.raises(exceptions.ActorDiedError):
        skate.get(actor.pid.remote(), timeout=20)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_actor_that_calls_itself_again_and_again_costs_the_same_each_time(session: None) -> None:
    @skate.remote
    class Clock:
        def __init__(self) -> None:
            self.ticks = 0

        def start(self, me: Any, ticks: int) -> None:
            self.me, self.wanted = me, ticks
            self.me.tick.remote()

        def tick(self) -> None:
            self.ticks += 1
            if self.ticks < self.wanted:
                self.me.tick.remote()

        def count(self) -> tuple[int, int]:
            from skate.api import session

            running = session.current().core.executing  # type: ignore[attr-defined]  # of this engine
            return self.ticks, len(running.chain)

    clock = Clock.remote()
    skate.get(clock.start.remote(clock, 3000), timeout=20)
    deadline = time.monotonic() + 30
    while skate.get(clock.count.remote(), timeout=20)[0] < 3000:
        assert time.monotonic() < deadline
    del clock
    gc.collect()


def test_exceptions_whose_classes_misbehave(session: None) -> None:
    class EvilError(Exception):
        def __reduce__(self) -> Any:
            raise SystemExit(5)

        def __str__(self) -> str:
            raise KeyboardInterrupt

    @skate.remote(max_retries=0)
    def fail() -> None:
        raise EvilError

    with pytest.raises(exceptions.TaskError):
        skate.get(fail.remote(), timeout=20)


@pytest.mark.parametrize("kind", ["task", "actor"])
def test_ctrl_c_is_for_the_main_thread(session: None, kind: str) -> None:
    """A thread that submitted something just then raised KeyboardInterrupt in its place."""
    actor = Sleeper.remote()
    submit = sleep.remote if kind == "task" else actor.sleep.remote
    skate.get(submit(0), timeout=20)
    core = engine_session.current().core  # type: ignore[attr-defined]  # the native one
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(skate.get(submit(0), timeout=20))
        except BaseException as error:
            outcomes.append(error)

    # As if Ctrl-C had met the main thread while it held the lock.
    with core.lock:
        signal.raise_signal(signal.SIGINT)
    in_thread(work).join(30)
    assert outcomes == [0]
    with pytest.raises(KeyboardInterrupt):
        submit(0)
    assert skate.get(submit(0), timeout=20) == 0


def test_ctrl_c_that_meets_a_finalizer_comes_again(session: None) -> None:
    """Python drops what is raised in a finalizer: the program would go on, the object stay."""
    core = engine_session.current().core  # type: ignore[attr-defined]  # the native one
    nudge = core.finalized.nudge
    signals = 0
    interrupted = False

    def press_and_nudge() -> None:
        nonlocal signals
        if signals == 0:
            signals += 1
            signal.raise_signal(signal.SIGINT)
        nudge()

    ref = skate.put(bytearray(1_000_000))
    core.finalized.nudge = press_and_nudge
    try:
        # What the finalizer raises would not arrive here.
        try:
            del ref
            threading.Event().wait(20)
        except KeyboardInterrupt:
            interrupted = True
    finally:
        core.finalized.nudge = nudge
    assert signals == 1
    assert interrupted


def test_ctrl_c_leaves_the_import_lock_alone(session: None, monkeypatch: Any) -> None:
    """Raised in a finalizer of the import system it was lost, and nobody could import any more."""
    interrupted = False
    acquire_lock, release_lock = _imp.acquire_lock, _imp.release_lock
    # A module's lock is a weak reference, with a callback that takes the import lock.
    lock = bootstrap._get_module_lock("a module")  # type: ignore[attr-defined]
    # Taken here already: what is called there must be C, for the signal to meet the callback.
    acquire_lock()
    press = functools.partial(signal.raise_signal, signal.SIGINT)
    monkeypatch.setattr(_imp, "acquire_lock", press)
    try:
        del lock
        monkeypatch.undo()
        threading.Event().wait(5)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        monkeypatch.undo()
        is_held = _imp.lock_held()
        if is_held:
            release_lock()
    assert not is_held
    assert interrupted


@pytest.mark.parametrize("where", ["running", "waiting"])
def test_nothing_of_what_ctrl_c_has_ended_is_kept(session: None, where: str) -> None:
    """The exception was in a circle with its own frames: views stayed until the next collection."""

    class Kept:
        pass

    weak: list[weakref.ref[Kept]] = []
    pending = sleep.remote(60)

    def work() -> None:
        kept = Kept()
        weak.append(weakref.ref(kept))
        if where == "waiting":
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            skate.get(pending)
        else:
            signal.raise_signal(signal.SIGINT)

    gc.collect()
    gc.disable()
    try:
        try:
            work()
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("it was not interrupted")
        assert weak[0]() is None
    finally:
        gc.enable()
        skate.cancel(pending)
