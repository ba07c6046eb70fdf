"""Workers and a zygote that is played by the test."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from skate.runtime.node import workers as module
from skate.runtime.node import zygote_link
from skate.runtime.node.config import NodeConfig, Paths
from skate.runtime.node.links import Link
from skate.runtime.node.logs import Forwarder
from skate.runtime.node.loop import Loop
from skate.runtime.node.workers import Worker, Workers
from skate.runtime.node.zygote_link import End, Ended, Fork, Forked, Ready, Signal
from skate.runtime.wire.messages import LogLines


class Stage:
    """A ``Workers``, the zygote's end of its socket pair, and what was reported."""

    def __init__(self, directory: Path) -> None:
        self.paths = Paths(str(directory / "skate-0" / "s-1"))
        os.makedirs(self.paths.log_dir)
        self.loop = Loop()
        ours, self.zygote = socket.socketpair()
        self.zygote.settimeout(5)
        self.lines: list[LogLines] = []
        config = NodeConfig({}, 0, "job", 0, preload=["slow_module"])
        self.forwarder = Forwarder(self.lines.append)
        self.workers = Workers(
            self.loop, ours, config, b"node", self.paths, lambda _job: self.forwarder.forward
        )
        self.ended: list[tuple[Worker, str]] = []
        self.forked: list[Worker] = []
        self.warnings: list[str] = []
        self.gone = 0
        self.workers.on_ended = lambda worker, cause: self.ended.append((worker, cause))
        self.workers.on_forked = self.forked.append
        self.workers.before_ended = self._before_ended
        self.workers.on_zygote_gone = self._on_gone
        self.workers.on_warning = self.warnings.append
        self._output: list[int] = []

    def _before_ended(self, _link: Link) -> None:
        raise AssertionError("these workers have no links")

    def _on_gone(self) -> None:
        self.gone += 1

    def asked(self) -> Fork | Signal | End:
        """What the zygote is asked next; it keeps the descriptors."""
        received = zygote_link.receive(self.zygote)
        assert received is not None
        message, fds = received
        self._output += fds
        return message

    def say(self, *messages: Ready | Forked | Ended) -> None:
        """Have the zygote say something, and handle it."""
        for message in messages:
            zygote_link.send(self.zygote, message)
        self.turn()

    def turn(self, seconds: float = 0.02) -> None:
        """Run the loop for a moment."""
        self.loop.stopped = False
        self.loop.call_later(seconds, lambda: setattr(self.loop, "stopped", True))
        self.loop.run()

    def start(self, pid: int = 5_000_001) -> Worker:
        """Have a worker forked; its pid is larger than any real one."""
        worker_id = self.workers.fork()
        message = self.asked()
        assert isinstance(message, Fork)
        assert message.config.worker_id == worker_id
        self.say(Forked(worker_id, pid))
        return self.workers.by_id[worker_id]

    def write(self, stream: int, data: bytes) -> None:
        """Print something as the worker started last."""
        os.write(self._output[-3 + stream], data)

    def close(self) -> None:
        self.workers.abandon()
        self.zygote.close()
        self.loop.close()
        for fd in self._output:
            os.close(fd)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def test_a_worker_from_fork_to_end(stage: Stage) -> None:
    worker = stage.start()
    assert stage.forked == [worker]
    stage.write(1, b"hello\n")
    stage.write(2, b"oh")
    stage.say(Ended(worker.pid, 3 << 8))
    assert stage.ended == [(worker, "exited with code 3")]
    assert worker.log_path.startswith(stage.paths.kept_logs)
    assert Path(worker.log_path).read_bytes() == b"hello\noh\n"
    assert stage.workers.by_id == {}
    stage.forwarder.flush()
    assert [(m.pid, m.stream, m.lines) for m in stage.lines] == [
        (worker.pid, 1, ["hello"]),
        (worker.pid, 2, ["oh"]),
    ]


def test_an_expected_end_keeps_no_log(stage: Stage) -> None:
    worker = stage.start()
    worker.expected = True
    stage.write(1, b"hello\n")
    stage.say(Ended(worker.pid, 0))
    assert worker.log_path == stage.paths.worker_log(worker.worker_id)
    assert not os.path.exists(stage.paths.kept_logs)


def test_kill(stage: Stage) -> None:
    worker = stage.start()
    stage.workers.kill(worker, "killed by skate.kill")
    stage.workers.kill(worker, "a later reason")
    assert stage.asked() == Signal(worker.pid, signal.SIGKILL)
    stage.say(Ended(worker.pid, signal.SIGKILL))
    assert stage.ended == [(worker, "killed by skate.kill")]


def test_kill_before_there_is_a_process(stage: Stage) -> None:
    worker_id = stage.workers.fork()
    stage.asked()
    stage.workers.kill(stage.workers.by_id[worker_id], "not wanted any more")
    stage.say(Forked(worker_id, 5_000_001))
    assert stage.asked() == Signal(5_000_001, signal.SIGKILL)


def test_a_fork_that_fails(stage: Stage) -> None:
    worker_id = stage.workers.fork()
    stage.asked()
    stage.say(Forked(worker_id, 0, "cannot fork: out of memory"))
    [(worker, cause)] = stage.ended
    assert (worker.worker_id, cause) == (worker_id, "cannot fork: out of memory")
    assert worker.log_path == ""


def test_what_the_zygote_says_of_unknown_processes(stage: Stage) -> None:
    stage.say(Ended(5_000_002, 0), Forked(b"unknown", 5_000_003))
    assert stage.ended == []
    assert stage.forked == []


def test_the_zygote_ends(stage: Stage) -> None:
    stage.zygote.close()
    stage.turn()
    stage.turn()
    assert stage.gone == 1
    assert stage.workers.zygote_gone
    with pytest.raises(OSError, match="Bad file descriptor"):
        stage.workers.fork()
    stage.workers.end(0.1)
    assert stage.gone == 1


def test_the_zygote_ends_while_it_is_spoken_to(stage: Stage) -> None:
    worker = stage.start()
    stage.zygote.close()
    stage.workers.kill(worker, "no matter")
    assert stage.gone == 1


def test_end_tells_the_zygote_and_expects_all_ends(stage: Stage) -> None:
    worker = stage.start()
    stage.workers.end(0.5)
    assert stage.asked() == End(0.5)
    assert worker.expected


def test_slow_imports_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOAD_SECONDS", 0.03)
    stage = Stage(tmp_path)
    stage.turn(0.06)
    [text] = stage.warnings
    assert "slow_module" in text
    stage.close()


def test_quick_imports_and_failed_ones_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOAD_SECONDS", 0.03)
    stage = Stage(tmp_path)
    stage.say(Ready(["cannot import 'x'"]))
    stage.turn(0.06)
    assert stage.warnings == ["cannot import 'x'"]
    stage.close()
