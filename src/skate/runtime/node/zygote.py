"""The zygote: a single-threaded process that has imported what workers need, and forks them.

It is the parent of all workers.  It reaps them, ends whatever is left of their process groups, and
tells the daemon how each one ended.  When the daemon is gone it ends everything and removes the
session directory.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from types import FrameType
from typing import NoReturn

from skate.runtime.node import processes, session_dir, zygote_link
from skate.runtime.node.config import NodeConfig, Paths
from skate.runtime.node.zygote_link import End, Ended, Fork, Forked, Ready, Signal
from skate.runtime.worker.config import WorkerConfig

#: Seconds to wait for processes that were sent SIGKILL: one that hangs in a dead file system stays.
KILL_SECONDS = 5.0


def run(sock: socket.socket, config: NodeConfig, paths: Paths, lock_fd: int) -> NoReturn:
    """Be the zygote; called in a fresh fork of the daemon.  ``lock_fd`` is not for workers."""
    processes.set_name("skate-zygote")
    # While modules are imported we may hang in foreign code.  Nothing runs yet that were to be
    # ended; the directory is removed by the driver (``NodeProcess.clear_up``) or the next session.
    processes.die_with_parent(os.getppid())
    code = 1
    try:
        zygote = Zygote(sock, config, lock_fd)
        zygote.load()
        processes.outlive_parent()
        processes.adopt_orphans()
        told = False
        try:
            told = zygote.serve()
            code = 0
        finally:
            # The daemon is gone without a word, or a mistake of ours ends the session: then this
            # is ours to do.
            if not told:
                zygote.end(0.0)
                session_dir.keep_log(paths, paths.node_log)
                session_dir.remove(paths)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)


class Zygote:
    """Forks, signals and reaps workers, as the daemon asks."""

    def __init__(self, sock: socket.socket, config: NodeConfig, lock_fd: int) -> None:
        self._sock = sock
        self._config = config
        self._lock_fd = lock_fd
        #: Pids of workers that have not been reaped.
        self._workers: set[int] = set()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._pid = os.getpid()

    # ------------------------------------------------------------------ start

    def load(self) -> None:
        """Import what workers need, so that their pages are shared and they start at once."""
        self._worker_module = importlib.import_module(self._config.worker_module)
        warnings = []
        for name in self._config.preload:
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:
                warnings.append(
                    f"preload: cannot import {name!r} ({type(error).__name__}: {error}); "
                    "tasks that need it will import it themselves"
                )
        gc.collect()
        # Never looked at again by the collector, which would write to (and so copy) shared pages.
        gc.freeze()
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        zygote_link.send(self._sock, Ready(warnings))

    # ------------------------------------------------------------------ work

    def serve(self) -> bool:
        """Serve until the end; return whether the daemon asked for it (else it is gone)."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            try:
                if self._wake_read.fileno() in ready:
                    self._reap()
                if self._sock.fileno() not in ready:
                    continue
                received = zygote_link.receive(self._sock)
                if received is None:
                    return False
                request, fds = received
                if isinstance(request, End):
                    self.end(request.grace)
                    return True
                self._handle(request, fds)
            except OSError:
                # It may also have died while it was being answered.
                return False

    def _handle(self, request: Fork | Signal, fds: list[int]) -> None:
        if isinstance(request, Signal):
            if request.pid in self._workers:
                processes.kill_group(request.pid, request.number)
            return
        try:
            answer = self._fork(request, fds)
        finally:
            for fd in fds:
                os.close(fd)
        zygote_link.send(self._sock, answer)

    def _fork(self, request: Fork, fds: list[int]) -> Forked:
        config = request.config
        try:
            pid = os.fork()
        except OSError as error:
            return Forked(config.worker_id, 0, f"cannot fork: {error}")
        if pid == 0:
            self._become_worker(config, request.build, fds)
        self._workers.add(pid)
        with contextlib.suppress(OSError):  # the child does the same; whoever comes second fails
            os.setpgid(pid, pid)
        return Forked(config.worker_id, pid)

    def _become_worker(self, config: WorkerConfig, build: bytes, fds: list[int]) -> NoReturn:
        code: object = 1
        try:
            os.setpgid(0, 0)
            processes.die_with_parent(self._pid)
            processes.set_name("skate-worker")
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(fds[0], 1)
            os.dup2(fds[1], 2)
            for fd in (*fds, self._lock_fd):
                os.close(fd)
            for sock in (self._sock, self._wake_read, self._wake_write):
                sock.close()
            random.seed()
            if "numpy.random" in sys.modules:
                sys.modules["numpy.random"].seed()
            gc.enable()
            if build:
                importlib.import_module("skate.runtime.node.builder").main(config, build)
            if config.environment is not None:
                # Not imported in the zygote: most workers have no use for it.
                enter = importlib.import_module("skate.runtime.node.enter").enter
                enter(config, self._config.worker_module, bool(self._config.preload))
            self._worker_module.main(config)
            code = 0
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code if isinstance(code, int) else int(code is not None))

    # ------------------------------------------------------------------ ends

    def _reap(self) -> None:
        """Report workers that have ended, and end the processes that they leave in their groups."""
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass
        while True:
            try:
                # Looking without reaping: until then the pid, and so the group, is still theirs.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            pid = found.si_pid
            if pid not in self._workers:
                os.waitpid(pid, 0)
                continue
            processes.kill_group(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            self._workers.discard(pid)
            # A daemon that is gone needs no reports, and the others must be reaped all the same.
            with contextlib.suppress(OSError):
                zygote_link.send(self._sock, Ended(pid, status))

    def end(self, grace: float) -> None:
        """End all workers and whatever they have started: politely for ``grace`` seconds."""
        if grace > 0:
            for pid in self._workers:
                processes.kill_group(pid, signal.SIGTERM)
            self._wait(grace)
        for pid in self._workers:
            processes.kill_group(pid, signal.SIGKILL)
        self._wait(KILL_SECONDS)
        # Orphans come to us when their parents end, and their children after that.
        deadline = time.monotonic() + KILL_SECONDS
        while (strays := processes.children()) and time.monotonic() < deadline:
            for pid in strays:
                processes.kill_group(pid, signal.SIGKILL)
            self._poll(0.01)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._workers and (left := deadline - time.monotonic()) > 0:
            self._poll(left)

    def _poll(self, seconds: float) -> None:
        select.select([self._wake_read], [], [], seconds)
        self._reap()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that there is a handler makes the signal write to the wake-up descriptor."""
