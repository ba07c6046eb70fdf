"""Questions to all processes of a node, and who answers, hangs or dies."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from skate.runtime.node.fan_out import MOST_BYTES, FanOut, Member, Outgoing, patience
from skate.runtime.node.kept_events import BATCH_BYTES, KeptEvents
from skate.runtime.wire.connection import node_decoder
from skate.runtime.wire.messages import StateQuery
from skate.runtime.wire.state import (
    AskNode,
    EventsFlushed,
    Inspect,
    Inspection,
    Missing,
    NodeAnswered,
    Page,
    StateReply,
)

NODE = b"node-id!"
ROWS = b"\x90"


def inspect(request_id: int = 1, processes: list[bytes] | None = None) -> Inspect:
    return Inspect(request_id, "tasks", 10, [], 5.0, processes or [])


def fan_out() -> FanOut:
    own = Page(NODE, NODE, 1, "node", ROWS, 0)
    return FanOut(NODE, lambda member: f"no answer of {member.pid}", lambda message: [own])


def members(count: int) -> list[Member]:
    return [Member(f"process{n}".encode(), n, "worker") for n in range(count)]


def answer(outgoing: Outgoing) -> Inspection:
    [(asker, message)] = outgoing
    assert asker == b"asker"
    assert isinstance(message, Inspection)
    return message


def test_everybody_answers() -> None:
    asking = fan_out()
    number, outgoing = asking.ask(b"asker", inspect(7), members(2))
    assert [(to, type(message)) for to, message in outgoing] == [
        (b"process0", StateQuery),
        (b"process1", StateQuery),
    ]
    assert asking.replied(b"process0", StateReply(number, b"a", 1)) == []
    found = answer(asking.replied(b"process1", StateReply(number, b"b", 1)))
    assert (found.request_id, found.missing) == (7, [])
    assert [page.rows for page in found.pages] == [b"a", b"b", ROWS]
    # A second answer, and a late end of the time, change nothing.
    assert asking.replied(b"process1", StateReply(number, b"c", 1)) == []
    assert asking.expired(number) == []


def test_nobody_to_ask() -> None:
    _, outgoing = fan_out().ask(b"asker", inspect(), [])
    assert [page.kind for page in answer(outgoing).pages] == ["node"]


def test_one_hangs_and_one_dies() -> None:
    asking = fan_out()
    number, _ = asking.ask(b"asker", inspect(), members(4))
    assert asking.replied(b"process0", StateReply(number, b"a", 1)) == []
    assert asking.gone(b"process1", expected=False) == []
    # One that was told to end has nothing left to say.
    assert asking.gone(b"process2", expected=True) == []
    found = answer(asking.expired(number))
    assert [(missing.pid, missing.reason) for missing in found.missing] == [
        (1, "it ended before it answered"),
        (3, "no answer of 3"),
    ]


def test_only_some_are_asked() -> None:
    asking = fan_out()
    number, outgoing = asking.ask(b"asker", inspect(1, [b"process1", b"nobody"]), members(3))
    assert [to for to, _ in outgoing] == [b"process1"]
    found = answer(asking.replied(b"process1", StateReply(number, b"b", 1)))
    assert [missing.reason for missing in found.missing] == ["there is no such process"]


def test_other_nodes_are_asked_too() -> None:
    asking = fan_out()
    nodes = [Member(b"node-two", 77, "node"), Member(b"node-3!!", 78, "node")]
    number, outgoing = asking.ask(b"asker", inspect(5), members(1), nodes)
    query, *asked = [message for _, message in outgoing]
    assert isinstance(query, StateQuery)
    assert [type(message) for message in asked] == [AskNode, AskNode]
    # They have to answer before we stop waiting for them.
    assert isinstance(asked[0], AskNode)
    assert patience(asked[0].question.timeout) < patience(inspect().timeout)
    page = Page(b"node-two", b"far away", 9, "worker", ROWS, 0)
    lost = Missing(b"node-two", b"its lost", 8, "worker", "it hangs")
    assert asking.node_answered(b"node-two", NodeAnswered(number, [page], [lost])) == []
    assert asking.replied(b"process0", StateReply(number, b"a", 1)) == []
    found = answer(asking.gone(b"node-3!!", expected=False))
    assert [page.process_id for page in found.pages] == [b"far away", b"process0", NODE]
    assert [(missing.pid, missing.kind) for missing in found.missing] == [
        (8, "worker"),
        (78, "node"),
    ]


def test_a_process_of_another_node_is_no_unknown_one() -> None:
    asking = fan_out()
    nodes = [Member(b"node-two", 77, "node")]
    number, _ = asking.ask(b"asker", inspect(5, [b"far away"]), members(2), nodes)
    page = Page(b"node-two", b"far away", 9, "worker", ROWS, 0)
    found = answer(asking.node_answered(b"node-two", NodeAnswered(number, [page], [])))
    assert found.missing == []
    # A node that is asked leaves it to the one that asks to say so.
    _, outgoing = asking.ask(b"asker", inspect(5, [b"nobody!!"]), members(2), for_node=True)
    assert answer(outgoing).missing == []


def test_whoever_asks_may_die() -> None:
    asking = fan_out()
    number, _ = asking.ask(b"asker", inspect(), members(1))
    assert asking.gone(b"asker", expected=False) == []
    assert asking.replied(b"process0", StateReply(number, b"a", 1)) == []


def test_messages_survive_the_wire() -> None:
    from skate.runtime.wire import connection

    page = Page(NODE, b"process0", 3, "worker", b"rows", 1)
    sent = [inspect(), Inspection(1, [page], []), StateQuery(1, "tasks", 5, [("a", "=", 1.5)])]
    assert node_decoder.decode(connection._encoder.encode(sent)) == sent


def test_an_answer_that_would_be_too_large_is_cut() -> None:
    asking = fan_out()
    number, _ = asking.ask(b"asker", inspect(), members(3))
    half = bytes(MOST_BYTES // 2)
    assert asking.replied(b"process0", StateReply(number, half, 1)) == []
    assert asking.replied(b"process1", StateReply(number, half + b"x", 1)) == []
    found = answer(asking.replied(b"process2", StateReply(number, b"small", 1)))
    assert [page.pid for page in found.pages] == [0, 2, 1]
    assert [page.kind for page in found.pages] == ["worker", "worker", "node"]
    [missing] = found.missing
    assert (missing.pid, "too large" in missing.reason) == (1, True)


def test_patience_ends_before_whoever_asks_gives_up() -> None:
    assert patience(float("nan")) == 0.0
    assert patience(float("inf")) < 10.0
    assert patience(1.0) < 1.0
    assert patience(1000.0) < 10.0
    assert patience(-1.0) == 0.0


class Questions(RuleBasedStateMachine):
    """Every question is answered once, and names each member once: as a page or as missing."""

    def __init__(self) -> None:
        super().__init__()
        self.asking = fan_out()
        self.members = members(4)
        self.open: dict[int, tuple[int, set[bytes]]] = {}
        self.request = 0

    def take(self, outgoing: Outgoing) -> None:
        for to, message in outgoing:
            if isinstance(message, StateQuery):
                continue
            assert to == b"asker"
            assert isinstance(message, Inspection)
            [number] = [n for n, (request, _) in self.open.items() if request == message.request_id]
            _, asked = self.open.pop(number)
            told = [page.process_id for page in message.pages if page.kind != "node"]
            told += [missing.process_id for missing in message.missing]
            assert len(told) == len(set(told))
            assert set(told) <= asked

    @rule()
    def ask(self) -> None:
        self.request += 1
        number, outgoing = self.asking.ask(b"asker", inspect(self.request), self.members)
        self.open[number] = (self.request, {member.member_id for member in self.members})
        self.take(outgoing)

    @rule(number=st.integers(1, 8), who=st.integers(0, 3))
    def reply(self, number: int, who: int) -> None:
        self.take(self.asking.replied(f"process{who}".encode(), StateReply(number, ROWS, 0)))

    @rule(number=st.integers(1, 8))
    def expire(self, number: int) -> None:
        self.take(self.asking.expired(number))
        assert number not in self.open

    @rule(who=st.integers(0, 3), expected=st.booleans())
    def die(self, who: int, expected: bool) -> None:
        name = f"process{who}".encode()
        self.members = [member for member in self.members if member.member_id != name]
        self.take(self.asking.gone(name, expected))

    @invariant()
    def nothing_is_kept_of_answered_questions(self) -> None:
        assert set(self.asking._questions) == set(self.open)


TestQuestions = Questions.TestCase
TestQuestions.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


def test_events_are_kept_up_to_a_size() -> None:
    kept = KeptEvents(limit=5 * (2 + BATCH_BYTES))
    for letter in (b"\xa1a", b"\xa1b", b"\xa1c", b"\xa1d", b"\xa1e", b"\xa1f"):
        kept.add(EventsFlushed(letter, 2))
    assert kept.count == 10
    assert kept.newest(1000) == b"\x95\xa1b\xa1c\xa1d\xa1e\xa1f"
    # As many batches as have that many events.
    assert kept.newest(3) == b"\x92\xa1e\xa1f"


def test_of_kept_events_only_tasks_may_count() -> None:
    kept = KeptEvents()
    kept.add(EventsFlushed(b"\xa1a", 3, 3))
    kept.add(EventsFlushed(b"\xa1b", 3, 1))
    kept.add(EventsFlushed(b"\xa1c", 5))
    # More have run than there was room for.
    kept.add(EventsFlushed(b"\xa1d", 1, 9))
    kept.add(EventsFlushed(b"\xa1e", 2))
    assert kept.newest(1) == b"\x91\xa1e"
    assert kept.newest(1, tasks_only=True) == b"\x92\xa1d\xa1e"
    assert kept.newest(2, tasks_only=True) == b"\x94\xa1b\xa1c\xa1d\xa1e"
    assert kept.newest(3, tasks_only=True) == b"\x95\xa1a\xa1b\xa1c\xa1d\xa1e"
