"""The daemon's part in looking inside: asks its processes, keeps what ended ones have done."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from skate.runtime.node import processes
from skate.runtime.node.fan_out import FanOut, Member, Outgoing, patience
from skate.runtime.node.kept_events import KeptEvents
from skate.runtime.node.links import Link, Links
from skate.runtime.node.loop import Loop
from skate.runtime.wire.state import (
    EVENTS,
    TASKS,
    EventsFlushed,
    Inspect,
    Inspection,
    Page,
    StateReply,
)

#: Events in one answer at most, so that it stays far below what a link may have unread.
MOST_EVENTS = 200_000


class Looking:
    """Answers ``Inspect``."""

    def __init__(self, loop: Loop, links: Links, node_id: bytes) -> None:
        self._loop = loop
        self._links = links
        self._node_id = node_id
        self.kept = KeptEvents()
        #: Questions of our own, by number.
        self._for_us: dict[int, Callable[[Inspection], None]] = {}
        self._number = 0
        self._fan_out = FanOut(node_id, _explain, self._own_pages)

    def ask(self, link: Link, message: Inspect) -> None:
        """A process or a tool wants to know something of all processes."""
        self._ask(link.process_id, message)

    def ask_for_us(
        self, what: str, limit: int, timeout: float, done: Callable[[Inspection], None]
    ) -> None:
        """The daemon itself wants to know."""
        self._number += 1
        self._for_us[self._number] = done
        self._ask(self._node_id, Inspect(self._number, what, limit, [], timeout, []))

    def _ask(self, asker: bytes, message: Inspect) -> None:
        number, outgoing = self._fan_out.ask(asker, message, self._members())
        self._deliver(outgoing)
        self._loop.call_later(patience(message.timeout), partial(self._deliver_expired, number))

    def _deliver(self, outgoing: Outgoing) -> None:
        for process_id, message in outgoing:
            if process_id != self._node_id:
                self._links.send(process_id, message)
            elif isinstance(message, Inspection):
                self._for_us.pop(message.request_id)(message)

    def replied(self, link: Link, message: StateReply) -> None:
        """A process has answered."""
        self._deliver(self._fan_out.replied(link.process_id, message))

    def flushed(self, _link: Link, message: EventsFlushed) -> None:
        """A process hands over what it has done lately."""
        self.kept.add(message)

    def gone(self, process_id: bytes, expected: bool) -> None:
        """A process has lost its link; ``expected`` as in ``FanOut.gone``."""
        self._deliver(self._fan_out.gone(process_id, expected))

    def _deliver_expired(self, number: int) -> None:
        self._deliver(self._fan_out.expired(number))

    def _members(self) -> list[Member]:
        return [
            Member(link.process_id, link.pid, link.kind)
            for link in self._links.by_process.values()
            if link.kind in ("driver", "worker")
        ]

    def _own_pages(self, message: Inspect) -> list[Page]:
        """Finished tasks: processes hand them over before they answer."""
        if message.what not in (TASKS, EVENTS) or message.processes:
            return []
        limit = MOST_EVENTS if message.filters else min(message.limit, MOST_EVENTS)
        rows = self.kept.newest(limit)
        return [Page(self._node_id, self._node_id, os.getpid(), "node", rows, self.kept.count)]


def _explain(member: Member) -> str:
    if processes.is_stopped(member.pid):
        return "its process is stopped (by SIGSTOP or a debugger)"
    return "it did not answer in time: it may be busy in code that does not let go of Python's lock"
