"""Asking processes and other nodes what they know, for somebody who looks inside.

Plain decisions: messages and deaths in, messages out.  The daemon sends what is returned, and calls
``expired`` when the time of a question is up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import msgspec

from skate.runtime.wire.messages import Message
from skate.runtime.wire.state import (
    AskNode,
    Inspect,
    Inspection,
    Missing,
    NodeAnswered,
    Page,
    StateQuery,
    StateReply,
)

#: Longest time that processes are given to answer, in seconds: they answer in milliseconds unless
#: something is wrong with them.
PATIENCE_SECONDS = 5.0
#: What part of the time of whoever asks its answer may take.
SHARE = 0.8

#: Bytes of rows in one answer: far below what a link may have unread before it is cut off.
MOST_BYTES = 40 * 1024 * 1024

#: What the daemon has to send: id of a process or node, and message.
Outgoing = list[tuple[bytes, Message]]


class Member(msgspec.Struct, frozen=True):
    """A process or another node, which can be asked."""

    member_id: bytes
    pid: int
    #: "driver", "worker" or "node".
    kind: str


class _Question(msgspec.Struct):
    asker: bytes
    message: Inspect
    #: Who has not answered.
    waiting: dict[bytes, Member]
    #: Asked by another node: that one knows which processes there are at all.
    for_node: bool
    pages: list[Page] = []
    missing: list[Missing] = []


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
            explain: Says why a member may not have answered in time, e.g. that it is stopped.
            own_pages: What the daemon itself adds to an answer, when the others have spoken.
        """
        self._node_id = node_id
        self._explain = explain
        self._own_pages = own_pages
        self._questions: dict[int, _Question] = {}
        self._numbers = itertools.count(1)

    def ask(
        self,
        asker: bytes,
        message: Inspect,
        processes: Iterable[Member],
        nodes: Iterable[Member] = (),
        for_node: bool = False,
    ) -> tuple[int, Outgoing]:
        """Somebody asks.  Return the number of the question, and what to send."""
        number = next(self._numbers)
        wanted = set(message.processes)
        asked = {m.member_id: m for m in processes if not wanted or m.member_id in wanted}
        others = {m.member_id: m for m in nodes}
        self._questions[number] = _Question(asker, message, {**asked, **others}, for_node)
        query = StateQuery(number, message.what, message.limit, message.filters)
        outgoing: Outgoing = [(process_id, query) for process_id in asked]
        if others:
            # Theirs has to come before we stop waiting for it.
            question = Inspect(
                message.request_id,
                message.what,
                message.limit,
                message.filters,
                patience(message.timeout),
                message.processes,
                message.log,
            )
            outgoing += [(node_id, AskNode(number, question)) for node_id in others]
        return number, outgoing + self._finish(number)

    def replied(self, process_id: bytes, message: StateReply) -> Outgoing:
        """A process has answered; late answers are ignored."""
        found = self._take(message.query_id, process_id)
        if found is None:
            return []
        question, member = found
        question.pages.append(
            Page(self._node_id, process_id, member.pid, member.kind, message.rows, message.total)
        )
        return self._finish(message.query_id)

    def node_answered(self, node_id: bytes, message: NodeAnswered) -> Outgoing:
        """Another node has answered; late answers are ignored."""
        found = self._take(message.number, node_id)
        if found is None:
            return []
        question, _ = found
        question.pages += message.pages
        question.missing += message.missing
        return self._finish(message.number)

    def _take(self, number: int, member_id: bytes) -> tuple[_Question, Member] | None:
        question = self._questions.get(number)
        member = question.waiting.pop(member_id, None) if question is not None else None
        return (question, member) if question is not None and member is not None else None

    def gone(self, member_id: bytes, expected: bool) -> Outgoing:
        """A process has ended or lost its link, or a node is gone.

        ``expected``: it was told to end, or let go: there is nothing that it has not told.
        """
        outgoing: Outgoing = []
        for number, question in list(self._questions.items()):
            if question.asker == member_id:
                del self._questions[number]
                continue
            member = question.waiting.pop(member_id, None)
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
        node_id = member.member_id if member.kind == "node" else self._node_id
        question.missing.append(Missing(node_id, member.member_id, member.pid, member.kind, reason))

    @staticmethod
    def _bounded(question: _Question, pages: list[Page]) -> list[Page]:
        """Leave out what would make the answer too large."""
        kept: list[Page] = []
        size = 0
        for page in pages:
            size += len(page.rows)
            if size <= MOST_BYTES:
                kept.append(page)
                continue
            size -= len(page.rows)
            reason = "its rows were left out, the answer would be too large: ask for fewer"
            question.missing.append(
                Missing(page.node_id, page.process_id, page.pid, page.kind, reason)
            )
        return kept

    def _finish(self, number: int) -> Outgoing:
        question = self._questions[number]
        if question.waiting:
            return []
        del self._questions[number]
        message = question.message
        pages = self._bounded(question, question.pages + self._own_pages(message))
        if not question.for_node:
            told = {page.process_id for page in pages}
            told.update(missing.process_id for missing in question.missing)
            for process_id in message.processes:
                if process_id not in told:
                    reason = "there is no such process"
                    question.missing.append(Missing(self._node_id, process_id, 0, "worker", reason))
        return [(question.asker, Inspection(message.request_id, pages, question.missing))]


def patience(timeout: float) -> float:
    """Return how long members may take if whoever asks waits ``timeout`` seconds."""
    # No number (NaN) is no time either.
    return min(timeout * SHARE, PATIENCE_SECONDS) if timeout > 0 else 0.0
