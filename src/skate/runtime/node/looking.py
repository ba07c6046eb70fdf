"""The daemon's part in looking inside: asks processes and other nodes, keeps what was done."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from skate.runtime.node import processes
from skate.runtime.node.fan_out import FanOut, Member, Outgoing, patience
from skate.runtime.node.kept_events import KeptEvents
from skate.runtime.node.links import Link, Links
from skate.runtime.node.loop import Loop
from skate.runtime.node.state import Row
from skate.runtime.wire.logs import LOG, LogPiece, LogRange
from skate.runtime.wire.messages import StateAnswer, StateRequest
from skate.runtime.wire.state import (
    EVENTS,
    TABLE,
    TASKS,
    AskNode,
    EventsFlushed,
    Inspect,
    Inspection,
    NodeAnswered,
    Page,
    StateReply,
)

#: Events in one answer at most, so that it stays far below what a link may have unread.
MOST_EVENTS = 200_000
#: Seconds that other nodes have for their part of a table.
TABLE_SECONDS = 5.0
#: Tables that this node has for the whole cluster; of others each node has its own part.
WHOLE_TABLES = frozenset(("nodes", "cluster_resources", "available_resources"))

_encoder = msgspec.msgpack.Encoder()
_rows_decoder = msgspec.msgpack.Decoder(list[Row])


class OtherNodes(Protocol):
    """The other nodes of the cluster."""

    def members(self) -> list[Member]:
        """Return those that can be asked."""

    def send(self, node_id: bytes, message: object) -> None:
        """Send a message to the daemon of one."""


class Looking:
    """Answers ``Inspect`` and ``StateRequest``."""

    def __init__(
        self,
        loop: Loop,
        links: Links,
        node_id: bytes,
        table: Callable[[str], list[Row]],
        read_log: Callable[[LogRange], LogPiece],
    ) -> None:
        """``table(what)``: what this daemon knows itself; ``read_log``: what is in its logs."""
        self._loop = loop
        self._links = links
        self._node_id = node_id
        self._table = table
        self._read_log = read_log
        self.kept = KeptEvents()
        #: None unless this node belongs to a cluster.
        self.others: OtherNodes | None = None
        #: Questions of our own, and of other nodes, by number.
        self._for_us: dict[int, Callable[[Inspection], None]] = {}
        self._number = 0
        self._fan_out = FanOut(node_id, _explain, self._own_pages)

    # ------------------------------------------------------------------ questions

    def ask(self, link: Link, message: Inspect) -> None:
        """A process or a tool wants to know something of all processes."""
        nodes = self._other_nodes()
        if message.log is not None:
            nodes = [node for node in nodes if node.member_id == message.log.node_id]
        self._ask(link.process_id, message, nodes)

    def ask_for_table(self, link: Link, message: StateRequest) -> None:
        """A process or a tool wants to know what the daemons know."""
        request_id, process_id, what = message.request_id, link.process_id, message.what
        nodes = [] if what in WHOLE_TABLES else self._other_nodes()
        if not nodes:
            self._links.send(process_id, StateAnswer(request_id, self._table(what)))
            return

        def answer(inspection: Inspection) -> None:
            rows = [row for page in inspection.pages for row in _rows_decoder.decode(page.rows)]
            self._links.send(process_id, StateAnswer(request_id, rows))

        question = self._question(TABLE + what, 0, TABLE_SECONDS, answer)
        self._ask(self._node_id, question, nodes)

    def ask_for_us(
        self,
        what: str,
        limit: int,
        timeout: float,
        done: Callable[[Inspection], None],
        everywhere: bool = False,
        processes: Sequence[bytes] = (),
    ) -> None:
        """The daemon itself wants to know something of its own processes, or of all nodes'.

        ``processes``: only of these, if there are any.
        """
        nodes = self._other_nodes() if everywhere else []
        question = self._question(what, limit, timeout, done)
        question.processes = list(processes)
        self._ask(self._node_id, question, nodes)

    def asked_by_node(self, node_id: bytes, message: AskNode) -> None:
        """Another daemon wants to know something of our processes."""
        others, asked = self.others, message.question

        def answer(inspection: Inspection) -> None:
            if others is not None:
                answered = NodeAnswered(message.number, inspection.pages, inspection.missing)
                others.send(node_id, answered)

        question = self._question(asked.what, asked.limit, asked.timeout, answer)
        question.filters, question.processes = asked.filters, asked.processes
        question.log = asked.log
        self._ask(self._node_id, question, [], for_node=True)

    def _question(
        self, what: str, limit: int, timeout: float, done: Callable[[Inspection], None]
    ) -> Inspect:
        self._number += 1
        self._for_us[self._number] = done
        return Inspect(self._number, what, limit, [], timeout, [])

    def _ask(
        self, asker: bytes, message: Inspect, nodes: list[Member], for_node: bool = False
    ) -> None:
        by_daemons = message.what == LOG or message.what.startswith(TABLE)
        members = [] if by_daemons else self._members()
        number, outgoing = self._fan_out.ask(asker, message, members, nodes, for_node)
        self._deliver(outgoing)
        self._loop.call_later(
            patience(message.timeout), lambda: self._deliver(self._fan_out.expired(number))
        )

    def _members(self) -> list[Member]:
        return [
            Member(link.process_id, link.pid, link.kind)
            for link in self._links.by_process.values()
            if link.kind in ("driver", "worker")
        ]

    def _other_nodes(self) -> list[Member]:
        return self.others.members() if self.others is not None else []

    # ------------------------------------------------------------------ answers

    def replied(self, link: Link, message: StateReply) -> None:
        """A process has answered."""
        self._deliver(self._fan_out.replied(link.process_id, message))

    def answered_by_node(self, node_id: bytes, message: NodeAnswered) -> None:
        """Another daemon has answered."""
        self._deliver(self._fan_out.node_answered(node_id, message))

    def gone(self, member_id: bytes, expected: bool) -> None:
        """A process has lost its link, or a node is gone; ``expected`` as in ``FanOut.gone``."""
        self._deliver(self._fan_out.gone(member_id, expected))

    def _deliver(self, outgoing: Outgoing) -> None:
        for target, message in outgoing:
            if isinstance(message, AskNode):
                if self.others is not None:
                    self.others.send(target, message)
            elif target != self._node_id:
                self._links.send(target, message)
            elif isinstance(message, Inspection):
                self._for_us.pop(message.request_id)(message)

    def _own_pages(self, message: Inspect) -> list[Page]:
        if message.what.startswith(TABLE):
            rows = self._table(message.what.removeprefix(TABLE))
            return [self._page(_encoder.encode(rows), len(rows))]
        if message.what == LOG:
            wanted = message.log
            if wanted is None or wanted.node_id != self._node_id:
                return []
            return [self._page(_encoder.encode([self._read_log(wanted)]), 1)]
        if message.what not in (TASKS, EVENTS) or message.processes:
            return []
        # Finished tasks: processes hand them over before they answer.
        limit = MOST_EVENTS if message.filters else min(message.limit, MOST_EVENTS)
        newest = self.kept.newest(limit, tasks_only=message.what == TASKS)
        return [self._page(newest, self.kept.count)]

    def _page(self, rows: bytes, total: int) -> Page:
        return Page(self._node_id, self._node_id, os.getpid(), "node", rows, total)

    # ------------------------------------------------------------------ what was done

    def flushed(self, _link: Link, message: EventsFlushed) -> None:
        """A process hands over what it has done lately."""
        self.kept.add(message)

    def moved(self, kind: str, started: float, what: str) -> None:
        """The daemon has spilled or restored objects, or brought one here."""
        self.kept.note(self._node_id, kind, f"{kind} {what}", started)


def _explain(member: Member) -> str:
    if member.kind == "node":
        return "its daemon did not answer in time"
    if processes.is_stopped(member.pid):
        return "its process is stopped (by SIGSTOP or a debugger)"
    return "it did not answer in time: it may be busy in code that does not let go of Python's lock"
