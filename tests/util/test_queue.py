"""``skate.util.queue.Queue``."""

from __future__ import annotations

import asyncio
import queue
import threading

import pytest

import skate
from skate.exceptions import ActorDiedError
from skate.util.queue import Empty, Full, Queue


def test_first_in_first_out(session):
    made = Queue()
    items = [1, "two", [3], None]
    for item in items:
        made.put(item)
    assert made.qsize() == made.size() == len(made) == 4
    assert not made.empty()
    assert not made.full()
    assert [made.get() for _ in items] == items
    assert made.empty()


def test_without_waiting(session):
    made = Queue(maxsize=2)
    with pytest.raises(Empty):
        made.get_nowait()
    made.put_nowait(1)
    made.put(2, block=False)
    assert made.full()
    with pytest.raises(Full, match="no room for 1 more"):
        made.put_nowait(3)
    with pytest.raises(queue.Full):
        made.put(3, block=False)
    assert made.get(block=False) == 1
    assert made.get_nowait() == 2
    with pytest.raises(queue.Empty):
        made.get(block=False)


def test_errors_are_plain(session):
    made = Queue()
    with pytest.raises(Empty) as caught:
        made.get_nowait()
    assert type(caught.value) is Empty
    assert caught.value.__suppress_context__


def test_batches(session):
    made = Queue(maxsize=3)
    made.put_nowait_batch([1, 2])
    with pytest.raises(Full, match="no room for 2"):
        made.put_nowait_batch([3, 4])
    assert made.qsize() == 2
    with pytest.raises(Empty, match="fewer than 3"):
        made.get_nowait_batch(3)
    assert made.get_nowait_batch(2) == [1, 2]
    assert made.get_nowait_batch(0) == []
    with pytest.raises(TypeError, match="num_items"):
        made.get_nowait_batch("2")
    with pytest.raises(ValueError, match="num_items"):
        made.get_nowait_batch(-1)
    with pytest.raises(TypeError):
        made.put_nowait_batch(3)


def test_timeouts(session):
    made = Queue(maxsize=1)
    with pytest.raises(Empty, match=r"0\.01 s"):
        made.get(timeout=0.01)
    made.put(1, timeout=5)
    with pytest.raises(Full, match=r"0\.01 s"):
        made.put(2, timeout=0.01)
    for call in (lambda: made.put(1, timeout=-1), lambda: made.get(timeout=-1)):
        with pytest.raises(ValueError, match="non-negative"):
            call()
    # What was given up is not in it.
    assert made.get(timeout=5) == 1
    assert made.empty()


def test_in_coroutines(session):
    made = Queue(maxsize=2)

    async def main():
        await made.put_async(1)
        await made.put_async(2, block=False)
        with pytest.raises(Full):
            await made.put_async(3, block=False)
        with pytest.raises(Full):
            await made.put_async(3, timeout=0.01)
        first = await made.get_async()
        second = await made.get_async(block=False)
        with pytest.raises(Empty):
            await made.get_async(timeout=0.01)
        with pytest.raises(Empty):
            await made.get_async(block=False)
        return first, second

    assert asyncio.run(main()) == (1, 2)


def test_refs_stay_refs(session):
    made = Queue()
    made.put(skate.put("value"))
    ref = made.get()
    assert skate.get(ref) == "value"


def test_between_tasks(session):
    made = Queue()

    @skate.remote
    def produce(queue, start):
        for number in range(start, start + 5):
            queue.put(number)

    skate.get([produce.remote(made, start) for start in (0, 10)])
    assert sorted(made.get_nowait_batch(10)) == [*range(5), *range(10, 15)]


def test_shutdown(session):
    made = Queue()
    made.put(1)
    other = skate.get(skate.put(made))
    made.shutdown()
    made.shutdown()
    with pytest.raises(ActorDiedError, match="shut down"):
        made.get()
    with pytest.raises(ActorDiedError):
        other.get_nowait()


# ------------------------------------------------------------------- where calls wait


def test_who_waits_gets_the_next_item(native):
    made = Queue()

    @skate.remote
    def consume(queue):
        return queue.get()

    # More than there are CPUs: who waits holds none.
    refs = [consume.remote(made) for _ in range(5)]
    for number in range(5):
        made.put(number)
    assert sorted(skate.get(refs, timeout=50)) == list(range(5))


def test_who_waits_for_room_gets_it(native):
    made = Queue(maxsize=1)

    @skate.remote
    def produce(queue):
        for number in range(10):
            queue.put(number)
        return "done"

    ref = produce.remote(made)
    assert [made.get(timeout=50) for _ in range(10)] == list(range(10))
    assert skate.get(ref, timeout=50) == "done"


def test_thousands_wait_without_a_thread_each(native):
    made = Queue(maxsize=1)

    async def main():
        getters = [asyncio.ensure_future(made.get_async()) for _ in range(1500)]
        for number in range(1500):
            await made.put_async(number)
        return await asyncio.gather(*getters)

    assert asyncio.run(main()) == list(range(1500))


def test_who_waits_learns_of_the_end(native):
    made = Queue()
    failed = threading.Event()

    def wait():
        with pytest.raises(ActorDiedError):
            skate.get(made.actor.get.remote(None))
        failed.set()

    thread = threading.Thread(target=wait)
    thread.start()
    made.shutdown(force=True)
    thread.join(50)
    assert failed.is_set()


def test_options_of_its_actor(native):
    made = Queue(actor_options={"name": "my queue", "num_cpus": 1})
    made.put(1)
    assert "my queue" in skate.util.list_named_actors()
