"""Exact accounting of fractional amounts, GPU instances, and CPUs lent by workers that wait."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from skate.runtime.node.resources import (
    UNIT,
    Allocation,
    NodeResources,
    Units,
    describe,
    to_amounts,
    to_units,
)


def take(resources: NodeResources, **amounts: float) -> Allocation:
    allocation = resources.acquire(to_units(amounts))
    assert allocation is not None
    return allocation


def refused(resources: NodeResources, **amounts: float) -> bool:
    return resources.acquire(to_units(amounts)) is None


def test_ten_tenths_fill_one_cpu_exactly() -> None:
    resources = NodeResources({"CPU": 1})
    held = [take(resources, CPU=0.1) for _ in range(10)]
    assert resources.free == {"CPU": 0}
    assert refused(resources, CPU=0.0001)
    for allocation in held:
        resources.release(allocation)
    assert to_amounts(resources.free) == {"CPU": 1.0}


def test_what_does_not_fit_changes_nothing() -> None:
    resources = NodeResources({"CPU": 2, "memory": 100})
    before = dict(resources.free)
    assert refused(resources, CPU=1, memory=101)
    assert refused(resources, CPU=1, spider=1)
    assert resources.free == before


def test_a_request_for_nothing_always_fits() -> None:
    resources = NodeResources({})
    assert take(resources).gpu_ids == []
    assert take(resources, CPU=0).units == {}


@pytest.mark.parametrize("amount", [-1, -1e-9, math.nan, math.inf, 1e300])
def test_senseless_amounts(amount: float) -> None:
    with pytest.raises(ValueError, match="CPU must be a number"):
        to_units({"CPU": amount})


def test_gpus_are_whole_or_a_fraction_of_one() -> None:
    with pytest.raises(ValueError, match="GPU"):
        to_units({"GPU": 1.5})
    with pytest.raises(ValueError, match="whole number of GPUs"):
        NodeResources({"GPU": 0.5})


def test_gpus_are_told_apart() -> None:
    resources = NodeResources({"GPU": 3})
    first, second = take(resources, GPU=1), take(resources, GPU=2)
    assert sorted(first.gpu_ids + second.gpu_ids) == [0, 1, 2]
    resources.release(first)
    assert take(resources, GPU=1).gpu_ids == first.gpu_ids


def test_fractions_of_a_gpu_share_an_instance_and_never_span_two() -> None:
    resources = NodeResources({"GPU": 2})
    halves = [take(resources, GPU=0.6), take(resources, GPU=0.4)]
    # The second went where the first had left room, so that a whole one is left.
    assert halves[0].gpu_ids == halves[1].gpu_ids
    third = take(resources, GPU=0.5)
    assert third.gpu_ids != halves[0].gpu_ids
    resources.release(halves[1])
    # 0.4 and 0.5 are free, on two instances.
    assert refused(resources, GPU=0.6)
    assert refused(resources, GPU=1)


def test_blocked_lends_cpus_only() -> None:
    resources = NodeResources({"CPU": 1, "GPU": 1})
    waiting = take(resources, CPU=1, GPU=1)
    resources.block(waiting)
    assert to_amounts(resources.free) == {"CPU": 1.0, "GPU": 0.0}
    nested = take(resources, CPU=1)
    resources.resume(waiting)
    assert to_amounts(resources.free)["CPU"] == -1.0
    assert refused(resources, CPU=0.1)
    resources.release(nested)
    assert to_amounts(resources.free)["CPU"] == 0.0
    resources.release(waiting)
    assert to_amounts(resources.free) == {"CPU": 1.0, "GPU": 1.0}


def test_released_while_blocked_gives_the_cpus_back_once() -> None:
    resources = NodeResources({"CPU": 2})
    allocation = take(resources, CPU=1)
    resources.block(allocation)
    resources.block(allocation)
    resources.release(allocation)
    resources.release(allocation)
    resources.resume(allocation)
    assert to_amounts(resources.free) == {"CPU": 2.0}


def test_describe() -> None:
    assert describe(to_units({"CPU": 2, "GPU": 0.5})) == "2 CPU, 0.5 GPU"
    assert describe({}) == "nothing"


amounts = st.fixed_dictionaries(
    {},
    optional={
        "CPU": st.integers(0, 4 * UNIT).map(lambda n: n / UNIT),
        "GPU": st.one_of(st.integers(0, 4), st.integers(1, UNIT).map(lambda n: n / UNIT)),
        "memory": st.integers(0, 2000),
    },
)


class Accounting(RuleBasedStateMachine):
    """Whatever happens, what is free and what is held add up to the total."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.resources = NodeResources({"CPU": 4, "GPU": 3, "memory": 1000})
        self.living: list[Allocation] = []

    @rule(target=held, wanted=amounts)
    def acquire(self, wanted: dict[str, float]) -> object:
        units = to_units(wanted)
        fits = self.resources.fits(units)
        before = dict(self.resources.free)
        allocation = self.resources.acquire(units)
        assert (allocation is not None) == fits
        if allocation is None:
            assert self.resources.free == before
            return Allocation({}, [])
        self.living.append(allocation)
        return allocation

    @rule(allocation=consumes(held))
    def release(self, allocation: Allocation) -> None:
        self.resources.release(allocation)
        if allocation in self.living:
            self.living.remove(allocation)

    @rule(allocation=held)
    def block(self, allocation: Allocation) -> None:
        self.resources.block(allocation)

    @rule(allocation=held)
    def resume(self, allocation: Allocation) -> None:
        self.resources.resume(allocation)

    @invariant()
    def nothing_is_lost(self) -> None:
        for name, total in self.resources.total.items():
            taken = sum(
                a.units.get(name, 0) for a in self.living if not (name == "CPU" and a.blocked)
            )
            assert self.resources.free[name] == total - taken
            assert name == "CPU" or self.resources.free[name] >= 0

    @invariant()
    def no_gpu_is_given_twice(self) -> None:
        used: dict[int, int] = {}
        for allocation in self.living:
            for instance, count in allocation.gpus:
                used[instance] = used.get(instance, 0) + count
            wanted: Units = allocation.units
            assert sum(count for _, count in allocation.gpus) == wanted.get("GPU", 0)
        assert all(count <= UNIT for count in used.values())
        assert set(used) <= {0, 1, 2}


TestAccounting = Accounting.TestCase
