"""Nothing outlives a session, whichever of its processes dies first.  Tested by counting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from node_fakes import (
    PATIENCE,
    FakeDriver,
    assert_gone,
    config,
    driver,
    is_running,
    processes_of,
    tell,
    wait_until,
)

from skate.runtime.node import session_dir
from skate.runtime.node.config import Paths
from skate.runtime.node.launch import launch
from skate.runtime.wire import messages as wire

#: What workers may start: a child in their group, and one that has left group, session and parent.
CHILDREN = """
import subprocess
child = subprocess.Popen(['sleep', '600']).pid
shell = subprocess.run(
    ['setsid', 'sh', '-c', 'sleep 600 >/dev/null 2>&1 & echo $!'], stdout=subprocess.PIPE, text=True
)
result = [child, int(shell.stdout)]
"""


@pytest.fixture
def session() -> Iterator[FakeDriver]:
    with driver() as link:
        yield link


def busy(session: FakeDriver) -> list[int]:
    """Give the session something to end; return pids of processes that are not workers."""
    address = session.lease(1, CPU=1).worker_address
    children: list[int] = tell(address, CHILDREN)
    session.actor()
    session.create_actor("time.sleep(600)")
    session.create_actor("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
    assert all(is_running(pid) for pid in children)
    return children


def named(session: FakeDriver, name: str) -> int:
    """The pid of the daemon or the zygote."""
    [pid] = [
        pid
        for pid in processes_of(session.node.session_dir)
        # A worker that has just been forked still bears the zygote's name.
        if Path(f"/proc/{pid}/comm").read_text().strip() == name
        and parent_of(pid) in (os.getpid(), session.node.pid)
    ]
    return pid


def state_of(pid: int) -> str:
    """The letter for the state of a process: "T" if it was stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def parent_of(pid: int) -> int:
    """The pid of the parent of a living process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def assert_ended(session: FakeDriver, children: list[int], timeout: float = 5.0) -> None:
    """Nothing of the session is left."""
    assert session.node.wait(timeout)
    assert_gone(session.node.session_dir, timeout)
    wait_until(lambda: not any(map(is_running, children)), "children of workers are left", timeout)


def test_shutdown_is_quick_and_complete(session: FakeDriver) -> None:
    leases = [session.lease(n) for n in range(10)]
    zygote = named(session, "skate-zygote")
    start = time.perf_counter()
    session.shutdown()
    assert time.perf_counter() - start < 2.0
    # Not even zombies are left to whoever adopts orphans here.
    assert not any(os.path.exists(f"/proc/{lease.pid}") for lease in leases)
    assert not os.path.exists(f"/proc/{zygote}")
    assert not os.path.exists(session.node.session_dir)
    assert processes_of(session.node.session_dir) == []


def test_shutdown_of_processes_that_resist(session: FakeDriver) -> None:
    children = busy(session)
    session.shutdown()
    assert_ended(session, children)


def test_shutdown_of_stopped_processes(session: FakeDriver) -> None:
    lease = session.lease(CPU=1)
    os.kill(lease.pid, signal.SIGSTOP)
    session.shutdown()
    assert not is_running(lease.pid)


def test_the_driver_closes_its_connection(session: FakeDriver) -> None:
    children = busy(session)
    session.close()
    assert_ended(session, children)


DRIVER = """
import os, sys, time
from node_fakes import driver, tell
with driver() as session:
    lease = session.lease(CPU=1)
    if {fork}:
        # A child of the driver keeps copies of its sockets open.
        if os.fork() == 0:
            time.sleep(5)
            os._exit(0)
    print(session.node.session_dir, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("fork", [False, True])
def test_the_driver_is_killed(fork: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(config().sys_path)}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER.format(fork=fork)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    directory = process.stdout.readline().strip()
    assert len(processes_of(directory)) >= 3
    process.kill()
    process.wait(PATIENCE)
    # Sooner than its child ends.
    assert_gone(directory, timeout=4.0)
    process.stdout.close()


def test_the_driver_dies_before_it_connects() -> None:
    code = (
        "import os\nfrom node_fakes import config, launch\n"
        "print(launch(config()).session_dir, flush=True)\nos._exit(0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(config().sys_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        timeout=PATIENCE,
        check=True,
    )
    assert_gone(done.stdout.strip())


def test_the_daemon_is_killed(session: FakeDriver) -> None:
    children = busy(session)
    os.kill(session.node.pid, signal.SIGKILL)
    session.wait_closed()
    assert "killed by SIGKILL" in session.node.explain()
    assert_ended(session, children)


def test_the_daemon_is_told_to_end(session: FakeDriver) -> None:
    children = busy(session)
    os.kill(session.node.pid, signal.SIGTERM)
    assert "SIGTERM" in session.wait_for(wire.Warn).text
    session.wait_closed()
    assert_ended(session, children)


def test_the_zygote_is_killed(session: FakeDriver) -> None:
    children = busy(session)
    os.kill(named(session, "skate-zygote"), signal.SIGKILL)
    assert "zygote" in session.wait_for(wire.Warn).text
    session.wait_closed()
    assert "exited with code 1" in session.node.explain()
    assert_ended(session, children)


def test_killed_by_its_driver(session: FakeDriver) -> None:
    children = busy(session)
    session.node.kill()
    assert processes_of(session.node.session_dir) == []
    assert_ended(session, children)


def test_a_driver_without_standard_streams() -> None:
    code = (
        "import os\nfor fd in (0, 1, 2): os.close(fd)\n"
        "from node_fakes import *\nfrom skate.runtime.node import session_dir\n"
        "with driver() as session:\n"
        "    session.lease(CPU=1)\n"
        "    alive = os.path.exists(session.node.session_dir)\n"
        "    session_dir.remove_stale(os.path.dirname(session.node.session_dir))\n"
        "    assert alive and os.path.exists(session.node.session_dir)\n"
        "    session.shutdown()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(config().sys_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=PATIENCE, check=True)


def test_paths_that_are_no_text_are_ignored(tmp_path: Path) -> None:
    with driver(sys_path=[*config().sys_path, tmp_path, None, b"bytes"]) as session:
        path = tell(session.lease(CPU=1).worker_address, "result = sys.path")
        assert path == config().sys_path


def test_two_sessions_do_not_disturb_each_other() -> None:
    with driver() as one, driver() as two:
        assert one.node.session_dir != two.node.session_dir
        leases = [one.lease(CPU=2), two.lease(CPU=2)]
        one.shutdown()
        assert tell(leases[1].worker_address, "result = 1") == 1
        assert os.path.exists(two.node.session_dir)
        two.shutdown()


def test_a_daemon_that_cannot_start_says_why() -> None:
    # The standard library is there, the project is not.
    path = [entry for entry in sys.path if "lib/python" in entry and "packages" not in entry]
    node = launch(config(sys_path=path))
    try:
        text = node.explain()
        assert "exited with code 1" in text
        assert "ModuleNotFoundError" in text
    finally:
        node.kill()
    assert not os.path.exists(node.session_dir)


def test_workers_whose_module_is_missing_end_the_session_with_a_reason() -> None:
    node = launch(config(worker_module="no_such_module"))
    try:
        text = node.explain()
        assert "exited with code 1" in text
        assert "ModuleNotFoundError: No module named 'no_such_module'" in text
        assert not os.path.exists(node.session_dir)
    finally:
        node.kill()


# --------------------------------------------------------------------------- directories


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory with a short path, for all of Python's."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="skt-") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def test_daemon_and_zygote_are_killed_at_once(base: Path) -> None:
    with driver() as session:
        lease = session.lease(CPU=1)
        zygote = named(session, "skate-zygote")
        os.kill(session.node.pid, signal.SIGSTOP)
        wait_until(lambda: state_of(session.node.pid) == "T", "the daemon does not stop")
        os.kill(zygote, signal.SIGKILL)
        os.kill(session.node.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(lease.pid), "the worker is left")
        assert session.node.wait(PATIENCE)
        # A process that ends lets go of its descriptors, and so of the lock, a little later.
        lock = session_dir.open_lock(Paths(session.node.session_dir))
        assert lock is not None
        assert session_dir.wait_until_unlocked(lock, PATIENCE)
        os.close(lock)
    # Nobody was left to remove the directory: the next session does.
    assert os.path.exists(session.node.session_dir)
    with driver() as other:
        assert not os.path.exists(session.node.session_dir)
        assert os.path.exists(other.node.session_dir)


def test_the_directory_is_ours_alone(base: Path) -> None:
    with driver() as session:
        directory = Path(session.node.session_dir)
        assert directory.parent.parent == base
        for path in (directory, directory.parent, directory / "logs"):
            assert path.stat().st_mode & 0o777 == 0o700


def test_a_directory_of_somebody_else_is_refused(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / f"skate-{os.getuid()}").symlink_to("/tmp")
    with pytest.raises(session_dir.SessionError, match="no directory of yours"):
        session_dir.create()


def test_an_open_directory_of_ours_is_closed(base: Path) -> None:
    parent = base / f"skate-{os.getuid()}"
    parent.mkdir(mode=0o755)
    paths, lock = session_dir.create()
    assert parent.stat().st_mode & 0o777 == 0o700
    session_dir.remove(paths)
    os.close(lock)


def test_long_temporary_directories_are_avoided(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(base / ("x" * 100)))
    with driver() as session:
        assert session.node.session_dir.startswith("/tmp/skate-")
        session.lease(CPU=1)


def test_stale_directories_go_and_living_ones_stay(base: Path) -> None:
    dead, dead_lock = session_dir.create()
    living, living_lock = session_dir.create()
    os.close(dead_lock)
    fresh = Path(dead.directory).parent / "s-00000000"
    fresh.mkdir()
    old = Path(dead.directory).parent / "s-11111111"
    old.mkdir()
    os.utime(old, (0, 0))
    newest, newest_lock = session_dir.create()
    left = {path.name for path in fresh.parent.iterdir()}
    assert left == {os.path.basename(p) for p in (living.directory, newest.directory)} | {
        "s-00000000"
    }
    os.close(living_lock)
    os.close(newest_lock)


def test_only_the_last_crash_logs_are_kept(base: Path) -> None:
    kept = base / f"skate-logs-{os.getuid()}"
    kept.mkdir()
    for number in range(session_dir.KEPT_SESSIONS + 5):
        (kept / f"s-{number:08}").mkdir()
        os.utime(kept / f"s-{number:08}", (number, number))
    _, lock = session_dir.create()
    os.close(lock)
    assert len(list(kept.iterdir())) == session_dir.KEPT_SESSIONS
    assert not (kept / "s-00000004").exists()


def test_a_log_is_kept_only_if_there_is_one(base: Path) -> None:
    paths = Paths(str(base / "skate-0" / "s-1"))
    os.makedirs(paths.log_dir)
    empty = Path(paths.log_dir) / "empty.log"
    empty.touch()
    full = Path(paths.log_dir) / "full.log"
    full.write_text("text\n")
    assert session_dir.keep_log(paths, str(empty)) == ""
    assert session_dir.keep_log(paths, str(full) + ".missing") == ""
    kept = session_dir.keep_log(paths, str(full))
    assert kept == str(base / "skate-logs-0" / "s-1" / "full.log")
    assert session_dir.tail(kept, 3) == "xt"
    assert session_dir.tail(str(full)) == ""
