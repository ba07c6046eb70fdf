"""Tasks and actor calls that do nothing: what is left is the system's own time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _system import check, load, main, rate

ONE_BY_ONE = 500
AT_ONCE = 1000
ITEMS = 10_000

api = load()


def identity(x: int) -> int:
    return x


class Echo:
    def identity(self, x: int) -> int:
        return x


class AsyncEcho:
    async def identity(self, x: int) -> int:
        return x


def numbers(count: int) -> Iterator[int]:
    # Ray's workers are compiled and ask for ``send``, which ``yield from range`` has not.
    for number in range(count):  # noqa: UP028
        yield number


def _one_by_one(remote: Any) -> float:
    def work() -> None:
        for i in range(ONE_BY_ONE):
            check(api.get(remote(i)) == i)

    return rate(work, ONE_BY_ONE)


def _at_once(remote: Any) -> float:
    expected = list(range(AT_ONCE))

    def work() -> None:
        check(api.get([remote(i) for i in range(AT_ONCE)]) == expected)

    return rate(work, AT_ONCE)


def tasks_one_by_one() -> float:
    """Tasks per second, each awaited before the next."""
    return _one_by_one(api.remote(identity).remote)


def tasks_at_once() -> float:
    """Tasks per second, 1,000 submitted and then awaited."""
    return _at_once(api.remote(identity).remote)


def actor_one_by_one() -> float:
    """Calls per second of one actor, each awaited before the next."""
    actor = api.remote(Echo).remote()
    return _one_by_one(actor.identity.remote)


def actor_at_once() -> float:
    """Calls per second of one actor, 1,000 submitted and then awaited."""
    actor = api.remote(Echo).remote()
    return _at_once(actor.identity.remote)


def async_actor_one_by_one() -> float:
    """Calls per second of one async actor, each awaited before the next."""
    actor = api.remote(AsyncEcho).remote()
    return _one_by_one(actor.identity.remote)


def async_actor_at_once() -> float:
    """Calls per second of one async actor, 1,000 submitted and then awaited."""
    actor = api.remote(AsyncEcho).remote()
    return _at_once(actor.identity.remote)


def generator() -> float:
    """Items per second of a task that yields 10,000 numbers."""
    remote = api.remote(numbers).remote

    def work() -> None:
        check(sum(api.get(ref) for ref in remote(ITEMS)) == sum(range(ITEMS)))

    return rate(work, ITEMS, passes=3)


if __name__ == "__main__":
    api.init()
    main(
        tasks_one_by_one,
        tasks_at_once,
        actor_one_by_one,
        actor_at_once,
        async_actor_one_by_one,
        async_actor_at_once,
        generator,
    )
    api.shutdown()
