"""The workers of a node: forked through the zygote, watched, ended, their output collected."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial

from skate.ids import new_process_id
from skate.runtime.node import processes, session_dir, zygote_link
from skate.runtime.node.causes import describe_status
from skate.runtime.node.config import NodeConfig, Paths
from skate.runtime.node.links import Link
from skate.runtime.node.logs import LAST_READS, Forward, Pipe, WorkerOutput
from skate.runtime.node.loop import Loop
from skate.runtime.node.zygote_link import (
    End,
    Ended,
    Fork,
    Forked,
    Ready,
    Signal,
    to_daemon_decoder,
)
from skate.runtime.wire.messages import Job, LogLines
from skate.runtime.worker.config import PreparedEnvironment, WorkerConfig

logger = logging.getLogger(__name__)

#: A worker whose link has ended should be just ending; after so many seconds it is killed.
LOST_SECONDS = 0.5
#: The user is told when the zygote has not imported everything after so many seconds.
LOAD_SECONDS = 20.0
#: Most seconds that the zygote may take to read what we send it.
SEND_SECONDS = 10.0


class Worker:
    """One worker process."""

    __slots__ = (
        "address",
        "builds",
        "cause",
        "environment",
        "expected",
        "job",
        "kind",
        "link",
        "log_path",
        "output",
        "pid",
        "retires",
        "serves",
        "worker_id",
    )

    def __init__(
        self, worker_id: bytes, log_path: str, output: WorkerOutput, environment: bytes = b""
    ) -> None:
        self.worker_id = worker_id
        #: The name of the environment that it runs in; empty for nothing special.
        self.environment = environment
        #: Whose work it does, where several drivers share the node.
        self.job: Job | None = None
        #: Which requests are served by it: ``Request.worker_kind``.
        self.serves = b""
        #: It is no worker, but prepares a runtime environment.
        self.builds = False
        #: 0 until the zygote has said.
        self.pid = 0
        #: Empty until it has registered.
        self.address = ""
        self.link: Link | None = None
        self.output = output
        self.log_path = log_path
        #: Why we have ended it; empty if it does by itself.
        self.cause = ""
        #: What sort of end that is, as in ``WorkerDied``.
        self.kind = ""
        #: Its end is no crash: nobody will want to read its log.
        self.expected = False
        #: It takes no further tasks.
        self.retires = False


class Workers:
    """All workers, and the zygote that is their parent."""

    def __init__(
        self,
        loop: Loop,
        zygote: socket.socket,
        config: NodeConfig,
        node_id: bytes,
        paths: Paths,
        forward_for: Callable[[Job | None], Forward],
    ) -> None:
        zygote.settimeout(SEND_SECONDS)
        self._loop = loop
        self._zygote = zygote
        self._buffer = bytearray()
        self._config = config
        self._node_id = node_id
        self._paths = paths
        self._forward_for = forward_for
        self.by_id: dict[bytes, Worker] = {}
        self._by_pid: dict[int, Worker] = {}
        #: The zygote has imported what workers need.
        self._ready = False
        #: The zygote has ended.
        self.zygote_gone = False
        #: A worker's process exists now.
        self.on_forked: Callable[[Worker], None]
        #: A worker has ended, with this cause for the user.
        self.on_ended: Callable[[Worker, str], None]
        #: The zygote has said everything that the worker wrote to its link can be read now.
        self.before_ended: Callable[[Link], None]
        self.on_zygote_gone: Callable[[], None]
        self.on_warning: Callable[[str], None]
        loop.add(zygote, self._on_zygote)
        loop.call_later(LOAD_SECONDS, self._expect_ready)

    # ------------------------------------------------------------------ start

    def fork(
        self,
        environment: PreparedEnvironment | None = None,
        job: Job | None = None,
        serves: bytes = b"",
    ) -> bytes:
        """Have a worker started, in an environment or with nothing special; return its id.

        ``job``: whose work it will do, where several drivers share the node; ``serves``: which
        requests (``Request.worker_kind``).

        Raises:
            OSError: out of descriptors, or the zygote is gone.
        """
        worker = self._start(environment, b"", job)
        worker.serves = serves
        return worker.worker_id

    def build(self, environment: bytes) -> bytes:
        """Have a process started that prepares an environment; return its id.

        Raises:
            OSError: out of descriptors, or the zygote is gone.
        """
        builder = self._start(None, environment)
        builder.builds = True
        return builder.worker_id

    def _start(
        self, environment: PreparedEnvironment | None, build: bytes, job: Job | None = None
    ) -> Worker:
        worker_id = new_process_id()
        log_path = self._paths.worker_log(worker_id)
        cluster = self._config.cluster
        fds: list[int] = []
        try:
            fds += os.pipe()
            fds += os.pipe()
            config = WorkerConfig(
                worker_id,
                self._node_id,
                self._paths.directory,
                self._paths.node_socket,
                self._paths.store_socket,
                job.job_id if job is not None else self._config.job_id,
                job.namespace if job is not None else self._config.namespace,
                log_path,
                environment,
                cluster.host if cluster is not None else "",
                self._paths.token if cluster is not None else "",
                job.sys_path if job is not None else [],
                self._config.post_mortem,
            )
            self._send(Fork(config, build), (fds[1], fds[3]))
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        os.close(fds[1])
        os.close(fds[3])
        # What an installer says is for the log, and for the error if it fails.
        forward = _keep if build else self._forward_for(job)
        output = WorkerOutput(log_path, fds[0], fds[2], forward)
        name = environment.environment if environment is not None else b""
        worker = self.by_id[worker_id] = Worker(worker_id, log_path, output, name)
        worker.job = job
        for pipe in output.pipes:
            self._loop.add(pipe, partial(self._read, pipe))
        return worker

    def registered(self, worker: Worker, link: Link, address: str) -> None:
        """The worker has introduced itself."""
        worker.link = link
        worker.address = address
        # It may be quicker than the zygote, which says the same.
        self._set_pid(worker, link.pid)

    def _set_pid(self, worker: Worker, pid: int) -> None:
        worker.pid = worker.output.pid = pid
        self._by_pid[pid] = worker

    # ------------------------------------------------------------------ end

    def kill(self, worker: Worker, cause: str, kind: str = "") -> None:
        """End a worker and what it has started at once; ``cause`` is for the user."""
        if not worker.cause:
            worker.cause = cause
            worker.kind = kind
        if worker.pid:
            self._signal(worker, signal.SIGKILL)

    def link_lost(self, worker: Worker) -> None:
        """The worker's link has ended: it is about to end, or it gets killed."""
        worker.link = None
        self._loop.call_later(LOST_SECONDS, lambda: self._kill_if_there(worker))

    def _kill_if_there(self, worker: Worker) -> None:
        if worker.worker_id in self.by_id:
            self.kill(worker, "lost its connection")

    def _signal(self, worker: Worker, number: int) -> None:
        if self.zygote_gone:
            return
        try:
            self._send(Signal(worker.pid, number))
        except OSError as error:
            self._lose_zygote(str(error))

    def end(self, grace: float) -> None:
        """End all workers: politely, after ``grace`` seconds by force; then the zygote ends."""
        for worker in self.by_id.values():
            worker.expected = True
        try:
            self._send(End(grace))
        except OSError as error:
            self._lose_zygote(str(error))

    def abandon(self) -> None:
        """The zygote is gone: kill what it has left, and take in the rest of the output."""
        for worker in self.by_id.values():
            if worker.pid:
                processes.kill_group(worker.pid, signal.SIGKILL)
        for worker in list(self.by_id.values()):
            self._close_output(worker)
        self.by_id.clear()
        self._by_pid.clear()

    # ------------------------------------------------------------------ the zygote speaks

    def _send(self, message: Fork | Signal | End, fds: tuple[int, ...] = ()) -> None:
        zygote_link.send(self._zygote, message, fds)

    def _on_zygote(self, _events: int) -> None:
        try:
            data = self._zygote.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose_zygote(str(error))
            return
        if not data:
            self._lose_zygote("it has ended")
            return
        self._buffer += data
        for payload in zygote_link.split(self._buffer):
            message = to_daemon_decoder.decode(payload)
            if isinstance(message, Ready):
                self._ready = True
                for text in message.warnings:
                    self.on_warning(text)
            elif isinstance(message, Forked):
                self._on_forked(message)
            else:
                self._on_ended(message)

    def _expect_ready(self) -> None:
        if not self._ready and not self.zygote_gone:
            names = ", ".join(self._config.preload) or "nothing"
            self.on_warning(
                f"no worker can start yet: the modules of init(preload=...) ({names}) have not "
                f"been imported after {LOAD_SECONDS:g} s"
            )

    def _on_forked(self, message: Forked) -> None:
        worker = self.by_id.get(message.worker_id)
        if worker is None:
            return
        if not message.pid:
            self._forget(worker, message.error)
            return
        self._set_pid(worker, message.pid)
        self.on_forked(worker)
        if worker.cause:
            self._signal(worker, signal.SIGKILL)

    def _on_ended(self, message: Ended) -> None:
        worker = self._by_pid.get(message.pid)
        if worker is None:
            logger.warning("an unknown worker with pid %d has ended", message.pid)
            return
        if worker.builds and message.status == 0:
            worker.expected = True
        # What it said before it ended still counts.
        if worker.link is not None:
            self.before_ended(worker.link)
        self._forget(worker, worker.cause or describe_status(message.status))

    def _forget(self, worker: Worker, cause: str) -> None:
        self.by_id.pop(worker.worker_id, None)
        self._by_pid.pop(worker.pid, None)
        self._close_output(worker)
        with contextlib.suppress(OSError):
            os.unlink(self._paths.worker_socket(worker.worker_id))
        if not worker.expected:
            worker.log_path = session_dir.keep_log(self._paths, worker.log_path)
        elif not os.path.exists(worker.log_path):
            worker.log_path = ""
        self.on_ended(worker, cause)

    def _lose_zygote(self, reason: str) -> None:
        if self.zygote_gone:
            return
        logger.info("the zygote is gone: %s", reason)
        self.zygote_gone = True
        self._loop.remove(self._zygote)
        self._zygote.close()
        self.on_zygote_gone()

    # ------------------------------------------------------------------ output

    def logs(self) -> Iterator[str]:
        """Yield the paths of the logs of those that live."""
        return (worker.log_path for worker in self.by_id.values())

    def read_output(self) -> None:
        """Take in what workers have printed so far."""
        for worker in self.by_id.values():
            for pipe in worker.output.pipes:
                for _ in range(LAST_READS):
                    if pipe.fd < 0 or not pipe.read():
                        break

    def _read(self, pipe: Pipe, _events: int) -> None:
        if pipe.read() is None:
            self._loop.remove(pipe)
            pipe.close()

    def _close_output(self, worker: Worker) -> None:
        for pipe in worker.output.pipes:
            if pipe.fd >= 0:
                self._loop.remove(pipe)
        worker.output.close()


def _keep(_message: LogLines) -> None:
    """Send nothing to the driver."""
