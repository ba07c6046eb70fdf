"""Running user code inside the caller, and what comes of it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from skate.engine.inline.records import Cell
from skate.exceptions import ActorDiedError, NotSupportedError, TaskError, TaskTimeoutError
from skate.serialization import serialize

#: Python frames that one nested task may need beyond those of its user code.
FRAMES_PER_LEVEL = 60
#: Nesting beyond this many levels is left to Python's own recursion limit: the C stack is finite.
MAX_LEVELS = 500


@contextlib.contextmanager
def deeper(level: int) -> Iterator[None]:
    """Leave room on Python's stack for one more task inside another.

    Tasks on processes may nest as deep as they like; here each level is part of one stack.
    """
    if level == 1 or level > MAX_LEVELS:
        yield
        return
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + FRAMES_PER_LEVEL)
    try:
        yield
    finally:
        with contextlib.suppress(RecursionError):
            sys.setrecursionlimit(before)


def call_function(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function with arguments that were just made, and let go of them."""
    return function(*args, **kwargs)


def ready_arguments(arguments: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return fresh copies of arguments that were packed, and have not failed."""
    copies: tuple[tuple[Any, ...], dict[str, Any]] = arguments()
    return copies


def find_method(instance: Any, name: str) -> Any:
    """Return a method of an actor's instance."""
    return (lambda: True) if name == "__ray_ready__" else getattr(instance, name)


def store_value(cell: Cell, value: object) -> None:
    """Put the pickle of a value into its cell.

    Raises:
        SerializationError: it cannot be pickled.
    """
    serialized = serialize(value)
    cell.data = serialized.to_bytes()
    cell.contained = serialized.refs


def dump_error(error: Exception) -> bytes:
    """Return the pickle of an exception of ours."""
    return serialize(error).to_bytes()


def actor_died(actor_id: bytes, cause: str) -> ActorDiedError:
    """Return the error of calls of a dead actor."""
    return ActorDiedError(f"the actor {actor_id.hex()} is dead: {cause}", actor_id=actor_id.hex())


def timed_out(name: str, timeout_s: float, seconds: float) -> TaskTimeoutError | None:
    """Return the error of a call that ran for longer than it may; nothing interrupts it here."""
    if not timeout_s or seconds <= timeout_s:
        return None
    return TaskTimeoutError(
        f"{name}() ran longer than timeout_s={timeout_s:g}: it had run for {seconds:.3g} s"
        f" (pid {os.getpid()})",
        pid=os.getpid(),
        seconds=seconds,
    )


def failure_of(name: str, error: BaseException, node: str) -> Exception:
    """Return what the refs of a call raise that has raised ``error``."""
    if isinstance(error, TaskTimeoutError) and error.__traceback__ is None:
        return error  # ours, not the call's
    return TaskError.from_exception(name, error, os.getpid(), node)


def may_retry(error: BaseException, retry_exceptions: bool | tuple[str, ...]) -> bool:
    """Return whether a task that raised ``error`` is to be tried again, if retries are left."""
    if isinstance(error, SystemExit):
        return True  # a crash of the process, as far as others can tell
    if isinstance(error, TaskTimeoutError) and error.__traceback__ is None:
        # True means: after whatever the call raises.  This is not raised by the call.
        retry_exceptions = retry_exceptions if isinstance(retry_exceptions, tuple) else False
    if isinstance(retry_exceptions, bool):
        return retry_exceptions
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    return any(name in names for name in retry_exceptions)


def exit_code(error: SystemExit) -> int:
    """Return the code with which the interpreter would exit."""
    if error.code is None:
        return 0
    return error.code if isinstance(error.code, int) else 1


def refuse_environment(runtime_env: Mapping[str, Any] | None) -> None:
    """Refuse a runtime environment: this process has the one that it was started in.

    Raises:
        NotSupportedError: there is one.
    """
    if runtime_env:
        raise NotSupportedError(
            "runtime_env: the inline engine runs everything in the calling process and cannot give"
            f" tasks an environment of their own ({', '.join(runtime_env)}); use the native engine"
        )
