"""Who waits for which environment."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from skate.runtime.node.environments import Admission, EnvironmentTable
from skate.runtime.node.requests import Request
from skate.runtime.worker.config import PreparedEnvironment

HOLDERS = (b"h1", b"h2")
NAMES = (b"e1", b"e2")


def request(name: bytes, holder: bytes, number: int, actor: bool = False) -> Request:
    actor_id = b"actor%d" % number if actor else b""
    return Request(holder, {}, 0, "f", number, actor_id, environment=name)


class Machine(RuleBasedStateMachine):
    """Every request is admitted, kept once, given back once, or cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.table = EnvironmentTable()
        self.number = 0
        #: Requests that wait, by key.
        self.waiting: dict[object, Request] = {}
        self.building: set[bytes] = set()

    @rule(name=st.sampled_from(NAMES), holder=st.sampled_from(HOLDERS), actor=st.booleans())
    def admit(self, name: bytes, holder: bytes, actor: bool) -> None:
        self.number += 1
        wanted = request(name, holder, self.number, actor)
        admission = self.table.admit(wanted)
        if name in self.table.ready:
            assert admission is Admission.READY
            return
        assert admission is (Admission.WAIT if name in self.building else Admission.START)
        self.building.add(name)
        self.waiting[wanted.key] = wanted

    @rule(name=st.sampled_from(NAMES))
    def expect(self, name: bytes) -> None:
        if self.table.expect(name) is Admission.START:
            assert name not in self.building
            self.building.add(name)

    @rule(name=st.sampled_from(NAMES), succeeds=st.booleans())
    def build_ends(self, name: bytes, succeeds: bool) -> None:
        if name not in self.building:
            return
        self.building.discard(name)
        if succeeds:
            given = self.table.prepared(PreparedEnvironment(name, {}))
        else:
            given = self.table.failed(name)
        mine = [r for r in self.waiting.values() if r.environment == name]
        assert given == mine
        for wanted in mine:
            del self.waiting[wanted.key]

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.waiting:
            key = data.draw(st.sampled_from(sorted(self.waiting, key=repr)))
            self.table.cancel(key)  # type: ignore[arg-type]  # keys of requests
            del self.waiting[key]

    @rule(holder=st.sampled_from(HOLDERS))
    def die(self, holder: bytes) -> None:
        self.table.cancel_all_of(holder)
        self.waiting = {
            key: r for key, r in self.waiting.items() if r.holder != holder or r.actor_id
        }

    @rule(name=st.sampled_from(NAMES))
    def release(self, name: bytes) -> None:
        self.table.ready.pop(name, None)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase


def test_a_request_that_is_made_again_waits_once() -> None:
    table = EnvironmentTable()
    assert table.admit(request(b"e1", b"h", 1)) is Admission.START
    again = request(b"e1", b"h", 1)
    assert table.admit(again) is Admission.WAIT
    assert table.failed(b"e1") == [again]
