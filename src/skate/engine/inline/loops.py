"""Async actors: each has an event loop, which runs while a call of the actor does."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Iterator
from typing import Any

from skate.exceptions import NotSupportedError


class CallLoop:
    """The event loop of one actor, in whichever thread calls it.

    A call has ended when ``remote()`` returns, as for all actors here, so calls do not overlap;
    tasks that the actor has started go on during its later calls.
    """

    def __init__(self, class_name: str) -> None:
        self._class_name = class_name
        self._loop = asyncio.new_event_loop()

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function, or run the coroutine that it returns, on the loop.

        Raises:
            NotSupportedError: an async method has called its own actor.
        """
        if self._loop.is_running():
            raise NotSupportedError(
                f"{self._class_name} is called while one of its async methods runs: the inline"
                " engine runs one call at a time, use engine='native' for this"
            )

        async def run() -> Any:
            result = function()
            return await result if type(result) is types.CoroutineType else result

        # The caller may be on a loop of its own, which has to stand still meanwhile.
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self._loop.run_until_complete(run())
        finally:
            asyncio._set_running_loop(outer)

    def items(self, result: Any) -> Any:
        """Return an iterator over an async generator; anything else as it is."""
        return self._iterate(result) if hasattr(result, "__anext__") else result

    def _iterate(self, items: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await items.__anext__()

        async def close() -> None:
            await items.aclose()

        try:
            while True:
                try:
                    yield self.call(following)
                except StopAsyncIteration:
                    return
        finally:
            self.call(close)

    def close(self) -> None:
        """Forget the tasks that the actor has started."""
        if not self._loop.is_running():
            self._loop.close()
