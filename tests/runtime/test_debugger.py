"""``breakpoint()`` in tasks and actors, and ``skate debug``."""

from __future__ import annotations

import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from scripts import Script
from terminal import Terminal

import skate
from skate.exceptions import TaskCancelledError
from skate.util import rpdb

pytestmark = pytest.mark.timeout(120)

DEBUG = [sys.executable, "-c", "from skate.cli import main; main()", "debug"]


def waiting(count: int = 1) -> list[rpdb.Breakpoint]:
    """Wait until so many calls of this session stand at breakpoints."""
    address = session_dir()
    deadline = time.monotonic() + 50
    while len(found := rpdb.waiting(address)) != count:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def session_dir() -> str:
    return str(skate.init(ignore_reinit_error=True)["session_dir"])


def talk(point: rpdb.Breakpoint, *lines: str) -> tuple[str, str]:
    """Attach and enter these lines; return what was shown, and why it ended."""
    shown: list[str] = []
    left = iter(lines)

    def read(prompt: str) -> str:
        shown.append(prompt)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    reason = rpdb.attach(point).talk(read, shown.append)
    return "".join(shown), reason


@skate.remote
def task(x):
    y = x * 2
    breakpoint()
    z = y + 1
    return z


@skate.remote
class Actor:
    def __init__(self):
        self.state = "initial"

    def work(self, value):
        rpdb.set_trace()
        self.state = value
        return self.state

    def get(self):
        return self.state


def test_look_change_and_continue(session):
    ref = task.remote(20)
    [point] = waiting()
    assert point.task_name == "task"
    assert point.file == __file__
    assert point.function == "task"
    assert point.pid != os.getpid()
    # Python 3.13 stops at the breakpoint, earlier ones behind it.
    go = f"until {point.line + 2}"
    shown, reason = talk(point, "p x, y", "y = 100", go, "p z", "where", "c")
    assert "(20, 40)" in shown
    assert "-> return z" in shown
    assert "101" in shown
    assert "invoke.py" not in shown, "frames of the runtime are not shown"
    assert skate.get(ref, timeout=50) == 101
    assert reason in ("the call has ended", "the task has ended, or its session")
    assert rpdb.waiting(session_dir()) == []


def test_stepping_to_the_end_ends_the_session(session):
    ref = task.remote(1)
    shown, _ = talk(waiting()[0], *["n"] * 20)
    assert "--Return--" in shown
    assert "invoke.py" not in shown
    assert skate.get(ref, timeout=50) == 3


def test_in_an_actor(session):
    actor = Actor.remote()
    ref = actor.work.remote("new")
    [point] = waiting()
    assert point.task_name == "Actor.work"
    assert point.actor_id
    shown, _ = talk(point, "p self.state", "c")
    assert "'initial'" in shown
    assert skate.get([ref, actor.get.remote()], timeout=50) == ["new", "new"]


def test_in_an_async_actor(session):
    @skate.remote
    class Waits:
        async def work(self, value):
            breakpoint()
            return value + 1

        async def other(self):
            return "ran"

    actor = Waits.remote()
    ref = actor.work.remote(1)
    [point] = waiting()
    assert point.task_name == "Waits.work"
    # The event loop stands still, as in any debugger.
    other = actor.other.remote()
    talk(point, "p value", "value = 10", "c")
    assert skate.get([ref, other], timeout=50) == [11, "ran"]


def test_in_a_threaded_actor(session):
    @skate.remote(max_concurrency=2)
    class Waits:
        def work(self, value):
            breakpoint()
            return value + 1

    actor = Waits.remote()
    refs = [actor.work.remote(value) for value in (1, 2)]
    for point in waiting(2):
        shown, _ = talk(point, "p value", "c")
        assert "event_loop.py" not in shown
    assert skate.get(refs, timeout=50) == [2, 3]


def test_several_breakpoints_of_one_call_keep_their_debugger(session):
    @skate.remote
    def loop():
        total = 0
        for number in range(3):
            breakpoint()
            total += number
        return total

    ref = loop.remote()
    shown, _ = talk(waiting()[0], "p number", "c", "p number * 11", "c", "p number * 11", "c")
    assert "\n" in shown
    assert "11" in shown
    assert "22" in shown
    assert skate.get(ref, timeout=50) == 3


def test_breakpoints_of_pdb(session):
    @skate.remote
    def work():
        breakpoint()
        first = 1
        second = first + 1
        return second

    ref = work.remote()
    [point] = waiting()
    shown, _ = talk(point, f"b {point.line + 2}", "c", "p first", "c")
    assert "Breakpoint 1 at" in shown
    assert "-> second = first + 1" in shown
    assert skate.get(ref, timeout=50) == 2


def test_several_calls_wait_at_once(session):
    refs = [task.remote(x) for x in (1, 2)]
    points = waiting(2)
    assert len({point.pid for point in points}) == 2
    for point in reversed(points):
        talk(point, "detach")
    assert skate.get(refs, timeout=50) == [3, 5]


def test_what_waits_holds_no_cpu(cluster):
    cluster(num_cpus=1)

    @skate.remote
    def other():
        return "ran"

    ref = task.remote(1)
    [point] = waiting()
    assert skate.get(other.remote(), timeout=50) == "ran"
    client = rpdb.attach(point)
    # At the prompt as well.
    assert skate.get(other.remote(), timeout=50) == "ran"
    client.close()
    assert skate.get(ref, timeout=50) == 3


def test_leaving_lets_the_task_go_on(session):
    ref = task.remote(1)
    shown, reason = talk(waiting()[0], "p x")
    assert reason == "detached; the task goes on"
    assert shown
    assert skate.get(ref, timeout=50) == 3


def test_quit_ends_the_task(session):
    ref = task.options(max_retries=0).remote(1)
    _, reason = talk(waiting()[0], "q")
    assert reason == "the task was ended"
    with pytest.raises(Exception, match="BdbQuit"):
        skate.get(ref, timeout=50)


def test_cancelling_a_call_that_waits(session):
    ref = task.remote(1)
    waiting()
    skate.cancel(ref)
    with pytest.raises(TaskCancelledError):
        skate.get(ref, timeout=50)
    waiting(0)
    again = task.remote(2)
    [point] = waiting()
    client = rpdb.attach(point)
    waiting(0)
    skate.cancel(again)
    with pytest.raises(TaskCancelledError):
        skate.get(again, timeout=50)
    assert client.talk(lambda prompt: "", lambda text: None)


def test_the_user_is_told(session, caplog):
    with caplog.at_level(logging.WARNING, logger="skate"):
        ref = task.remote(1)
        [point] = waiting()
        talk(point, "c")
        assert skate.get(ref, timeout=50) == 3
        deadline = time.monotonic() + 50
        while not caplog.messages:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    [text] = caplog.messages
    assert f"task (pid {point.pid}) has reached the breakpoint at {__file__}:" in text
    assert f"skate debug {point.breakpoint_id}" in text
    assert "\n" not in text


def test_only_this_user_gets_at_the_socket(session):
    ref = task.remote(1)
    [point] = waiting()
    assert os.path.dirname(point.address) == session_dir()
    assert stat.S_IMODE(os.stat(session_dir()).st_mode) == 0o700
    talk(point, "c")
    assert skate.get(ref, timeout=50) == 3
    assert not os.path.exists(point.address)
    with pytest.raises(skate.exceptions.SessionError, match="waits no more"):
        rpdb.attach(point)


def test_nonsense_on_the_socket_detaches(session):
    ref = task.remote(1)
    [point] = waiting()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(point.address)
        sock.sendall(b"\x05\x00\x00\x00hello" * 100)
        assert skate.get(ref, timeout=50) == 3


def test_post_mortem(cluster):
    cluster(num_cpus=1, post_mortem=True)

    @skate.remote
    def fails(divisor):
        kept = 17
        return kept / divisor

    @skate.remote
    def outer():
        return skate.get(fails.remote(0))

    ref = outer.remote()
    [point] = waiting()
    assert point.error == "ZeroDivisionError: division by zero"
    assert point.function == "fails"
    shown, _ = talk(point, "p kept, divisor", "w", "c")
    assert "(17, 0)" in shown
    assert "invoke.py" not in shown
    # It does not stop once more in the task that has got the error.
    with pytest.raises(ZeroDivisionError):
        skate.get(ref, timeout=50)


def test_post_mortem_of_a_constructor_and_by_variable(cluster, monkeypatch):
    monkeypatch.setenv("SKATE_POST_MORTEM", "1")
    cluster(num_cpus=1)

    @skate.remote
    class Broken:
        def __init__(self):
            raise ValueError("never")

        def ping(self):
            return 1

    actor = Broken.remote()
    ref = actor.ping.remote()
    [point] = waiting()
    assert point.error == "ValueError: never"
    talk(point, "q")
    with pytest.raises(skate.exceptions.ActorDiedError, match="never"):
        skate.get(ref, timeout=50)


def test_breakpoints_can_be_turned_off(cluster):
    @skate.remote
    def off():
        os.environ["PYTHONBREAKPOINT"] = "0"
        breakpoint()
        del os.environ["PYTHONBREAKPOINT"]
        return "went on"

    cluster(num_cpus=1)
    assert skate.get(off.remote(), timeout=50) == "went on"


# ------------------------------------------------------------------- the command


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    running: list[Terminal] = []

    def start(*arguments: str, **environment: str) -> Terminal:
        running.append(Terminal([*DEBUG, *arguments], environment))
        return running[-1]

    yield start
    for one in running:
        one.close()


def test_the_command_on_a_terminal(session, terminal):
    ref = task.remote(20)
    waiting()
    debug = terminal("--address", session_dir())
    debug.expect("test_debugger.py(")
    debug.expect("(Pdb) ")
    debug.type("p y * 1000\n")
    debug.expect("40000")
    # Completion asks the task.
    debug.expect("(Pdb) ")
    debug.type("p y.bit_le\t")
    debug.expect("bit_length()")
    # Ctrl-C gives up the line, Ctrl-D leaves.
    for _ in range(10):
        # Python loses one that arrives while it draws the line.
        debug.type("\x03")
        if debug.sees("(Pdb) ", 2):
            break
    debug.type("\x04")
    debug.expect("the task goes on")
    assert debug.wait() == 0
    assert skate.get(ref, timeout=50) == 41


def test_the_command_asks_which(session, terminal):
    refs = [task.options(name=name).remote(1) for name in ("first", "second")]
    points = waiting(2)
    listing = terminal("--address", session_dir(), "--list")
    listing.expect("second")
    assert listing.wait() == 0
    debug = terminal("--address", session_dir())
    debug.expect("Attach to")
    debug.type("2\n")
    debug.expect(f"{points[1].task_name} (pid {points[1].pid})")
    debug.expect("(Pdb) ")
    debug.type("c\n")
    assert debug.wait() == 0
    by_id = terminal(points[0].breakpoint_id[:6], "--address", session_dir())
    by_id.expect("(Pdb) ")
    by_id.type("detach\n")
    assert by_id.wait() == 0
    assert skate.get(refs, timeout=50) == [3, 3]
    wrong = terminal("zzz", "--address", session_dir())
    wrong.expect("no call waits")
    assert wrong.wait() == 1


def test_a_killed_debugger_leaves_the_task_running(session, terminal):
    ref = task.remote(1)
    [point] = waiting()
    debug = terminal("--address", session_dir())
    debug.expect("(Pdb) ")
    os.kill(debug.process.pid, signal.SIGKILL)
    assert skate.get(ref, timeout=50) == 3
    os.kill(point.pid, 0)


SCRIPT = """
import skate
context = skate.init(num_cpus=1)

@skate.remote
def task():
    breakpoint()

ref = task.remote()
print(context["session_dir"], flush=True)
skate.get(ref)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_the_driver_ends_it(script: Callable[[str], Script], terminal, how):
    driver = script(SCRIPT)
    directory = driver.wait_for_line("/").strip()
    debug = terminal("--address", directory, "--wait")
    debug.expect("(Pdb) ")
    os.kill(driver.process.pid, how)
    debug.expect("the task has ended")
    driver.finish()
    driver.assert_nothing_left()


def test_ctrl_c_in_a_driver_whose_task_waits(script: Callable[[str], Script]):
    driver = script(SCRIPT)
    directory = driver.wait_for_line("/").strip()
    deadline = time.monotonic() + 50
    while not rpdb.waiting(directory):
        assert time.monotonic() < deadline
    os.kill(driver.process.pid, signal.SIGINT)
    _, errors = driver.finish()
    assert "KeyboardInterrupt" in errors
    driver.assert_nothing_left()
