"""The worker's side of cancelling: calls that wait are dropped, those that run are interrupted."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import TYPE_CHECKING

from skate.runtime.wire.messages import Cancel, StreamDropped
from skate.runtime.worker import finalizing, handlers, importing

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task
    from skate.runtime.worker.execute import Executor
    from skate.runtime.worker.links import Peer


class Cancellation:
    """What callers do not want any more, of the calls of one worker."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        #: Calls of the main thread to interrupt.
        self.interrupted: set[bytes] = set()
        #: A task was interrupted while it imported something.
        self.tore_import = False
        #: Calls that were cancelled between the queue and the stack (``Executor.popping``), or are
        #: no longer here.
        self.doomed: set[bytes] = set()

    def on_cancel(self, peer: Peer, message: Cancel) -> None:
        """Locked.  Drop a queued task, or interrupt the running one."""
        executor = self._executor
        task_id = message.task_id
        if self._unqueue(task_id):
            return
        calls = executor.concurrent
        if not any(running.task_id == task_id for running in executor.stack) and (
            calls is None or not calls.runs(task_id)
        ):
            if executor.popping:
                self.doomed.add(task_id)
            return
        if message.recursive:
            executor.core.submitter.cancel_children(task_id, message.force)
        if message.force:
            os.kill(os.getpid(), signal.SIGKILL)
        if calls is not None:
            calls.interrupt(task_id)
            return
        self.interrupted.add(task_id)
        signal.pthread_kill(executor.main, signal.SIGINT)

    def on_stream_dropped(self, _peer: Peer, message: StreamDropped) -> None:
        """Locked.  Nobody wants the items of a generator: it does not start, or it is closed."""
        executor = self._executor
        task_id = message.task_id
        if executor.producers.on_dropped(message) or self._unqueue(task_id):
            return
        calls = executor.concurrent
        if (
            executor.popping
            or any(running.task_id == task_id for running in executor.stack)
            or (calls is not None and calls.runs(task_id))
        ):
            executor.producers.drop_early(task_id)

    def _unqueue(self, task_id: bytes) -> bool:
        """Take a call off the queue and say that it was cancelled; return whether it was there."""
        executor = self._executor
        for item in list(executor.queue):
            if isinstance(item, tuple) and item[0].task_id == task_id:
                try:
                    executor.queue.remove(item)
                except ValueError:  # the main thread was faster
                    return False
                executor.reply_unstarted(*item)
                return True
        calls = executor.concurrent
        waiting = calls.withdraw(task_id) if calls is not None else None
        if waiting is not None:
            executor.reply_unstarted(*waiting)
        return waiting is not None

    def is_doomed(self, task: Task, peer: Peer) -> bool:
        """A call is about to start: return whether it was cancelled just before."""
        executor = self._executor
        doomed = task.task_id in self.doomed
        self.doomed.clear()
        if doomed:
            executor.stack.pop()
            with executor.core.lock:
                executor.reply_unstarted(task, peer)
        return doomed

    def catch_up(self, peer: Peer) -> None:
        """A concurrent call can be found now: cancel it if that was wanted just before."""
        with self._executor.core.lock:
            doomed = list(self.doomed)
            self.doomed.clear()
            for task_id in doomed:
                self.on_cancel(peer, Cancel(task_id, False))

    def handle_signal(self, signum: int, frame: FrameType | None) -> None:
        """SIGINT in a worker: raise KeyboardInterrupt in the task that is being cancelled."""
        executor = self._executor
        stack = executor.stack
        if not stack or stack[-1].task_id not in self.interrupted:
            return
        if stack[-1].task.actor_id and importing.is_inside(frame):
            finalizing.signal_again(executor.main, signum, importing.AGAIN_SECONDS)
        else:
            self.tore_import = self.tore_import or importing.is_inside(frame)
            executor.core.pump.interrupt(signum, frame, handlers.raise_keyboard_interrupt)
