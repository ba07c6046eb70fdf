"""Calls that wait for each other in a circle, or unusually long, are told of."""

from __future__ import annotations

import logging
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
        import asyncio

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
