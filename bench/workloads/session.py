"""Beginning and end of a session, and what it weighs in between."""

from __future__ import annotations

import time
from typing import Any

from _system import check, load, main, seconds, session_memory_mb

#: Seconds after which a session counts as idle: both systems have started their workers by then.
SETTLE = 5.0
ACTORS = 20


def one() -> int:
    return 1


def _first_result() -> Any:
    api = load()
    api.init()
    check(api.get(api.remote(one).remote()) == 1)
    return api


def start() -> float:
    """Seconds for import, init and the result of a first task."""
    took = seconds(_first_result)
    load().shutdown()
    return took


def shutdown() -> float:
    """Seconds for shutdown, after some work."""
    api = _first_result()
    task = api.remote(one)
    check(sum(api.get([task.remote() for _ in range(100)])) == 100)
    return seconds(api.shutdown)


class Idle:
    def ping(self) -> int:
        return 1


def _start_actors(api: Any) -> list[Any]:
    actor_class = api.remote(Idle)
    actors = [actor_class.remote() for _ in range(ACTORS)]
    check(sum(api.get([actor.ping.remote() for actor in actors])) == ACTORS)
    return actors


def start_actors() -> float:
    """Seconds until 20 new actors have answered."""
    api = _first_result()
    took = seconds(lambda: _start_actors(api))
    api.shutdown()
    return took


def memory_idle() -> float:
    """MB of all processes but the driver, after a first task."""
    api = _first_result()
    time.sleep(SETTLE)
    used = session_memory_mb()
    api.shutdown()
    return used


def memory_actors() -> float:
    """MB of all processes but the driver, with 20 idle actors."""
    api = _first_result()
    actors = _start_actors(api)
    time.sleep(SETTLE)
    used = session_memory_mb()
    del actors
    api.shutdown()
    return used


if __name__ == "__main__":
    main(start, shutdown, start_actors, memory_idle, memory_actors)
