"""Which worker of a pool does what, decided without any worker, lock or clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Start:
    """Make a worker."""

    worker: int


@dataclass(frozen=True, slots=True)
class Run(Generic[W]):
    """Have a worker, which does nothing else now, do this."""

    worker: int
    work: W


@dataclass(frozen=True, slots=True)
class Stop:
    """Let go of a worker; it does nothing now."""

    worker: int


Action = Start | Run[W] | Stop


class Assignment(Generic[W]):
    """A queue of work and at most ``size`` workers, each with one piece of work at a time.

    Events are method calls and return what has to be done about them, in this order.
    """

    def __init__(self, size: int, limit: int | None) -> None:
        """``limit``: how many pieces of work one worker does; then it is replaced."""
        self.size = size
        self._limit = limit
        self._waiting: deque[W] = deque()
        self._idle: list[int] = []
        #: What each busy worker does.
        self._busy: dict[int, W] = {}
        #: How much each worker has done.
        self._done: dict[int, int] = {}
        self._next = 0
        #: No work comes any more: workers are let go when nothing waits for them.
        self._closing = False

    @property
    def workers(self) -> list[int]:
        """The numbers of all workers."""
        return list(self._done)

    @property
    def is_empty(self) -> bool:
        """Whether all work is done."""
        return not self._waiting and not self._busy

    @property
    def waiting(self) -> int:
        """How many pieces of work no worker has begun."""
        return len(self._waiting)

    def add(self, work: W) -> list[Action[W]]:
        """There is more to do."""
        self._waiting.append(work)
        return self._assign()

    def start_all(self) -> list[Action[W]]:
        """Have all workers from the beginning instead of each when there is work for it."""
        return [self._start() for _ in range(self.size - len(self._done))]

    def finished(self, worker: int) -> list[Action[W]]:
        """A worker has done its work."""
        if worker not in self._busy:
            return []
        del self._busy[worker]
        self._done[worker] += 1
        if self._limit is not None and self._done[worker] >= self._limit:
            del self._done[worker]
            return [Stop(worker), *self._assign()]
        self._idle.append(worker)
        return self._assign()

    def lost(self, worker: int) -> list[Action[W]]:
        """A worker is dead, and what it did is not coming."""
        if worker in self._done:
            del self._done[worker]
            self._busy.pop(worker, None)
            if worker in self._idle:
                self._idle.remove(worker)
        return self._assign()

    def close(self) -> list[Action[W]]:
        """Nothing will be added: let workers go as they run out of work."""
        self._closing = True
        return self._assign()

    def drop_waiting(self) -> list[W]:
        """Take back what has not begun."""
        dropped = list(self._waiting)
        self._waiting.clear()
        return dropped

    def _assign(self) -> list[Action[W]]:
        actions: list[Action[W]] = []
        while self._waiting:
            if not self._idle:
                if len(self._done) >= self.size:
                    break
                actions.append(self._start())
            # The one that worked last: its memory is warm.
            worker = self._idle.pop()
            work = self._waiting.popleft()
            self._busy[worker] = work
            actions.append(Run(worker, work))
        if self._closing and not self._waiting:
            for worker in self._idle:
                del self._done[worker]
                actions.append(Stop(worker))
            self._idle.clear()
        return actions

    def _start(self) -> Start:
        worker = self._next
        self._next += 1
        self._done[worker] = 0
        self._idle.append(worker)
        return Start(worker)
