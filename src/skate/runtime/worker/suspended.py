"""What a suspended call of an async actor awaits, read off its asyncio task when somebody asks."""

from __future__ import annotations

import asyncio
import asyncio.futures
import asyncio.tasks
import os
from typing import Any

from skate.runtime.wire.waits import AWAIT, CallRow
from skate.runtime.worker.awaiting import source_of
from skate.runtime.worker.completions import Completions
from skate.runtime.worker.event_loop import AsyncCalls
from skate.runtime.worker.own_code import PACKAGE
from skate.runtime.worker.stacks import frames_of

_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep
#: Futures that one call waits for, at most: with more it is taken for one that may go on.
MOST_FUTURES = 10_000
#: The callback of a timer behind ``asyncio.sleep``.
_SLEEP = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]


def describe(row: CallRow, task: asyncio.Task[None]) -> None:
    """Write into a row what the call of this task awaits, if that is objects only."""
    awaited = _sources(getattr(task, "_fut_waiter", None))
    if awaited is None:
        return
    if len(awaited) == 1 and isinstance(awaited[0], Completions):
        missing, needed = list(awaited[0].waiting), 1
    elif any(not hasattr(source, "object_id") for source in awaited):
        return
    else:
        missing = [source for source in awaited if not source.status]
        needed = len(missing)
    row.objects = list({source.object_id for source in missing})
    row.needed = min(needed, len(row.objects))
    if not row.objects:
        return
    row.kind = AWAIT
    for frame in frames_of(task.get_coro()):
        code = frame.f_code
        if not code.co_filename.startswith((PACKAGE, _ASYNCIO)):
            row.place = f"{code.co_filename}:{frame.f_lineno}"
            row.function = code.co_name


def _sources(waiter: Any) -> list[Any] | None:
    """Return the cells and streams behind a future, behind tasks and ``gather``; None: it may be
    completed by something else."""
    found: list[Any] = []
    futures = [waiter]
    seen = 0
    while futures:
        future = futures.pop()
        seen += 1
        if seen > MOST_FUTURES:
            return None
        if (source := source_of(future)) is not None:
            found.append(source)
        elif isinstance(future, asyncio.Task):
            futures.append(getattr(future, "_fut_waiter", None))
        elif isinstance(future, asyncio.tasks._GatheringFuture):  # type: ignore[attr-defined]
            futures += [child for child in future._children if not child.done()]
        else:
            return None
    return found


def may_time_out(calls: AsyncCalls) -> bool:
    """Whether the event loop has a timer that may end what its calls await.

    Which of them it ends is not known, so any timer counts but those of ``asyncio.sleep``.
    """
    for handle in list(calls.loop._scheduled):  # type: ignore[attr-defined]  # of BaseEventLoop
        callback = handle._callback
        if callback is not None and callback is not _SLEEP and not calls.is_own_timer(callback):
            return True
    return False
