"""The decorator ``@remote``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from skate.api import options as option_checks
from skate.api.actor import ActorClass
from skate.api.remote_function import RemoteFunction


@overload
def remote(target: type, /) -> ActorClass: ...  # type: ignore[overload-overlap]  # classes first
@overload
def remote(target: Callable[..., Any], /) -> RemoteFunction: ...
@overload
def remote(**options: Any) -> Callable[[Any], Any]: ...
def remote(*targets: Any, **options: Any) -> Any:
    """Make a function or a class remote: ``@remote``, or ``@remote(num_cpus=2)``.

    How often code runs.  A task whose process dies runs again, ``max_retries`` times (default 3;
    -1: for ever), so it may run more than once; with 0 it runs at most once.  An exception is a
    result and not retried, unless ``retry_exceptions`` says so (True, or a list of classes).  Calls
    of actors run at most once by default.  ``max_restarts`` makes an actor that crashed again, by
    its constructor with the same arguments; ``max_task_retries`` sends the calls whose answers were
    lost once more, so these run at least once if they succeed.

    ``timeout_s`` counts the seconds from the start of the call in its worker to its end: without
    the time in queues and that in which arguments were not ready, with the time in ``get`` inside
    the call, without that in which a generator waits for its consumer.  Each attempt counts anew.
    When they have passed a task is interrupted as by ``cancel``, tasks that it has started
    included, and after one more second its process is killed.  A call of an actor is interrupted,
    or cancelled if it is a coroutine, and given up if it goes on (in a thread C code cannot be
    interrupted); the actor is not killed.  The refs raise ``TaskTimeoutError``, whatever the call
    does after that moment; it is retried only if ``retry_exceptions`` is a list that names that
    class or a base of it.

    Args:
        targets: The function or class, when there are no options.
        options: Of functions: ``num_returns`` (a number, "streaming" or "dynamic"),
            ``max_retries``, ``retry_exceptions``, ``timeout_s``, ``max_calls`` (calls of the
            function after which a worker is replaced), ``name``,
            ``_generator_backpressure_num_objects``.
            Of classes: ``name``, ``namespace``, ``get_if_exists``, ``lifetime``,
            ``max_restarts``, ``max_task_retries``, ``max_concurrency`` (threads; 1,000 coroutines
            of an async actor), ``concurrency_groups``, ``max_pending_calls``,
            ``allow_out_of_order_execution``.  ``method`` has those of calls.
            Of both: ``num_cpus``, ``num_gpus``, ``memory`` (bytes), ``resources``,
            ``runtime_env``, ``scheduling_strategy`` (or ``placement_group`` with its index).

    Returns:
        A ``RemoteFunction`` or an ``ActorClass``; with options, a decorator that makes one.

    Raises:
        TypeError, ValueError, NotSupportedError: What is decorated cannot be made remote, or an
            option is unknown, wrong or not supported.
    """
    if targets:
        if len(targets) > 1 or options:
            raise TypeError("@remote takes a function or a class, or options by name")
        return _make(targets[0], {})
    option_checks.check_names(options)
    return lambda target: _make(target, options)


def _make(target: Any, options: dict[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, RemoteFunction | ActorClass):
        raise TypeError(f"{target!r} is remote already; .options(...) gives it other options")
    if isinstance(target, type):
        return ActorClass(target, options)
    if isinstance(target, staticmethod | classmethod | property) or not callable(target):
        raise TypeError(f"@remote takes a function or a class, not {target!r}")
    return RemoteFunction(target, options)
