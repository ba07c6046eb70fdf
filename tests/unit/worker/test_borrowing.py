"""Counts of borrowers: an object is kept exactly as long as somebody may reach it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.runtime.worker.borrowing import BorrowTable

OBJECT = b"o" * 16


def test_release_may_overtake_the_announcement_of_a_third_process() -> None:
    table = BorrowTable()
    table.add(OBJECT, "cell", b"sender")
    # The receiver's release arrives before the sender's AddBorrower.
    table.release(OBJECT, b"receiver", 1)
    assert table.cell(OBJECT) == "cell"
    table.add(OBJECT, "cell", b"receiver")
    assert table.borrowers(OBJECT) == {b"sender": 1}
    table.release(OBJECT, b"sender", 1)
    assert table.cell(OBJECT) is None
    assert len(table) == 0


def test_release_of_an_unknown_object_is_ignored() -> None:
    table = BorrowTable()
    table.release(OBJECT, b"x", 3)
    assert len(table) == 0


def test_pinned_objects_stay() -> None:
    table = BorrowTable()
    table.pin(OBJECT, "cell")
    table.add(OBJECT, "cell", b"x")
    table.forget(b"x")
    assert table.cell(OBJECT) == "cell"


class Borrowing(RuleBasedStateMachine):
    """A table against the plain model: a set of held refs per process."""

    def __init__(self) -> None:
        super().__init__()
        self.table = BorrowTable()
        self.held: dict[tuple[int, int], int] = {}

    @rule(number=st.integers(0, 3), process=st.integers(0, 3), count=st.integers(1, 3))
    def hand(self, number: int, process: int, count: int) -> None:
        self.table.add(bytes([number]), number, bytes([process]), count)
        self.held[number, process] = self.held.get((number, process), 0) + count

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        number, process = data.draw(st.sampled_from(sorted(self.held)))
        count = self.held.pop((number, process))
        self.table.release(bytes([number]), bytes([process]), count)

    @rule(process=st.integers(0, 3))
    def die(self, process: int) -> None:
        self.table.forget(bytes([process]))
        self.held = {key: n for key, n in self.held.items() if key[1] != process}

    @invariant()
    def same(self) -> None:
        for number in range(4):
            expected = {bytes([p]): n for (o, p), n in self.held.items() if o == number}
            assert self.table.borrowers(bytes([number])) == expected
            assert (self.table.cell(bytes([number])) is not None) == bool(expected)


TestBorrowing = Borrowing.TestCase


@settings(max_examples=50)
@given(st.permutations(["add", "add", "release2"]))
def test_any_order_of_messages_ends_in_the_same_state(order: list[str]) -> None:
    table = BorrowTable()
    table.add(OBJECT, "cell", b"keeper")
    for step in order:
        if step == "add":
            table.add(OBJECT, "cell", b"b")
        else:
            table.release(OBJECT, b"b", 2)
    assert table.borrowers(OBJECT) == {b"keeper": 1}
