"""Workers that end early: after so many calls of a function (``max_calls``), or a torn import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skate.runtime.wire.calls import Retiring, WorkerRetires

if TYPE_CHECKING:
    from skate.runtime.wire.messages import Task
    from skate.runtime.worker.execute import Executor
    from skate.runtime.worker.links import Peer


class Retirement:
    """Counts calls; when one function has run as often as it may, nothing runs here any more.

    What is queued, and what arrives later, goes back to its caller, who gives the lease back; then
    the daemon ends the process, as soon as it owns nothing that others may reach.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._counts: dict[bytes, int] = {}
        self.begun = False

    def count(self, task: Task, caller: Peer) -> None:
        """A call of a function with a limit has been answered."""
        assert task.terms is not None
        count = self._counts[task.function_id] = self._counts.get(task.function_id, 0) + 1
        if count >= task.terms.max_calls:
            self.begin(caller)

    def begin(self, caller: Peer) -> None:
        """Run nothing more."""
        if self.begun:
            return
        executor = self._executor
        core = executor.core
        with core.lock:
            self.begun = executor.refuses_tasks = True
            core.links.send_node(WorkerRetires())
            tasks: dict[Peer, list[Task]] = {caller: []}
            kept: list[Any] = []
            for item in executor.queue:
                if isinstance(item, tuple):
                    tasks.setdefault(item[1], []).append(item[0])
                else:
                    kept.append(item)
            executor.queue.clear()
            executor.queue.extend(kept)
            for peer, returned in tasks.items():
                self.refuse(peer, returned)
            core.links.flush()

    def refuse(self, peer: Peer, tasks: list[Task]) -> None:
        """Locked.  Tell a caller that this process runs no further tasks, these included."""
        self._executor.hand_back(peer, tasks, False)
        self._executor.core.links.send(peer, Retiring())
