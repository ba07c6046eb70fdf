"""Law 8: nothing outlives its session, however the driver ends.  Tested by counting."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from scripts import Script

#: A session with workers, actors, shared memory and a worker's own child process.
BUSY = """
    import subprocess, sys, time
    import skate

    skate.init(num_cpus=2, engine="native")

    @skate.remote
    def work():
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        return bytes(10_000_000)

    @skate.remote
    class Keeper:
        def __init__(self):
            self.data = skate.put(bytes(5_000_000))
        def hang(self):
            while True:
                time.sleep(0.01)

    kept = skate.get([work.remote() for _ in range(4)])
    local = skate.put(bytes(20_000_000))
    keeper = Keeper.remote()
    hanging = keeper.hang.remote()
    print("ready", flush=True)
"""


@pytest.fixture(autouse=True)
def shared_memory_is_unchanged() -> object:
    before = set(os.listdir("/dev/shm"))
    yield
    left = {name for name in set(os.listdir("/dev/shm")) - before if "skate" in name}
    assert not left


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("pass", 0),
        ("skate.shutdown()", 0),
        ("raise ValueError('x')", 1),
        ("sys.exit(3)", 3),
        ("import os; os._exit(4)", 4),
    ],
)
def test_ways_to_end_a_script(script: Callable[[str], Script], ending: str, code: int) -> None:
    running = script(BUSY + f"    {ending}\n")
    running.wait_for_line("ready")
    running.finish()
    assert running.process.returncode == code
    running.assert_nothing_left()


def test_ctrl_c(script: Callable[[str], Script]) -> None:
    running = script(BUSY + "    skate.get(hanging)\n")
    running.wait_for_line("ready")
    assert len(running.descendants()) > 4
    os.killpg(running.process.pid, signal.SIGINT)
    _, errors = running.finish()
    assert "KeyboardInterrupt" in errors
    running.assert_nothing_left()


@pytest.mark.parametrize("waiting", ["skate.get(hanging)", "time.sleep(600)"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_driver_killed(script: Callable[[str], Script], number: int, waiting: str) -> None:
    running = script(BUSY + f"    {waiting}\n")
    running.wait_for_line("ready")
    os.kill(running.process.pid, number)
    running.finish()
    assert running.process.returncode == -number
    running.assert_nothing_left()


def test_driver_killed_while_a_forked_child_of_it_lives_on(script: Callable[[str], Script]) -> None:
    running = script(
        BUSY
        + """
    import os
    child = os.fork()
    if child == 0:
        time.sleep(600)
    print("forked", child, flush=True)
    time.sleep(600)
"""
    )
    child = int(running.wait_for_line("forked").split()[1])
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(timeout=10)
    deadline = 100
    while set(running.descendants()) - {child} and deadline:
        deadline -= 1
        signal.sigtimedwait([], 0.05)
    assert set(running.descendants()) == {child}
    os.kill(child, signal.SIGKILL)
    running.assert_nothing_left()


def test_daemon_killed(script: Callable[[str], Script]) -> None:
    running = script(
        BUSY
        + """
    import os
    @skate.remote
    def zygote():
        return os.getppid()

    stat = open(f"/proc/{skate.get(zygote.remote())}/stat").read()
    os.kill(int(stat.rpartition(")")[2].split()[1]), 9)
    try:
        skate.get(hanging)
    except skate.exceptions.SessionError as error:
        print("raised", type(error).__name__, flush=True)
        print(error, flush=True)
    try:
        work.remote()
    except skate.exceptions.SessionError as error:
        print("refused", flush=True)
"""
    )
    running.wait_for_line("ready")
    running.wait_for_line("raised NodeDiedError")
    running.wait_for_line("was killed by SIGKILL; it")
    running.wait_for_line("refused")
    running.finish()
    assert running.process.returncode == 0
    running.assert_nothing_left()
