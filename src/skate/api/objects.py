"""``get``, ``put``, ``wait`` and ``cancel``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from skate.api import options as option_checks
from skate.api.session import current
from skate.generators import ObjectRefGenerator
from skate.refs import ObjectRef

T = TypeVar("T")


@overload
def get(object_refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(object_refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
def get(object_refs: Any, *, timeout: float | None = None) -> Any:
    """Wait for values and return them.

    Arrays in them are read-only views of shared memory.

    Args:
        object_refs: One ref, or a list of them.
        timeout: Seconds to wait at most; None: as long as it takes.

    Returns:
        The value, or a list of values in the order of the refs.

    Raises:
        TaskError: The task raised; also an instance of the class of its exception.
        GetTimeoutError: Not all values were there in time.
        ObjectLostError, WorkerCrashedError, ActorDiedError: The value cannot be had any more.
        ValueError, TypeError: ``object_refs`` is not a ref, or not a list of refs.
    """
    if timeout is not None:
        timeout = check_timeout("get", timeout)
    if type(object_refs) is ObjectRef:
        return current().get_one(object_refs, timeout)
    check_refs("get", object_refs)
    return current().get(object_refs, timeout) if object_refs else []


def put(value: T) -> ObjectRef[T]:
    """Store a value, so that several tasks can use it without it being sent again each time.

    Raises:
        TypeError: ``value`` is a ref.
        SerializationError: ``value`` cannot be pickled.
        ObjectStoreFullError: There is no room for it.
    """
    if type(value) is ObjectRef:
        raise TypeError(
            "put() of an ObjectRef: the object is stored already; to pass the ref on"
            " as a value, put it into a list"
        )
    return current().put(value)


def wait(
    object_refs: list[ObjectRef[T]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until ``num_returns`` of the refs have their values (or errors).

    Args:
        object_refs: Different refs; also generators, which are ready when their next item is.
        num_returns: How many to wait for.
        timeout: Seconds to wait at most; None: as long as it takes.
        fetch_local: Accepted for compatibility; on one machine every object is local.

    Returns:
        The ready refs, at most ``num_returns`` of them, and the others, both in their order.

    Raises:
        TypeError: ``object_refs`` is not a list of refs.
        ValueError: A ref occurs twice, or ``num_returns`` is not between 1 and their number.
    """
    if timeout is not None:
        timeout = check_timeout("wait", timeout)
    check_refs("wait", object_refs)
    if not object_refs:
        return [], []
    # Programs wait in a loop over what is left of hundreds of refs, so this has to be quick: the
    # hash of a ref is Python code, that of its cell is not, and a process has one per object.
    if len({ref._cell for ref in object_refs}) != len(object_refs):
        raise ValueError("wait() takes each ref once, but one occurs twice in the list")
    if isinstance(num_returns, bool) or not isinstance(num_returns, int):
        raise TypeError(f"num_returns must be a whole number, not {num_returns!r}")
    if not 1 <= num_returns <= len(object_refs):
        raise ValueError(
            f"num_returns must be between 1 and the number of refs ({len(object_refs)}),"
            f" but is {num_returns}"
        )
    return current().wait(object_refs, num_returns, timeout)


def cancel(
    object_ref: ObjectRef[Any] | ObjectRefGenerator[Any],
    *,
    force: bool = False,
    recursive: bool = True,
) -> None:
    """Stop the task that makes ``object_ref``; nothing happens if it has finished.

    ``get`` of its refs then raises ``TaskCancelledError``.  What has not started never does.  A
    task that runs gets a ``KeyboardInterrupt``, and so does a call of an actor, in a thread too; a
    coroutine of an async actor is cancelled.  Each may ignore it and return a value.  In a thread
    it comes once, and not before C code that the call is inside of (``time.sleep``, waiting for a
    lock) has returned.

    Args:
        object_ref: A ref that a task will make, or the generator that it is.
        force: End the process if the task runs, instead of raising KeyboardInterrupt in it.
        recursive: Stop the tasks that it has started too.

    Raises:
        TypeError: ``object_ref`` is not a ref, ``force`` or ``recursive`` no bool.
        ValueError: ``force`` for a call of an actor: that is ended with ``kill``.
    """
    if type(object_ref) is not ObjectRef and type(object_ref) is not ObjectRefGenerator:
        raise TypeError(f"cancel() takes the ref of a task, not {type(object_ref).__name__}")
    option_checks.flag("force", force)
    option_checks.flag("recursive", recursive)
    current().cancel(object_ref, force, recursive)


def check_refs(function: str, refs: Any) -> None:
    """Refuse what is no list of refs (for ``wait``: or generators)."""
    if isinstance(refs, ObjectRefGenerator) and function == "get":
        raise TypeError(
            "get() takes refs, not a generator of them: get each ref that it yields, as in"
            " [skate.get(ref) for ref in generator]"
        )
    if isinstance(refs, ObjectRef | ObjectRefGenerator):
        raise TypeError(f"{function}() takes a list of refs, not a single one")
    if not isinstance(refs, list | tuple):
        raise (ValueError if function == "get" else TypeError)(
            f"{function}() takes refs, but got {type(refs).__name__}: {_short(refs)}"
        )
    kinds = list(map(type, refs))
    count = kinds.count(ObjectRef)
    if function == "wait":
        count += kinds.count(ObjectRefGenerator)
    if count != len(refs):
        index, wrong = next((i, r) for i, r in enumerate(refs) if type(r) is not ObjectRef)
        raise TypeError(
            f"{function}() takes a list of refs, but element {index} is of type"
            f" {type(wrong).__name__}: {_short(wrong)}"
        )


def check_timeout(function: str, timeout: object) -> float | None:
    """Check a number of seconds; infinity is None."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"{function}(): timeout must be a number of seconds, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"{function}(): timeout must not be negative, but is {timeout!r}")
    return None if timeout == math.inf else float(timeout)


def _short(value: object) -> str:
    import reprlib

    return reprlib.repr(value)
