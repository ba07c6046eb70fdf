"""Who is served first, who is called in, who is warned: the queue of leases and actors."""

from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skate.engine.base import Strategy
from skate.runtime.amounts import add_units, to_amounts, to_units
from skate.runtime.node import scheduler as module
from skate.runtime.node.bundles import Bundle
from skate.runtime.node.requests import Request
from skate.runtime.node.resources import NodeResources
from skate.runtime.node.scheduler import Grant, Scheduler

ALICE, BOB, CARL = b"alice", b"bob", b"carl"


class Desk:
    """A scheduler with a clock and numbers for workers and requests."""

    def __init__(self, **resources: float) -> None:
        self.scheduler = Scheduler(NodeResources(resources))
        self.now = 0.0
        self._number = 0
        #: All bundles of placement groups that were ever reserved.
        self.bundles: list[Bundle] = []

    def number(self) -> int:
        """Return a number that nobody has had."""
        self._number += 1
        return self._number

    def ask(
        self,
        holder: bytes = ALICE,
        depth: int = 0,
        name: str = "f",
        actor: bytes = b"",
        **want: float,
    ) -> Request:
        self._number += 1
        request = Request(holder, want, depth, name, self._number, actor)
        self.scheduler.submit(request, self.now)
        return request

    def serve(self) -> list[Grant]:
        """Grant everything that can be granted, to fresh workers."""
        grants = []
        for request in self.scheduler.runnable(self.now):
            if request.group_id:
                assert self.scheduler.reserve(request), "runnable, but it does not fit"
                self.scheduler.reservations.commit(request.group_id)
                self.bundles += self.scheduler.reservations.pools((request.group_id, -1))
                continue
            self._number += 1
            grant = self.scheduler.grant(request, b"w%d" % self._number)
            assert grant is not None, "runnable, but it does not fit"
            grants.append(grant)
        return grants

    def lease(self, holder: bytes = ALICE, **want: float) -> Grant:
        request = self.ask(holder, **want)
        [grant] = [g for g in self.serve() if g.request is request]
        return grant


# --------------------------------------------------------------------------- order


def test_first_come_first_served() -> None:
    desk = Desk(CPU=2)
    requests = [desk.ask(CPU=1) for _ in range(4)]
    assert [g.request for g in desk.serve()] == requests[:2]
    assert desk.scheduler.queue == requests[2:]


def test_deeper_requests_come_first() -> None:
    desk = Desk(CPU=1)
    shallow = desk.ask(depth=0, CPU=1)
    deep = desk.ask(depth=2, CPU=1)
    middle = desk.ask(depth=1, CPU=1)
    assert desk.scheduler.queue == [deep, middle, shallow]
    [grant] = desk.serve()
    assert grant.request is deep


def test_smaller_ones_pass_one_that_does_not_fit() -> None:
    desk = Desk(CPU=2)
    desk.lease(CPU=1)
    desk.ask(CPU=2)
    small = desk.ask(BOB, CPU=1)
    assert [g.request for g in desk.serve()] == [small]


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    desk = Desk(CPU=2)
    held = [desk.lease(BOB, CPU=1), desk.lease(BOB, CPU=1)]
    large = desk.ask(CPU=2)
    desk.now += module.PATIENCE_SECONDS
    desk.ask(CARL, CPU=1)
    for grant in held:
        desk.scheduler.release(grant)
        served = desk.serve()
    assert [g.request for g in served] == [large]


def test_what_a_large_request_keeps_to_itself_it_yields_again() -> None:
    # A holder may wait, without saying so, for one of the small ones.
    desk = Desk(CPU=2)
    desk.lease(BOB, CPU=1)
    desk.ask(CPU=2)
    small = desk.ask(CARL, CPU=1)
    desk.now += module.PATIENCE_SECONDS
    assert desk.serve() == []
    desk.now += module.RESERVE_SECONDS
    assert [g.request for g in desk.serve()] == [small]


def test_nothing_is_kept_for_a_request_that_waits_for_an_actor_to_end() -> None:
    desk = Desk(CPU=2)
    desk.ask(actor=b"a", CPU=1)
    desk.serve()
    desk.ask(CPU=2)
    desk.now += module.PATIENCE_SECONDS
    small = desk.ask(CARL, CPU=1)
    assert [g.request for g in desk.serve()] == [small]


def test_cancelled_requests_are_not_served() -> None:
    desk = Desk(CPU=1)
    first, second = desk.ask(CPU=1), desk.ask(CPU=1)
    assert desk.scheduler.cancel(first.key) is first
    assert desk.scheduler.cancel(first.key) is None
    assert [g.request for g in desk.serve()] == [second]


def test_the_requests_of_the_dead_are_dropped_but_not_those_for_actors() -> None:
    desk = Desk(CPU=1)
    desk.ask(ALICE, CPU=1)
    actor = desk.ask(ALICE, actor=b"a", CPU=1)
    other = desk.ask(BOB, CPU=1)
    desk.scheduler.cancel_all_of(ALICE)
    assert desk.scheduler.queue == [actor, other]


def test_a_request_with_the_number_of_another_replaces_it() -> None:
    scheduler = Scheduler(NodeResources({"CPU": 4}))
    scheduler.submit(Request(ALICE, {"CPU": 1}, 0, "f", 7), 0.0)
    again = Request(ALICE, {"CPU": 2}, 0, "f", 7)
    scheduler.submit(again, 0.0)
    assert scheduler.queue == [again]


def test_senseless_resources_are_refused() -> None:
    with pytest.raises(ValueError, match="CPU"):
        Request(ALICE, {"CPU": math.nan}, 0, "f")


# --------------------------------------------------------------------------- leases


def test_only_its_holder_returns_a_lease() -> None:
    desk = Desk(CPU=1)
    grant = desk.lease(ALICE, CPU=1)
    assert desk.scheduler.lease(grant.grant_id, BOB) is None
    assert desk.scheduler.lease(grant.grant_id + 1, ALICE) is None
    assert desk.scheduler.lease(grant.grant_id, ALICE) is grant


def test_an_actors_grant_is_no_lease() -> None:
    desk = Desk(CPU=1)
    desk.ask(ALICE, actor=b"a", CPU=1)
    [grant] = desk.serve()
    assert desk.scheduler.lease(grant.grant_id, ALICE) is None
    assert desk.scheduler.leases_of(ALICE) == []
    assert desk.scheduler.grant_of(grant.worker_id) is grant


def test_blocked_workers_make_room_and_take_it_back() -> None:
    desk = Desk(CPU=1)
    grant = desk.lease(ALICE, CPU=1)
    nested = desk.ask(grant.worker_id, depth=1, CPU=1)
    assert desk.serve() == []
    desk.scheduler.blocked(grant.worker_id)
    assert [g.request for g in desk.serve()] == [nested]
    desk.scheduler.resumed(grant.worker_id)
    desk.ask(BOB, CPU=1)
    assert desk.serve() == []
    desk.scheduler.release(grant)
    assert desk.serve() == []  # the nested one still runs


# --------------------------------------------------------------------------- recalls


def test_a_lease_is_recalled_once_for_somebody_who_has_none() -> None:
    desk = Desk(CPU=2)
    leases = [desk.lease(ALICE, CPU=1) for _ in range(2)]
    desk.ask(BOB, CPU=1)
    [called] = desk.scheduler.recalls()
    assert called in leases
    assert desk.scheduler.recalls() == []


def test_equal_shares_are_left_alone() -> None:
    desk = Desk(CPU=2)
    desk.lease(ALICE, CPU=1)
    desk.lease(BOB, CPU=1)
    desk.ask(ALICE, CPU=1)
    desk.ask(BOB, CPU=1)
    assert desk.scheduler.recalls() == []


def test_many_requests_of_one_asker_take_no_more_than_its_share() -> None:
    desk = Desk(CPU=4)
    for _ in range(4):
        desk.lease(ALICE, CPU=1)
    for _ in range(4):
        desk.ask(BOB, CPU=1)
    called = desk.scheduler.recalls() + desk.scheduler.recalls()
    assert len(called) == 2


def test_the_askers_own_leases_of_another_shape_are_recalled() -> None:
    desk = Desk(CPU=2)
    leases = [desk.lease(ALICE, CPU=1) for _ in range(2)]
    desk.ask(ALICE, CPU=2)
    assert desk.scheduler.recalls() == leases


def test_the_askers_own_leases_of_the_same_shape_are_not() -> None:
    desk = Desk(CPU=1)
    desk.lease(ALICE, CPU=1)
    desk.ask(ALICE, CPU=1)
    assert desk.scheduler.recalls() == []


def test_an_actor_that_waits_calls_leases_in() -> None:
    desk = Desk(CPU=1)
    lease = desk.lease(ALICE, CPU=1)
    desk.ask(ALICE, actor=b"a", CPU=1)
    assert desk.scheduler.recalls() == [lease]


def test_leases_that_hold_nothing_of_use_are_left_alone() -> None:
    desk = Desk(CPU=2, spider=1)
    desk.lease(ALICE, CPU=1)
    waiting = desk.lease(ALICE, CPU=1)
    spider = desk.lease(ALICE, spider=1)
    # Its CPUs are lent to others already.
    desk.scheduler.blocked(waiting.worker_id)
    desk.ask(BOB, spider=1)
    assert desk.scheduler.recalls() == [spider]


def test_nothing_is_recalled_for_what_can_be_served_or_never_can() -> None:
    desk = Desk(CPU=2)
    desk.lease(ALICE, CPU=1)
    desk.ask(BOB, CPU=1)
    assert desk.scheduler.recalls() == []
    desk.serve()
    desk.ask(CARL, CPU=3)
    assert desk.scheduler.recalls() == []


# --------------------------------------------------------------------------- warnings


def test_what_does_not_exist_is_said_at_once_and_rarely_again() -> None:
    desk = Desk(CPU=2)
    for _ in range(3):
        desk.ask(name="train", CPU=3)
    [text] = desk.scheduler.warnings(desk.now)
    assert "task train (3 times)" in text
    assert "3 CPU" in text
    assert "2 CPU in all" in text
    desk.now += module.REMIND_SECONDS - 1
    assert desk.scheduler.warnings(desk.now) == []
    desk.now += 1
    assert len(desk.scheduler.warnings(desk.now)) == 1


def test_what_actors_hold_is_said_after_a_while() -> None:
    desk = Desk(CPU=1)
    desk.ask(actor=b"a", name="Keeper", CPU=1)
    desk.serve()
    desk.ask(name="f", CPU=1)
    assert desk.scheduler.warnings(desk.now) == []
    desk.now += module.HELD_SECONDS
    [text] = desk.scheduler.warnings(desk.now)
    assert "task f cannot start" in text
    assert "actors hold 1 CPU" in text


def test_ordinary_waiting_is_no_news() -> None:
    desk = Desk(CPU=1)
    desk.lease(ALICE, CPU=1)
    desk.ask(BOB, CPU=1)
    assert desk.scheduler.warnings(desk.now + 1000) == []


# --------------------------------------------------------------------------- all together

shapes = st.sampled_from([{"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 0.5, "GPU": 0.5}, {}, {"GPU": 1.0}])
holders = st.sampled_from([ALICE, BOB, CARL])


class Service(RuleBasedStateMachine):
    """Requests, grants, waits, returns and deaths in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(CPU=3, GPU=2)
        self.scheduler = self.desk.scheduler
        self.actors = 0
        self.groups: list[bytes] = []

    @rule(holder=holders, want=shapes, depth=st.integers(0, 3))
    def ask(self, holder: bytes, want: dict[str, float], depth: int) -> None:
        self.desk.ask(holder, depth, **want)

    @rule(holder=holders, want=shapes)
    def ask_for_an_actor(self, holder: bytes, want: dict[str, float]) -> None:
        self.actors += 1
        self.desk.ask(holder, 0, "A", b"a%d" % self.actors, **want)

    @rule()
    def serve(self) -> None:
        waiting = list(self.scheduler.queue)
        grants = self.desk.serve()
        positions = [waiting.index(grant.request) for grant in grants]
        assert positions == sorted(positions)

    @rule(seconds=st.floats(0.1, 20))
    def pass_time(self, seconds: float) -> None:
        self.desk.now += seconds

    @precondition(lambda self: self.scheduler.grants)
    @rule(data=st.data())
    def end_one(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(list(self.scheduler.grants.values())))
        self.scheduler.release(grant)

    @precondition(lambda self: self.scheduler.grants)
    @rule(data=st.data(), blocks=st.booleans())
    def wait_or_go_on(self, data: st.DataObject, blocks: bool) -> None:
        grant = data.draw(st.sampled_from(list(self.scheduler.grants.values())))
        change = self.scheduler.blocked if blocks else self.scheduler.resumed
        change(grant.worker_id)

    @rule(holder=holders)
    def die(self, holder: bytes) -> None:
        self.scheduler.cancel_all_of(holder)
        for grant in self.scheduler.leases_of(holder):
            self.scheduler.release(grant)

    @rule()
    def recall(self) -> None:
        before = {g.grant_id for g in self.scheduler.grants.values() if g.recalled}
        for grant in self.scheduler.recalls():
            assert grant.grant_id not in before
            assert not grant.request.actor_id
        assert self.scheduler.recalls() == [] or self.scheduler.queue

    @rule(holder=holders, bundles=st.lists(shapes.filter(bool), min_size=1, max_size=3))
    def make_a_group(self, holder: bytes, bundles: list[dict[str, float]]) -> None:
        group_id = b"g%d" % len(self.groups)
        self.groups.append(group_id)
        parts = {n: to_units(bundle) for n, bundle in enumerate(bundles)}
        self.scheduler.submit(Request.for_group(holder, group_id, parts, "g"), self.desk.now)

    @precondition(lambda self: self.groups)
    @rule(data=st.data(), holder=holders, want=shapes, bundle=st.integers(-1, 2))
    def ask_inside(
        self, data: st.DataObject, holder: bytes, want: dict[str, float], bundle: int
    ) -> None:
        where = Strategy(data.draw(st.sampled_from(self.groups)), bundle)
        request = Request(holder, want, 0, "f", self.desk.number(), strategy=where)
        self.scheduler.submit(request, self.desk.now)

    @precondition(lambda self: self.groups)
    @rule(data=st.data())
    def remove_a_group(self, data: st.DataObject) -> None:
        group_id = data.draw(st.sampled_from(self.groups))
        self.scheduler.cancel(group_id)
        self.scheduler.cancel_place(group_id)
        self.scheduler.reservations.remove(group_id)

    @invariant()
    def the_queue_is_in_order(self) -> None:
        orders = [request.order for request in self.scheduler.queue]
        assert orders == sorted(orders)

    @invariant()
    def resources_add_up(self) -> None:
        node = self.scheduler.resources
        # A bundle is held by its group until that has ended and nobody is left in it.
        groups = add_units(
            b.allocation.units for b in self.desk.bundles if not b.allocation.released
        )
        for pool in [node, *self.desk.bundles]:
            for name, total in pool.total.items():
                held = sum(
                    g.request.units.get(name, 0)
                    for g in self.scheduler.grants.values()
                    if g.pool is pool and not (name == "CPU" and g.allocation.blocked)
                )
                held += groups.get(name, 0) if pool is node else 0
                assert pool.free[name] == total - held

    def teardown(self) -> None:
        """When everything ends, everything that can ever be served is served."""
        for group_id in self.groups:
            self.scheduler.cancel(group_id)
            self.scheduler.cancel_place(group_id)
            self.scheduler.reservations.remove(group_id)
        for grant in list(self.scheduler.grants.values()):
            self.scheduler.release(grant)
        self.desk.now += module.PATIENCE_SECONDS + module.RESERVE_SECONDS
        while self.scheduler.queue:
            grants = self.desk.serve()
            assert grants, "requests that fit an empty node wait for ever"
            for grant in grants:
                self.scheduler.release(grant)
        assert self.scheduler.resources.free == self.scheduler.resources.total
        assert not any(self.scheduler.resources.held.values())


TestService = Service.TestCase


# --------------------------------------------------------------------------- placement groups

GROUP = b"group"


def with_group(desk: Desk, *bundles: dict[str, float]) -> None:
    """Reserve and commit a group."""
    parts = {n: to_units(bundle) for n, bundle in enumerate(bundles)}
    request = Request.for_group(ALICE, GROUP, parts, "g")
    desk.scheduler.submit(request, desk.now)
    assert request in desk.scheduler.runnable(desk.now)
    assert desk.scheduler.reserve(request)
    desk.scheduler.reservations.commit(GROUP)


def inside(desk: Desk, bundle: int = -1, holder: bytes = ALICE, **want: float) -> Request:
    request = Request(holder, want, 0, "f", desk.number(), strategy=Strategy(GROUP, bundle))
    desk.scheduler.submit(request, desk.now)
    return request


def test_what_belongs_to_a_group_is_served_from_its_bundles() -> None:
    desk = Desk(CPU=2)
    with_group(desk, {"CPU": 1}, {"CPU": 1})
    outside = desk.ask(CPU=1)
    first, second, third = inside(desk, CPU=1), inside(desk, 0, CPU=1), inside(desk, CPU=1)
    assert [g.request for g in desk.serve()] == [first, third]
    assert desk.scheduler.queue == [outside, second]


def test_a_request_waits_for_a_group_that_is_not_there_yet() -> None:
    desk = Desk(CPU=1)
    request = inside(desk, CPU=1)
    assert desk.serve() == []
    assert desk.scheduler.warnings(desk.now + 100) == []
    with_group(desk, {"CPU": 1})
    assert [g.request for g in desk.serve()] == [request]


def test_a_removed_group_gives_back_what_it_held_with_its_last_worker() -> None:
    desk = Desk(CPU=3)
    with_group(desk, {"CPU": 2}, {"CPU": 1})
    inside(desk, 0, CPU=1)
    [grant] = desk.serve()
    late = inside(desk, 0, CPU=2)
    assert desk.scheduler.grants_in(GROUP, None) == [grant]
    assert desk.scheduler.grants_in(GROUP, {1}) == []
    desk.scheduler.reservations.remove(GROUP)
    assert desk.scheduler.cancel_place(GROUP) == [late]
    assert to_amounts(desk.scheduler.resources.free) == {"CPU": 1.0}
    desk.scheduler.release(grant)
    assert to_amounts(desk.scheduler.resources.free) == {"CPU": 3.0}
    assert not any(desk.scheduler.resources.held.values())


def test_leases_are_called_in_for_a_group_and_within_it() -> None:
    desk = Desk(CPU=2)
    held = [desk.lease(CPU=1), desk.lease(CPU=1)]
    parts = {0: to_units({"CPU": 1}), 1: to_units({"CPU": 1})}
    request = Request.for_group(ALICE, GROUP, parts, "g")
    desk.scheduler.submit(request, desk.now)
    assert sorted(desk.scheduler.recalls(), key=lambda g: g.grant_id) == held
    for grant in held:
        desk.scheduler.release(grant)
    assert desk.scheduler.reserve(request)
    desk.scheduler.reservations.commit(GROUP)
    inside(desk, 0, ALICE, CPU=1)
    [grant] = desk.serve()
    inside(desk, 0, BOB, CPU=1)
    assert desk.scheduler.recalls() == [grant]


def test_a_group_and_what_is_in_it_are_named_in_warnings() -> None:
    desk = Desk(CPU=2)
    with_group(desk, {"CPU": 1}, {"CPU": 1})
    desk.scheduler.submit(
        Request.for_group(ALICE, b"other", {0: to_units({"CPU": 1})}, "'x'"), desk.now
    )
    inside(desk, CPU=2)
    desk.now += module.HELD_SECONDS
    other, within = sorted(desk.scheduler.warnings(desk.now))
    assert "placement group 'x' cannot start: asked for 1 CPU, but of 2 CPU" in other
    assert "actors and placement groups hold 2 CPU" in other
    assert "task f cannot start: asked for 2 CPU, but its placement group has only 1 CPU" in within


def test_parts_of_a_group_get_gpus_of_their_own() -> None:
    desk = Desk(GPU=2)
    parts = {n: to_units({"GPU": 0.6}) for n in range(2)}
    request = Request.for_group(ALICE, GROUP, parts, "g")
    desk.scheduler.submit(request, desk.now)
    assert desk.scheduler.reserve(request)
    desk.scheduler.reservations.commit(GROUP)
    gpus = [bundle.allocation.gpu_ids for bundle in desk.scheduler.reservations.pools((GROUP, -1))]
    assert gpus == [[0], [1]]
    third = Request.for_group(ALICE, b"other", {0: to_units({"GPU": 0.6})}, "h")
    assert not desk.scheduler.reserve(third)
    inside(desk, 1, GPU=0.5)
    [grant] = desk.serve()
    assert grant.allocation.gpu_ids == [1]


def test_a_process_swaps_leases_for_another_use_but_not_for_the_same() -> None:
    desk = Desk(CPU=1)
    grant = desk.lease(ALICE, CPU=1)
    desk.ask(ALICE, CPU=1)
    assert desk.scheduler.recalls() == []
    other = Request(ALICE, {"CPU": 1}, 0, "f", desk.number(), strategy=Strategy(spread=True))
    desk.scheduler.submit(other, desk.now)
    assert desk.scheduler.recalls() == [grant]
