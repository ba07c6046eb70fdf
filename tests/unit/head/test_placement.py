"""Which node gets which bundle: every plan fits, and the strict strategies keep their word."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.runtime.amounts import Units, add_units, covers, to_units
from skate.runtime.head.placement import STRATEGIES, NodeView, plan, why_not


def node(name: str, free: dict[str, float] | None = None, **total: float) -> NodeView:
    """A node with these totals, all free unless ``free`` says otherwise."""
    return NodeView(name.encode(), to_units(total), to_units(total if free is None else free))


def cpus(*amounts: float) -> list[Units]:
    return [to_units({"CPU": amount}) for amount in amounts]


def names(plan: list[bytes] | None) -> str:
    assert plan is not None
    return " ".join(name.decode() for name in plan)


# --------------------------------------------------------------------------- one by one


def test_pack_uses_one_node_if_it_can_and_the_fullest_that_fits() -> None:
    nodes = [node("big", CPU=8), node("small", CPU=2)]
    assert names(plan(cpus(1, 1), "PACK", nodes)) == "small small"
    assert names(plan(cpus(1, 2), "PACK", nodes)) == "big big"


def test_pack_takes_a_second_node_if_it_must() -> None:
    nodes = [node("a", CPU=2), node("b", CPU=2)]
    assert names(plan(cpus(1, 1, 1), "PACK", nodes)) == "a a b"
    assert plan(cpus(1, 1, 1), "STRICT_PACK", nodes) is None


def test_spread_uses_all_nodes_then_some_twice() -> None:
    nodes = [node("a", CPU=4), node("b", CPU=4)]
    assert sorted(plan(cpus(1, 1), "SPREAD", nodes) or []) == [b"a", b"b"]
    assert sorted(plan(cpus(1, 1, 1, 1), "SPREAD", nodes) or []) == [b"a", b"a", b"b", b"b"]


def test_strict_spread_moves_a_bundle_to_make_room_for_another() -> None:
    nodes = [node("gpu", CPU=4, GPU=1), node("plain", CPU=8)]
    bundles = [to_units({"CPU": 4}), to_units({"CPU": 1, "GPU": 1})]
    assert names(plan(bundles, "STRICT_SPREAD", nodes)) == "plain gpu"


def test_what_is_in_use_counts_unless_the_plan_is_for_later() -> None:
    nodes = [node("a", {"CPU": 0.5}, CPU=2)]
    assert plan(cpus(1), "PACK", nodes) is None
    assert plan(cpus(1), "PACK", nodes, whole=True) == [b"a"]
    assert why_not(cpus(1), "PACK", nodes) == ""


def test_overdrawn_cpus_are_no_room() -> None:
    view = NodeView(b"a", to_units({"CPU": 1}), {"CPU": -10_000})
    assert plan(cpus(0.1), "SPREAD", [view]) is None


@pytest.mark.parametrize(
    ("bundles", "strategy", "nodes", "says"),
    [
        (cpus(1, 9), "PACK", [node("a", CPU=4)], "bundle 1 asks for 9 CPU, which no node has"),
        (cpus(1, 1), "STRICT_SPREAD", [node("a", CPU=4)], "2 bundles on as many nodes, and there"),
        (cpus(3, 3), "STRICT_PACK", [node("a", CPU=4), node("b", CPU=4)], "6 CPU in all"),
        (cpus(3, 3), "PACK", [node("a", CPU=4)], "6 CPU together, but this session has one node"),
        (cpus(1), "PACK", [], "nodes have nothing"),
        ([to_units({"spider": 1})], "SPREAD", [node("a", CPU=4)], "1 spider"),
    ],
)
def test_it_says_why_there_will_never_be_a_plan(
    bundles: list[Units], strategy: str, nodes: list[NodeView], says: str
) -> None:
    assert says in why_not(bundles, strategy, nodes)


# --------------------------------------------------------------------------- anything

amounts = st.dictionaries(
    st.sampled_from(["CPU", "GPU", "widget"]), st.integers(1, 4), min_size=1
).map(lambda given: to_units({name: float(number) for name, number in given.items()}))
views = st.lists(amounts, max_size=4).map(
    lambda totals: [NodeView(b"%d" % n, units, units) for n, units in enumerate(totals)]
)


@given(st.lists(amounts, min_size=1, max_size=4), st.sampled_from(STRATEGIES), views)
def test_whatever_is_planned_fits_and_keeps_the_strategys_word(
    bundles: list[Units], strategy: str, nodes: list[NodeView]
) -> None:
    found = plan(bundles, strategy, nodes)
    assert (found is None) == bool(why_not(bundles, strategy, nodes))
    if found is None:
        return
    assert len(found) == len(bundles)
    for view in nodes:
        here = [units for name, units in zip(found, bundles, strict=True) if name == view.node_id]
        assert covers(view.available, add_units(here))
    if strategy == "STRICT_PACK":
        assert len(set(found)) == 1
    if strategy == "STRICT_SPREAD":
        assert len(set(found)) == len(bundles)
    if strategy == "PACK" and plan(bundles, "STRICT_PACK", nodes):
        assert len(set(found)) == 1
    if strategy == "SPREAD" and plan(bundles, "STRICT_SPREAD", nodes):
        assert len(set(found)) == len(bundles)


@given(st.lists(amounts, min_size=1, max_size=4), views)
def test_a_strict_spread_is_found_whenever_there_is_one(
    bundles: list[Units], nodes: list[NodeView]
) -> None:
    exists = any(
        all(covers(view.available, units) for view, units in zip(chosen, bundles, strict=True))
        for chosen in itertools.permutations(nodes, len(bundles))
    )
    assert (plan(bundles, "STRICT_SPREAD", nodes) is not None) == exists


@given(st.lists(amounts, min_size=1, max_size=4), views)
def test_a_strict_pack_is_found_whenever_there_is_one(
    bundles: list[Units], nodes: list[NodeView]
) -> None:
    exists = any(covers(view.available, add_units(bundles)) for view in nodes)
    assert (plan(bundles, "STRICT_PACK", nodes) is not None) == exists
