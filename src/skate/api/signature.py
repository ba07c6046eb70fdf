"""Parameters of remote functions and methods, so that a wrong call fails where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: One parameter: its name, the value of its ``inspect.Parameter.kind``, whether it has a default.
Parameter = tuple[str, int, bool]

#: How many shapes of calls are remembered per function.  Functions with ``*args`` have no bound.
MAX_SHAPES = 256


class Signature:
    """Checks calls.  Whether one is right depends on its *shape* alone: how many positional
    arguments it has, and the names of the others.  So each shape is looked at once."""

    __slots__ = ("_shapes", "name", "parameters")

    def __init__(self, name: str, parameters: tuple[Parameter, ...] | None) -> None:
        self.name = name
        #: None: not known (functions written in C); anything goes.
        self.parameters = parameters
        self._shapes: set[Any] = set()

    @classmethod
    def of(cls, name: str, function: Callable[..., Any], bound: bool = False) -> Signature:
        """Read the signature of a function; ``bound``: without its first parameter (``self``)."""
        import inspect

        try:
            found = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return cls(name, None)
        positional = (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
        if bound and found and found[0].kind in positional:
            found = found[1:]
        return cls(
            name,
            tuple((p.name, int(p.kind), p.default is not inspect.Parameter.empty) for p in found),
        )

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise the ``TypeError`` that the call itself would raise.  About 0.1 microseconds."""
        shape = (len(args), *kwargs) if kwargs else len(args)
        if shape not in self._shapes:
            self._check_shape(shape, args, kwargs)

    def _check_shape(self, shape: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.parameters is not None:
            import inspect

            signature = inspect.Signature(
                [
                    inspect.Parameter(
                        name,
                        inspect._ParameterKind(kind),
                        default=None if has_default else inspect.Parameter.empty,
                    )
                    for name, kind, has_default in self.parameters
                ]
            )
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}(): {error}") from None
        if len(self._shapes) < MAX_SHAPES:
            self._shapes.add(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return Signature, (self.name, self.parameters)
