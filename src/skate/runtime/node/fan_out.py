"""Asking the processes of a node what they know, for somebody who looks inside.

Plain decisions: messages and deaths in, messages out.  The daemon sends what is returned, and calls
``expired`` when the time of a question is up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from skate.runtime.wire.messages import Message
from skate.runtime.wire.state import Inspect, Inspection, Missing, Page, StateQuery, StateReply

#: Longest time that processes are given to answer, in seconds: they answer in milliseconds unless
#: something is wrong with them.
PATIENCE_SECONDS = 5.0

#: What the daemon has to send: process id and message.
Outgoing = list[tuple[bytes, Message]]


@dataclass(slots=True, frozen=True)
class Member:
    """A process that can be asked."""

    process_id: bytes
    pid: int
    #: "driver" or "worker".
    kind: str


@dataclass(slots=True)
class _Question:
    asker: bytes
    message: Inspect
    #: Who has not answered.
    waiting: dict[bytes, Member]
    pages: list[Page] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


class FanOut:
    """Questions under way.  A process that hangs or dies costs its own rows and no others."""

    def __init__(
        self,
        node_id: bytes,
        explain: Callable[[Member], str],
        own_pages: Callable[[Inspect], list[Page]],
    ) -> None:
        """Start without questions.

        Args:
            node_id: Of this node.
            explain: Says why a process may not have answered in time, e.g. that it is stopped.
            own_pages: What the daemon itself adds to an answer, when the others have spoken.
        """
        self._node_id = node_id
        self._explain = explain
        self._own_pages = own_pages
        self._questions: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    def ask(
        self, asker: bytes, message: Inspect, members: Iterable[Member]
    ) -> tuple[int, Outgoing]:
        """Somebody asks.  Return the number of the question, and what to send."""
        wanted = set(message.processes)
        waiting = {m.process_id: m for m in members if not wanted or m.process_id in wanted}
        number = next(self._numbers)
        question = self._questions[number] = _Question(asker, message, waiting)
        for process_id in wanted - set(waiting):
            question.missing.append(
                Missing(self._node_id, process_id, 0, "worker", "there is no such process")
            )
        query = StateQuery(number, message.what, message.limit, message.filters)
        outgoing: Outgoing = [(process_id, query) for process_id in waiting]
        return number, outgoing + self._finish(number)

    def replied(self, process_id: bytes, message: StateReply) -> Outgoing:
        """A process has answered; late answers are ignored."""
        question = self._questions.get(message.query_id)
        member = question.waiting.pop(process_id, None) if question is not None else None
        if question is None or member is None:
            return []
        question.pages.append(
            Page(self._node_id, process_id, member.pid, member.kind, message.rows, message.total)
        )
        return self._finish(message.query_id)

    def gone(self, process_id: bytes, expected: bool) -> Outgoing:
        """A process has ended or lost its link.

        ``expected``: it was told to end, or let go: there is nothing that it has not told.
        """
        outgoing: Outgoing = []
        for number, question in list(self._questions.items()):
            if question.asker == process_id:
                del self._questions[number]
                continue
            member = question.waiting.pop(process_id, None)
            if member is not None:
                if not expected:
                    self._miss(question, member, "it ended before it answered")
                outgoing += self._finish(number)
        return outgoing

    def expired(self, number: int) -> Outgoing:
        """The time of a question is up: answer with what there is."""
        question = self._questions.get(number)
        if question is None:
            return []
        for member in question.waiting.values():
            self._miss(question, member, self._explain(member))
        question.waiting.clear()
        return self._finish(number)

    def _miss(self, question: _Question, member: Member, reason: str) -> None:
        question.missing.append(
            Missing(self._node_id, member.process_id, member.pid, member.kind, reason)
        )

    def _finish(self, number: int) -> Outgoing:
        question = self._questions[number]
        if question.waiting:
            return []
        del self._questions[number]
        pages = question.pages + self._own_pages(question.message)
        answer = Inspection(question.message.request_id, pages, question.missing)
        return [(question.asker, answer)]


def patience(timeout: float) -> float:
    """Return how long processes may take if whoever asks waits ``timeout`` seconds."""
    return max(min(timeout * 0.8, PATIENCE_SECONDS), 0.0)
