"""Concurrency groups: never more than allowed, in order, nothing forgotten."""

from __future__ import annotations

from collections import defaultdict, deque

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.runtime.worker.groups import DEFAULT, ConcurrencyGroups

LIMITS = {DEFAULT: 2, "io": 3, "single": 1}


class Model(RuleBasedStateMachine):
    """Admits, ends and withdraws calls; a call is its number."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: ConcurrencyGroups[int] = ConcurrencyGroups(LIMITS)
        self.running: dict[str, list[int]] = defaultdict(list)
        self.waiting: dict[str, deque[int]] = defaultdict(deque)
        self.number = 0

    @rule(group=st.sampled_from(sorted(LIMITS)))
    def admit(self, group: str) -> None:
        self.number += 1
        if self.groups.admit(group, self.number):
            self.running[group].append(self.number)
        else:
            assert len(self.running[group]) == LIMITS[group]
            self.waiting[group].append(self.number)

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from([g for g, calls in self.running.items() if calls]))
        self.running[group].pop(0)
        following = self.groups.leave(group)
        if self.waiting[group]:
            assert following == self.waiting[group].popleft()
            self.running[group].append(following)
        else:
            assert following is None

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        group = data.draw(st.sampled_from([g for g, calls in self.waiting.items() if calls]))
        call = data.draw(st.sampled_from(list(self.waiting[group])))
        assert self.groups.withdraw(lambda waiting: waiting == call) == call
        self.waiting[group].remove(call)
        assert self.groups.withdraw(lambda waiting: waiting == call) is None

    @invariant()
    def agrees(self) -> None:
        assert self.groups.running == sum(map(len, self.running.values()))
        assert self.groups.queued == sum(map(len, self.waiting.values()))
        for group, limit in LIMITS.items():
            assert len(self.running[group]) <= limit


TestGroups = Model.TestCase


def test_unknown_groups_are_not_there() -> None:
    groups: ConcurrencyGroups[int] = ConcurrencyGroups(LIMITS)
    assert "io" in groups
    assert "oi" not in groups
    with pytest.raises(KeyError):
        groups.admit("oi", 1)


def test_clear_drops_what_waits() -> None:
    groups: ConcurrencyGroups[int] = ConcurrencyGroups({DEFAULT: 1})
    assert groups.admit(DEFAULT, 1)
    assert not groups.admit(DEFAULT, 2)
    groups.clear()
    assert groups.leave(DEFAULT) is None
    assert groups.running == 0
