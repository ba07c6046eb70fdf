"""Async actors on real processes: crashes with many calls in flight, busy loops, what they hold."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scripts import Script

import skate
from skate import exceptions


@skate.remote
def double(x: int) -> int:
    return 2 * x


@skate.remote
class Crowd:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.count = 0

    async def wait(self) -> int:
        self.count += 1
        await self.event.wait()
        return os.getpid()

    async def pid(self) -> int:
        return os.getpid()

    async def waiting(self) -> int:
        return self.count

    async def release(self) -> None:
        self.event.set()


def until_waiting(crowd: Any, number: int) -> None:
    while skate.get(crowd.waiting.remote(), timeout=30) < number:
        pass


def test_a_killed_actor_fails_every_call(session: None) -> None:
    crowd = Crowd.options(max_concurrency=5000).remote()
    refs = [crowd.wait.remote() for _ in range(3000)]
    until_waiting(crowd, 3000)
    os.kill(skate.get(crowd.pid.remote(), timeout=30), signal.SIGKILL)
    for ref in refs:
        with pytest.raises(exceptions.ActorDiedError, match="SIGKILL"):
            skate.get(ref, timeout=30)


def test_a_restarted_actor_gets_the_calls_again(session: None) -> None:
    crowd = Crowd.options(max_restarts=1, max_task_retries=1).remote()
    refs = [crowd.wait.remote() for _ in range(500)]
    until_waiting(crowd, 500)
    pid = skate.get(crowd.pid.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    until_waiting(crowd, 500)
    skate.get(crowd.release.remote(), timeout=30)
    pids = set(skate.get(refs, timeout=30))
    assert len(pids) == 1
    assert pid not in pids


def test_an_async_actor_that_waits_gives_its_cpu_back(cluster: Any) -> None:
    cluster(num_cpus=1)

    @skate.remote(num_cpus=1)
    class Greedy:
        async def ask(self) -> int:
            return await double.remote(4)

    assert skate.get(Greedy.remote().ask.remote(), timeout=30) == 8


def test_a_busy_loop_still_answers_others(session: None) -> None:
    @skate.remote
    class Busy:
        async def work(self, seconds: float) -> list[Any]:
            ref = skate.put("mine")
            self.ref = ref
            started = time.monotonic()
            while time.monotonic() - started < seconds:
                pass
            return [ref]

        async def lend(self) -> list[Any]:
            return [self.ref]

    busy = Busy.remote()
    (ref,) = skate.get(busy.work.remote(0.0), timeout=30)
    running = busy.work.remote(20.0)
    # The loop computes; the background thread answers for it.
    assert skate.get(ref, timeout=15) == "mine"
    skate.kill(busy)
    with pytest.raises(exceptions.ActorDiedError):
        skate.get(running, timeout=30)


def test_the_loop_serves_the_actors_own_sockets(session: None) -> None:
    @skate.remote
    class Server:
        async def start(self) -> int:
            async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(await reader.readline())
                writer.close()

            self.server = await asyncio.start_server(echo, "127.0.0.1", 0)
            return self.server.sockets[0].getsockname()[1]  # type: ignore[no-any-return]

        async def in_thread(self) -> int:
            return await asyncio.to_thread(os.getpid)

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello\n")
        answer = await reader.readline()
        writer.close()
        return answer

    server = Server.remote()
    port = skate.get(server.start.remote(), timeout=30)
    for _ in range(20):
        assert asyncio.run(asyncio.wait_for(ask(port), 30)) == b"hello\n"
    assert skate.get(server.in_thread.remote(), timeout=30) != os.getpid()


def test_blocking_get_warns_once(script: Callable[[str], Script]) -> None:
    out, err = script("""
        import skate
        skate.init(num_cpus=1)

        @skate.remote
        class Blocking:
            async def ask(self):
                return skate.get(one.remote())

        @skate.remote
        def one():
            return 1

        blocking = Blocking.remote()
        print(skate.get([blocking.ask.remote() for _ in range(3)]))
        skate.shutdown()
    """).finish()
    assert "[1, 1, 1]" in out
    assert (out + err).count("use 'await ref'") == 1


def test_a_task_of_the_actor_that_exits_ends_the_actor(session: None) -> None:
    @skate.remote
    class Quits:
        async def later(self) -> None:
            async def quit_now() -> None:
                raise SystemExit

            self.task = asyncio.get_running_loop().create_task(quit_now())

        async def wait(self) -> None:
            await asyncio.sleep(60)

    quits = Quits.remote()
    waiting = quits.wait.remote()
    skate.get(quits.later.remote(), timeout=30)
    with pytest.raises(exceptions.ActorDiedError):
        skate.get(waiting, timeout=30)


def test_the_last_handle_lets_calls_end(session: None) -> None:
    @skate.remote
    class Slow:
        async def work(self) -> str:
            await asyncio.sleep(0.5)
            return "done"

    ref = Slow.remote().work.remote()
    assert skate.get(ref, timeout=30) == "done"


def test_a_loop_that_is_never_idle_answers(session: None) -> None:
    @skate.remote
    class Spinning:
        def __init__(self) -> None:
            self.spins = True

        async def spin(self) -> int:
            turns = 0
            while self.spins:
                turns += 1
                if turns == 1:
                    time.sleep(0.2)  # long enough for the background thread to take over
                await asyncio.sleep(0)
            return turns

        async def echo(self, x: int) -> int:
            return x

        async def stop(self) -> None:
            self.spins = False

    spinning = Spinning.remote()
    turns = spinning.spin.remote()
    assert [skate.get(spinning.echo.remote(i), timeout=30) for i in range(300)] == list(range(300))
    skate.get(spinning.stop.remote(), timeout=30)
    assert skate.get(turns, timeout=30) > 0


def test_a_result_that_waits_for_room_does_not_stop_the_loop(cluster: Any) -> None:
    cluster(num_cpus=2, object_store_memory=64_000_000)

    @skate.remote
    class Large:
        def __init__(self) -> None:
            self.array = np.ones(20_000_000, dtype=np.uint8)

        async def give(self) -> Any:
            return self.array

        async def give_two(self) -> Any:
            return self.array[:12_000_000], "small"

        async def items(self) -> Any:
            yield self.array
            yield 2

        async def change(self) -> None:
            self.array[:] = 2

    large = Large.remote()
    skate.get(large.__ray_ready__.remote(), timeout=30)
    views = [skate.get(skate.put(np.zeros(18_000_000, dtype=np.uint8))) for _ in range(3)]
    given = large.give.remote()
    items = large.items.remote()
    pair = large.give_two.options(num_returns=2).remote()
    # These are answered while the others wait, and see what was there when they returned.
    skate.get([large.__ray_ready__.remote() for _ in range(100)], timeout=15)
    skate.get(large.change.remote(), timeout=15)
    assert skate.wait([given, *pair], timeout=0.1)[0] == []
    del views
    array = skate.get(given, timeout=30)
    assert (array.size, array.min(), array.max()) == (20_000_000, 1, 1)
    del array, given
    assert skate.get(pair[1], timeout=30) == "small"
    assert skate.get(pair[0], timeout=30).max() == 1
    del pair
    assert skate.get(next(items), timeout=30).max() == 1
    assert skate.get(next(items), timeout=30) == 2


def test_cancelling_a_call_that_waits_for_room(cluster: Any) -> None:
    cluster(num_cpus=2, object_store_memory=64_000_000)

    @skate.remote
    class Large:
        async def give(self) -> Any:
            return np.ones(20_000_000, dtype=np.uint8)

    large = Large.remote()
    skate.get(large.__ray_ready__.remote(), timeout=30)
    views = [skate.get(skate.put(np.zeros(18_000_000, dtype=np.uint8))) for _ in range(3)]
    given = large.give.remote()
    skate.get(large.__ray_ready__.remote(), timeout=15)
    skate.cancel(given)
    with pytest.raises(exceptions.TaskCancelledError):
        skate.get(given, timeout=15)
    del views
    assert skate.get(large.give.remote(), timeout=30).size == 20_000_000
