"""Functions under ``@remote``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from skate.api import options as option_checks
from skate.api.session import current, portable
from skate.api.signature import Signature
from skate.engine.base import Code
from skate.exceptions import NotSupportedError


class RemoteFunction:
    """A function whose calls are tasks: ``f.remote(...)`` returns a ref at once."""

    # Set by functools.update_wrapper, for help() and for error messages.
    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[..., Any], given: dict[str, Any]) -> None:
        self._generator = _is_generator(function)
        functools.update_wrapper(self, function)
        self._function = function
        self._code = Code(function)
        self._signature = Signature.of(self._code.name, function)
        self._set_options(given)

    def _set_options(self, given: dict[str, Any]) -> None:
        self._given = given
        self._options = option_checks.task_options(given, self._generator)
        self._single = self._options.num_returns == 1 or self._options.num_returns < 0

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start a task that calls the function.

        Top-level arguments that are refs are replaced by their values, once there are any.

        Returns:
            An ``ObjectRef``; a list of them for ``num_returns`` above one, None for zero.  Of a
            generator function (or with ``num_returns="streaming"``) an ``ObjectRefGenerator``;
            with ``num_returns="dynamic"`` the ref of a ``DynamicObjectRefGenerator``.

        Raises:
            TypeError: The function cannot be called like this.
            SerializationError: An argument cannot be pickled.
        """
        self._signature.check(args, kwargs)
        refs = current().submit_task(self._code, args, kwargs, self._options)
        return refs[0] if self._single else refs or None

    def options(self, **options: Any) -> RemoteFunction:
        """Return the same remote function with other options for the calls made through it."""
        other = RemoteFunction.__new__(RemoteFunction)
        other.__dict__.update(self.__dict__)
        other._set_options({**self._given, **options})
        return other

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise TypeError(
            f"{self._code.name} is a remote function: call it as {self._code.name}.remote(...),"
            " which returns a ref to the result"
        )

    def __repr__(self) -> str:
        return f"RemoteFunction({self._code.name})"

    def __getstate__(self) -> dict[str, Any]:
        # As state, not as arguments of a constructor: the function's globals may hold this very
        # object (recursion), and a pickle may refer back only to what it has begun to build.
        return {"function": self._function, "given": portable(self._given)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the same object, filled in


def _is_generator(function: Callable[..., Any]) -> bool:
    """Return whether a function is a generator.

    Raises:
        NotSupportedError: it is async.
    """
    import inspect

    name = getattr(function, "__qualname__", repr(function))
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise NotSupportedError(
            f"{name} is an async function, and tasks are not run in an event loop: "
            "call asyncio.run(...) in a plain function, or make it a method of an actor"
        )
    return inspect.isgeneratorfunction(function)
