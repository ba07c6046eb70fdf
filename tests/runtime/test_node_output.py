"""What workers print reaches the driver and the log, in bounded amounts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from node_fakes import FakeDriver, config, driver, tell, wait_until

from skate.runtime.wire import messages as wire


def say(session: FakeDriver, code: str) -> wire.LeaseGranted:
    """Lease a worker and have it execute ``code``."""
    lease = session.lease(CPU=1)
    tell(lease.worker_address, code)
    return lease


def test_lines_arrive_with_pid_stream_and_name() -> None:
    with driver() as session:
        lease = say(
            session,
            "print('\\x1fskate-name:train\\nhello')\nsys.stderr.write('oh\\n')",
        )
        out = session.wait_for(wire.LogLines, stream=1)
        assert (out.pid, out.name, out.lines) == (lease.pid, "train", ["hello"])
        err = session.wait_for(wire.LogLines, stream=2)
        assert (err.pid, err.name, err.lines) == (lease.pid, "", ["oh"])


def test_what_processes_of_a_worker_print_counts_as_its_own() -> None:
    with driver() as session:
        lease = say(session, "os.system('echo child')")
        assert session.wait_for(wire.LogLines).pid == lease.pid


def test_silent_workers_have_no_log() -> None:
    with driver() as session:
        session.lease(CPU=1)
        assert os.listdir(session.registered.log_dir) == ["node.log"]


def test_not_forwarded_if_not_wanted_but_logged() -> None:
    with driver(log_to_driver=False) as session:
        lease = say(session, "print('hello')")
        log = Path(session.registered.log_dir) / f"worker-{lease.worker_id.hex()}.log"
        wait_until(log.exists, "no log")
        session.settle()
        assert session.find(wire.LogLines, {}) is None


def test_last_words_come_before_the_news_of_the_death() -> None:
    with driver() as session:
        lease = session.lease(CPU=1)
        code = "print('x' * 100000 + '\\nbye', end='')\nsys.stdout.flush()\nos._exit(3)"
        tell(lease.worker_address, code)
        session.wait_for(wire.WorkerDied)
        lines = [line for m in session.inbox if isinstance(m, wire.LogLines) for line in m.lines]
        assert lines[-1] == "bye"


def test_last_words_come_before_the_session_is_over() -> None:
    with driver() as session:
        say(session, "sys.stdout.write('bye')\nsys.stdout.flush()")
        session.shutdown()
        assert session.wait_for(wire.LogLines).lines == ["bye"]


def test_logs_of_crashed_workers_outlive_the_session_and_others_do_not() -> None:
    with driver() as session:
        crashed = session.lease(1, CPU=1)
        calm = session.lease(2, CPU=1)
        for lease in (crashed, calm):
            tell(lease.worker_address, "print('hello')")
        os.kill(crashed.pid, signal.SIGSEGV)
        path = session.wait_for(wire.WorkerDied).log_path
        session.shutdown()
    assert Path(path).read_text() == "hello\n"
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]


def test_a_driver_that_does_not_read() -> None:
    size = 200 * 1024 * 1024
    with driver() as session:
        lease = session.lease(CPU=1)
        status = Path(f"/proc/{session.node.pid}/status")
        line = "y" * 1000 + "\n"
        # ``tell`` waits for the worker, which waits for the daemon to take all of it in.
        tell(
            lease.worker_address,
            f"for _ in range({size // len(line)}): sys.stdout.write({line!r})",
        )
        [peak] = [row.split()[1] for row in status.read_text().splitlines() if "VmHWM" in row]
        assert int(peak) < 100 * 1024, "kB"
        # It still works, and says what is missing once the driver reads again.
        session.settle()
        tell(lease.worker_address, "print('now')")
        wait_until(lambda: _said(session, "now"), "the line did not come")
        assert _said(session, "left out here")


def _said(session: FakeDriver, text: str) -> bool:
    session.receive(0.1)
    return any(
        text in line for m in session.inbox if isinstance(m, wire.LogLines) for line in m.lines
    )


def test_preloaded_modules_are_there_and_failures_are_told(tmp_path: Path) -> None:
    (tmp_path / "good_module.py").write_text("loaded = 7")
    (tmp_path / "bad_module.py").write_text("raise RuntimeError('broken')")
    with driver(preload=["good_module", "bad_module", "no_such_module"]) as session:
        # Not on the path of this session.
        texts = [session.wait_for(wire.Warn).text for _ in range(3)]
        assert "cannot import 'good_module' (ModuleNotFoundError" in texts[0]
    path = [str(tmp_path), *config().sys_path]
    with driver(preload=["good_module", "bad_module"], sys_path=path) as session:
        text = session.wait_for(wire.Warn).text
        assert "cannot import 'bad_module' (RuntimeError: broken)" in text
        lease = session.lease(CPU=1)
        code = "result = 'good_module' in sys.modules, 'bad_module' in sys.modules"
        assert tell(lease.worker_address, code) == (True, False)
