"""Where the threads and coroutines of this process are in their code."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from skate.runtime.wire.state import Stack
from skate.runtime.worker import event_loop, invoke, pump
from skate.runtime.worker.pump import PUMP_THREAD

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core

_PUMP_FILE = pump.__file__
#: What surrounds the code of the user in a worker.
_RUNTIME_FILES = frozenset((invoke.__file__, event_loop.__file__))


def stacks(core: Core) -> list[Stack]:
    """Return a row per thread, the main thread first, and per call that awaits something."""
    executor = core.executor
    running = executor.running_calls() if executor is not None else []
    coroutines = executor.coroutines() if executor is not None else {}
    main = threading.main_thread().ident
    # On an event loop all calls have one thread, which is with one of them or with none.
    by_thread = {call.thread or main: call for call in running if call.task_id not in coroutines}
    frames = sys._current_frames()
    rows = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        if frame is None or thread.name == PUMP_THREAD:
            continue
        call = by_thread.get(thread.ident)
        rows.append(
            Stack(
                thread.name,
                _describe(frame, executor is not None and thread.ident == main),
                call.name if call is not None else "",
                call.task_id if call is not None else b"",
            )
        )
    # One of them is this one, and would keep the whole stack until Python looks for cycles.
    del frames, frame
    rows.sort(key=lambda row: row.thread != "MainThread")
    for call in running:
        coroutine = coroutines.get(call.task_id)
        if coroutine is not None:
            rows.append(
                Stack("(coroutine)", _describe_coroutine(coroutine), call.name, call.task_id)
            )
    return rows


def _describe(frame: FrameType, is_worker: bool) -> str:
    """Return a stack as Python prints it, without what it is surrounded by in a worker, and
    without the frames that make this very answer."""
    summary = traceback.extract_stack(frame)
    for index, entry in enumerate(summary):
        if entry.name == "run_callbacks" and entry.filename == _PUMP_FILE:
            summary = traceback.StackSummary.from_list(summary[:index])
            break
    if not is_worker:
        return "".join(summary.format())
    start = _start_of_user_code(summary)
    if start is None:
        return "  (waits for its next task)\n"
    inner = traceback.format_list(summary[start:])
    return "".join(inner) or "  (unpickles its arguments)\n"


def _start_of_user_code(summary: traceback.StackSummary) -> int | None:
    """Return where what a worker runs begins in the stack of its main thread."""
    for index in range(len(summary) - 1, -1, -1):
        entry = summary[index]
        if entry.filename == event_loop.__file__:
            # An async actor: between two turns of its loop, or inside one.
            return None if entry.name == "select" else index + 1
    for index, entry in enumerate(summary):
        if entry.filename == invoke.__file__ and entry.name in ("call", "construct"):
            return index + 1
    return None


def _describe_coroutine(coroutine: Any) -> str:
    """Return the stack of what a coroutine awaits, outermost first."""
    entries = [
        traceback.FrameSummary(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        for frame in frames_of(coroutine)
        if frame.f_code.co_filename not in _RUNTIME_FILES
    ]
    return "".join(traceback.format_list(entries)) or "  (has not started)\n"


def frames_of(coroutine: Any) -> Iterable[FrameType]:
    """Yield the frames of a coroutine and of those that it awaits, outermost first."""
    while coroutine is not None:
        # Coroutines, generators and asynchronous generators name these differently.
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{prefix}_frame", None)
            if frame is not None:
                break
        else:
            return
        yield frame
        following = "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await"
        coroutine = getattr(coroutine, following, None)
