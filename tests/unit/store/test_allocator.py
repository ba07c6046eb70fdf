"""The allocator against a model: a list of ranges."""

from __future__ import annotations

import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from skate.runtime.store.allocator import ALIGNMENT, Allocator


def rounded(size: int) -> int:
    return max(1, -(-size // ALIGNMENT)) * ALIGNMENT


class AllocatorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[int, int] = {}

    @initialize(size=st.integers(0, 64 * 40))
    def start(self, size: int) -> None:
        self.allocator = Allocator(size)
        self.size = size - size % ALIGNMENT

    def holes(self) -> list[tuple[int, int]]:
        """Return the model's holes as (offset, size)."""
        holes, position = [], 0
        for offset, size in [*sorted(self.taken.items()), (self.size, 0)]:
            if offset > position:
                holes.append((position, offset - position))
            position = offset + size
        return holes

    @rule(size=st.integers(0, 64 * 20))
    def allocate(self, size: int) -> None:
        fitting = [hole for hole in self.holes() if hole[1] >= rounded(size)]
        offset = self.allocator.allocate(size)
        if not fitting:
            assert offset is None
            return
        # Best fit: the smallest hole that is large enough, the lowest of several.
        assert offset == min(fitting, key=lambda hole: (hole[1], hole[0]))[0]
        self.taken[offset] = rounded(size)
        assert self.allocator.holds(offset, size)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.taken)))
        del self.taken[offset]
        self.allocator.free(offset)

    @rule(offset=st.integers(-1, 64 * 41))
    def free_nothing(self, offset: int) -> None:
        if offset not in self.taken:
            assert not self.allocator.holds(offset, 0)
            with pytest.raises(ValueError, match="nothing is allocated"):
                self.allocator.free(offset)

    @invariant()
    def agrees_with_the_model(self) -> None:
        if not hasattr(self, "allocator"):
            return
        holes = self.holes()
        assert self.allocator.holes() == holes
        assert self.allocator.used == sum(self.taken.values())
        assert len(self.allocator) == len(self.taken)
        assert self.allocator.is_empty == (not self.taken)
        assert self.allocator.largest_free == max((size for _, size in holes), default=0)


AllocatorMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None
)
TestAllocator = AllocatorMachine.TestCase


def test_sizes_are_told_apart() -> None:
    allocator = Allocator(1024)
    offset = allocator.allocate(100)
    assert offset is not None
    assert allocator.holds(offset, 100)
    assert allocator.holds(offset, 128)
    assert not allocator.holds(offset, 64)
    assert not allocator.holds(offset, 129)
    assert not allocator.holds(offset + ALIGNMENT, 100)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot allocate"):
        Allocator(1024).allocate(-1)
    assert Allocator(1024).allocate(2**63) is None


def test_it_is_cheap_with_many_objects() -> None:
    allocator = Allocator(1 << 30)
    started = time.perf_counter()
    offsets = [allocator.allocate(100 * 1024) for _ in range(10_000)]
    # Every other one first: the most holes there can be.
    for offset in offsets[::2] + offsets[1::2]:
        assert offset is not None
        allocator.free(offset)
    assert allocator.is_empty
    assert allocator.holes() == [(0, 1 << 30)]
    # About 40 ms; a quadratic algorithm takes a minute.
    assert time.perf_counter() - started < 5
