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

    Args:
        targets: The function or class, when there are no options.
        options: Of functions: ``num_returns``, ``max_retries``, ``retry_exceptions``, ``name``.
            Of classes: ``name``, ``namespace``, ``get_if_exists``, ``lifetime``,
            ``max_restarts``, ``max_task_retries``, ``max_concurrency``.
            Of both: ``num_cpus``, ``num_gpus``, ``memory`` (bytes), ``resources``.

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
