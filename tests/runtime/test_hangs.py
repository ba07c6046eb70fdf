"""Calls that wait for each other in a circle, or unusually long, are told of."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable

import pytest

import skate
from skate.util import rpdb

pytestmark = pytest.mark.timeout(120)


@skate.remote
class Caller:
    """Calls another one and waits for it."""

    def meet(self, other, barrier):
        skate.get(barrier.arrive.remote())
        return skate.get(other.ping.remote())

    def ping(self):
        return "pong"

    def there_and_back(self, other, this):
        return skate.get(other.back.remote(this))

    def back(self, other):
        return skate.get(other.ping.remote())


@skate.remote
class Barrier:
    """Lets calls go when all have come."""

    def __init__(self, parties):
        self.left = parties
        self.complete = asyncio.Event()

    async def arrive(self):
        self.left -= 1
        if self.left == 0:
            self.complete.set()
        await self.complete.wait()


@skate.remote
def nap(seconds):
    time.sleep(seconds)
    return seconds


def warnings_with(caplog: pytest.LogCaptureFixture, text: str, count: int = 1) -> list[str]:
    """Wait until so many warnings with this text have come."""
    deadline = time.monotonic() + 50
    while True:
        skate.wait([skate.put(None)], timeout=0.01)
        found = [message for message in list(caplog.messages) if text in message]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, caplog.messages
        time.sleep(0.02)


def test_actors_that_wait_for_each_other(cluster, caplog):
    cluster(num_cpus=2, hang_warning_s=None)
    one, two = Caller.options(name="one").remote(), Caller.options(name="two").remote()
    barrier = Barrier.remote(2)
    with caplog.at_level(logging.WARNING, logger="skate"):
        first, second = one.meet.remote(two, barrier), two.meet.remote(one, barrier)
        [text] = warnings_with(caplog, "circle")
        assert "calls wait for each other in a circle and will never end" in text
        assert f"Caller.meet (pid {pid_of(one)})" in text
        assert f"Caller.meet (pid {pid_of(two)})" in text
        assert text.count(f"waits in get() at {__file__}:") == 2
        assert "in meet()" in text
        assert text.startswith("2 calls wait")
        behind = f"Caller.ping (pid {pid_of(two)}), which is queued behind Caller.meet"
        assert behind in text
        # Told once; breaking the circle lets the other one go on.
        skate.kill(one)
        with pytest.raises(skate.exceptions.ActorDiedError):
            skate.get(first, timeout=50)
        with pytest.raises(skate.exceptions.ActorDiedError):
            skate.get(second, timeout=50)
        assert skate.get(two.ping.remote(), timeout=50) == "pong"
    assert len([message for message in caplog.messages if "circle" in message]) == 1


def pid_of(actor) -> int:
    from skate.state import list_actors

    [row] = [row for row in list_actors() if row.actor_id == actor._actor_id.hex()]
    assert row.pid is not None
    return row.pid


def test_calls_that_can_go_on_are_not_told_of(cluster, caplog, monkeypatch):
    cluster(num_cpus=2, hang_warning_s=None)
    with caplog.at_level(logging.WARNING, logger="skate"):
        one, two = Caller.remote(), Caller.remote()
        # Back into the actor that waits: it runs there.
        assert skate.get(one.there_and_back.remote(two, one), timeout=50) == "pong"
        # An actor with a thread to spare.
        wide = Caller.options(max_concurrency=3)
        three, four = wide.remote(), wide.remote()
        barrier = Barrier.remote(2)
        refs = [three.meet.remote(four, barrier), four.meet.remote(three, barrier)]
        assert skate.get(refs, timeout=50) == ["pong", "pong"]

        # Blocked long enough to be looked at.
        @skate.remote
        def outer():
            return skate.get(nap.remote(2.5))

        assert skate.get(outer.remote(), timeout=50) == 2.5
    assert not caplog.messages


def test_a_long_wait_says_what_the_other_one_does(cluster, caplog):
    cluster(num_cpus=2, hang_warning_s=1)

    @skate.remote
    def outer():
        return skate.get(nap.remote(8))

    with caplog.at_level(logging.WARNING, logger="skate"):
        assert skate.get(outer.remote(), timeout=None) == 8
        first, *more = warnings_with(caplog, "the driver")
    head, *chain = first.splitlines()
    assert "waits in get() at" in head
    assert f"{__file__}:" in head
    assert "in test_a_long_wait_says_what_the_other_one_does() for" in head
    assert "for outer (pid" in chain[0]
    assert "which waits in get() at" in chain[0]
    assert "for nap (pid" in chain[1]
    assert f"which runs at {__file__}:" in chain[1]
    assert "in nap()" in chain[1]
    # After 1, 2, 4 seconds; the inner wait is named in these and not told of by itself.
    assert len(more) <= 2
    assert not [text for text in caplog.messages if text.startswith("outer")]


def test_a_long_wait_for_resources(cluster, caplog):
    cluster(num_cpus=1, num_gpus=1, hang_warning_s=1)

    @skate.remote(num_gpus=1)
    class Holder:
        def ping(self):
            return 1

    holder = Holder.remote()
    assert skate.get(holder.ping.remote()) == 1

    @skate.remote(num_gpus=1)
    def wants():
        return 2

    with caplog.at_level(logging.WARNING, logger="skate"):
        ref = wants.remote()
        waiter = threading.Thread(target=lambda: skate.get(ref, timeout=None))
        waiter.start()
        [text, *_] = warnings_with(caplog, "a thread of the driver")
        assert "which waits for a worker with {" in text
        assert "GPU: 1" in text
        del holder
        waiter.join(50)
        assert not waiter.is_alive()


def test_bounded_waits_and_breakpoints_are_not_hangs(cluster, caplog):
    cluster(num_cpus=1, hang_warning_s=1)

    @skate.remote
    def stops():
        breakpoint()

    with caplog.at_level(logging.WARNING, logger="skate"):
        with pytest.raises(skate.exceptions.GetTimeoutError):
            skate.get(nap.remote(60), timeout=4)
        ref = stops.remote()
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            skate.wait([ref], timeout=0.5)
        for point in rpdb.waiting(str(skate.init(ignore_reinit_error=True)["session_dir"])):
            rpdb.attach(point).close()
    assert not [text for text in caplog.messages if "waits in" in text]


@pytest.mark.parametrize("wrong", [0, -1, "soon"])
def test_the_option_is_checked(wrong, cluster: Callable[..., None]):
    with pytest.raises((ValueError, TypeError), match="hang_warning_s"):
        cluster(hang_warning_s=wrong)


def test_a_circle_across_nodes(caplog):
    from skate.cluster_utils import Cluster

    skate.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {"here": 1}})
    try:
        nodes.add_node(num_cpus=1, resources={"there": 1})
        with caplog.at_level(logging.WARNING, logger="skate"):
            skate.init(address=nodes.address)
            one = Caller.options(resources={"here": 1}).remote()
            two = Caller.options(resources={"there": 1}).remote()
            barrier = Barrier.remote(2)
            refs = [one.meet.remote(two, barrier), two.meet.remote(one, barrier)]
            [text] = warnings_with(caplog, "circle")
            assert text.count("which is queued behind Caller.meet") == 2
            skate.kill(one)
            with pytest.raises(skate.exceptions.ActorDiedError):
                skate.get(refs[0], timeout=50)
    finally:
        skate.shutdown()
        nodes.shutdown()


@skate.remote(concurrency_groups={"few": 2})
class Recursive:
    """An async actor that awaits itself, in several ways."""

    async def down(self, this, depth, how="await"):
        if depth == 0:
            return 0
        ref = this.down.remote(this, depth - 1, how)
        if how == "gather":
            [below] = await asyncio.gather(ref)
        elif how == "task":
            below = await asyncio.create_task(self.below(ref))
        else:
            below = await ref
        return 1 + below

    async def below(self, ref):
        return await ref

    async def hopeful(self, this, depth):
        try:
            async with asyncio.timeout(3):
                return depth and 1 + await this.hopeful.remote(this, depth - 1)
        except TimeoutError:
            return 100

    async def beat(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(0.05)

    @skate.method(concurrency_group="few")
    async def down_in_group(self, this, depth):
        return depth and 1 + await this.down_in_group.remote(this, depth - 1)


def check_that_it_is_told(caplog, actor, ref, calls, limit):
    [text] = warnings_with(caplog, "circle")
    assert text.startswith(calls)
    assert "in a circle and will never end (deadlock):\n" in text
    name = f"Recursive (pid {pid_of(actor)})"
    call = re.escape(name).replace("Recursive", r"Recursive\.down\w*")
    assert re.search(f"{call} waits in await at {re.escape(__file__)}:", text)
    assert re.search(f"for {call}, which is queued behind {call}", text)
    assert f"({name} {limit})" in text
    assert "if more calls of the actor may run at the same time" in text
    # Told once; breaking the circle lets others go on.
    skate.cancel(ref)
    with pytest.raises(skate.exceptions.TaskCancelledError):
        skate.get(ref, timeout=50)
    assert skate.get(actor.down.remote(actor, 0), timeout=50) == 0
    assert len([message for message in caplog.messages if "circle" in message]) == 1


@pytest.mark.parametrize("how", ["await", "gather", "task"])
def test_an_async_actor_that_awaits_itself_deeper_than_its_limit(cluster, caplog, how):
    cluster(num_cpus=1, hang_warning_s=None)
    actor = Recursive.options(max_concurrency=3).remote()
    with caplog.at_level(logging.WARNING, logger="skate"):
        assert skate.get(actor.down.remote(actor, 2, how), timeout=50) == 2
        # Something that goes on all the time does not hide it.
        beats = actor.beat.remote(0.5)
        ref = actor.down.remote(actor, 7, how)
        skate.get(beats, timeout=50)
        check_that_it_is_told(
            caplog, actor, ref, "3 calls wait for each other", "has max_concurrency=3"
        )


@pytest.mark.parametrize("cpus", [0, 1])
def test_an_async_actor_with_one_call_at_a_time_awaits_itself(cluster, caplog, cpus):
    cluster(num_cpus=1, hang_warning_s=None)
    actor = Recursive.options(max_concurrency=1, num_cpus=cpus).remote()
    with caplog.at_level(logging.WARNING, logger="skate"):
        ref = actor.down.remote(actor, 1)
        check_that_it_is_told(
            caplog, actor, ref, "1 call waits for itself", "has max_concurrency=1"
        )


def test_a_concurrency_group_of_an_async_actor_that_awaits_itself(cluster, caplog):
    cluster(num_cpus=1, hang_warning_s=None)
    actor = Recursive.remote()
    with caplog.at_level(logging.WARNING, logger="skate"):
        # Another group goes on meanwhile.
        beats = actor.beat.remote(4)
        ref = actor.down_in_group.remote(actor, 2)
        limit = "runs 2 at a time in the group 'few'"
        check_that_it_is_told(caplog, actor, ref, "2 calls wait for each other", limit)
        skate.get(beats, timeout=50)


def test_two_async_actors_that_await_each_other(cluster, caplog):
    cluster(num_cpus=1, hang_warning_s=None)

    @skate.remote(max_concurrency=1)
    class Meets:
        async def meet(self, other, barrier):
            await barrier.arrive.remote()
            return await other.ping.remote()

        async def ping(self):
            return "pong"

    one, two = Meets.remote(), Meets.remote()
    barrier = Barrier.remote(2)
    with caplog.at_level(logging.WARNING, logger="skate"):
        refs = [one.meet.remote(two, barrier), two.meet.remote(one, barrier)]
        [text] = warnings_with(caplog, "circle")
        assert text.startswith("2 calls wait for each other in a circle")
        assert text.count("has max_concurrency=1") == 2
        skate.kill(one)
        with pytest.raises(skate.exceptions.ActorDiedError):
            skate.get(refs[0], timeout=50)


def test_awaiting_calls_that_can_go_on_are_not_told_of(cluster, caplog):
    cluster(num_cpus=1, hang_warning_s=1)
    actor = Recursive.options(max_concurrency=2).remote()
    with caplog.at_level(logging.WARNING, logger="skate"):
        # The one behind gets its turn when a timeout has passed.
        assert skate.get(actor.hopeful.remote(actor, 3), timeout=50) >= 100
        # Queues, and the calls in front only take long.
        refs = [actor.beat.remote(2.5) for _ in range(4)]
        skate.wait([skate.put(None)], timeout=0.1)
        assert skate.get(refs, timeout=50) == [None] * 4
    assert not [text for text in caplog.messages if "circle" in text]
    assert not [text for text in caplog.messages if text.startswith("Recursive")]


@pytest.mark.parametrize("how", ["wait", "next", "as_completed"])
def test_other_ways_to_wait(cluster, caplog, how, tmp_path):
    cluster(num_cpus=2, hang_warning_s=1)
    told = tmp_path / "told"

    def nap_until_told():
        while not told.exists():
            time.sleep(0.05)
        return 1

    @skate.remote(num_returns="streaming")
    def items():
        yield nap_until_told()

    nap = skate.remote(nap_until_told)

    @skate.remote
    def waits():
        if how == "next":
            return skate.get(next(items.remote()))
        refs = [nap.remote()]
        return len(skate.wait(refs)[0] if how == "wait" else list(skate.as_completed(refs)))

    def let_go():
        try:
            warnings_with(caplog, "the driver")
        finally:
            told.touch()

    with caplog.at_level(logging.WARNING, logger="skate"):
        other = threading.Thread(target=let_go)
        other.start()
        assert skate.get(waits.remote()) == 1
        other.join()
        [text, *_] = warnings_with(caplog, "the driver")
    assert f"which waits in {how}() at {__file__}:" in text
    assert ("for items (pid" if how == "next" else "nap_until_told (pid") in text
