"""Concurrency groups: how many calls of an actor may run at the same time, per group.

Plain decisions: no threads, no loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")

#: The group of methods that name none.
DEFAULT = ""


class ConcurrencyGroups(Generic[T]):
    """Admits calls up to the limit of their group and queues the others, in order."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = dict(limits)
        self._running = dict.fromkeys(limits, 0)
        self._queues: dict[str, deque[T]] = {name: deque() for name in limits}

    def __contains__(self, name: str) -> bool:
        return name in self.limits

    @property
    def running(self) -> int:
        """Calls that were admitted and have not left."""
        return sum(self._running.values())

    @property
    def queued(self) -> int:
        """Calls that wait."""
        return sum(len(queue) for queue in self._queues.values())

    def waiting(self) -> Iterator[tuple[str, int, list[T]]]:
        """Yield the groups in which calls wait, with their limits and these calls."""
        for name, queue in self._queues.items():
            if queue:
                yield name, self.limits[name], list(queue)

    def admit(self, name: str, call: T) -> bool:
        """Return whether a call may start now; otherwise it is queued."""
        if self._running[name] < self.limits[name]:
            self._running[name] += 1
            return True
        self._queues[name].append(call)
        return False

    def leave(self, name: str) -> T | None:
        """A call has ended; return the one that starts in its place, if any waits."""
        queue = self._queues[name]
        if queue:
            return queue.popleft()
        self._running[name] -= 1
        return None

    def withdraw(self, matches: Callable[[T], bool]) -> T | None:
        """Take the first queued call that ``matches`` out and return it."""
        for queue in self._queues.values():
            for call in queue:
                if matches(call):
                    queue.remove(call)
                    return call
        return None

    def clear(self) -> None:
        """Drop what waits."""
        for queue in self._queues.values():
            queue.clear()
