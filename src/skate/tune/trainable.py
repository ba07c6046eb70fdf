"""What a trial runs: functions of the user, with parameters or resources tied to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import skate
from skate.tune.resources import PlacementGroupFactory, Resources, as_factory

#: A function of one configuration that reports, returns or yields its results.
Function: TypeAlias = Callable[[dict[str, Any]], Any]


class _WithParameters:
    """A function with large arguments, which travel through the object store once."""

    def __init__(self, function: Callable[..., Any], parameters: dict[str, Any]) -> None:
        self.__name__ = trainable_name(function)
        self._function = function
        self._refs = {name: skate.put(value) for name, value in parameters.items()}

    def __call__(self, config: dict[str, Any]) -> Any:
        names = list(self._refs)
        values = skate.get([self._refs[name] for name in names])
        return self._function(config, **dict(zip(names, values, strict=True)))


class _WithResources:
    """A function that says what each of its trials needs."""

    def __init__(self, function: Function, resources: PlacementGroupFactory) -> None:
        self.__name__ = trainable_name(function)
        self.function = function
        self.resources = resources

    def __call__(self, config: dict[str, Any]) -> Any:
        return self.function(config)


def with_parameters(trainable: Callable[..., Any], **parameters: Any) -> Function:
    """Return a trainable that calls ``trainable(config, **parameters)``.

    Each parameter is put into the object store once, however large it is and however many trials
    there are; arrays arrive read-only and without a copy.

    Raises:
        TypeError: the function does not take these parameters.
    """
    if inspect.isclass(trainable):
        raise TypeError(f"with_parameters wants a function, got {trainable!r}")
    try:
        inspect.signature(trainable).bind({}, **parameters)
    except TypeError as error:
        raise TypeError(f"{trainable_name(trainable)}(config, ...): {error}") from None
    return _WithParameters(trainable, parameters)


def with_resources(trainable: Function, resources: Resources) -> Function:
    """Return a trainable whose trials each need ``resources``, such as ``{"cpu": 2, "gpu": 1}``."""
    check(trainable)
    return _WithResources(trainable, as_factory(resources))


def unwrap(trainable: Function) -> tuple[Function, PlacementGroupFactory | None]:
    """Return the function to run and the resources tied to it, if any."""
    if isinstance(trainable, _WithResources):
        return trainable.function, trainable.resources
    return trainable, None


def trainable_name(trainable: Any) -> str:
    """Return a name for folders and messages."""
    inner = getattr(trainable, "func", trainable)  # functools.partial
    name: str = getattr(inner, "__name__", None) or type(inner).__name__
    return "lambda" if name == "<lambda>" else name


def check(trainable: Any) -> None:
    """Check that ``trainable(config)`` can be called.

    Raises:
        TypeError: it cannot.
    """
    if inspect.isclass(trainable):
        raise TypeError(
            f"{trainable.__name__} is a class; class trainables are not supported yet, pass a"
            " function that takes the configuration and calls tune.report"
        )
    if not callable(trainable):
        raise TypeError(
            "the trainable has to be a function that takes the configuration, got"
            f" {type(trainable).__name__}: {trainable!r:.100}"
        )
    if hasattr(trainable, "remote"):
        raise TypeError(
            f"{trainable!r} is a remote function; pass the plain function, trials are remote anyway"
        )
    if inspect.iscoroutinefunction(trainable) or inspect.isasyncgenfunction(trainable):
        raise TypeError(f"{trainable_name(trainable)} is async; trainables are plain functions")
    try:
        inspect.signature(trainable).bind({})
    except TypeError:
        raise TypeError(
            f"{trainable_name(trainable)}{inspect.signature(trainable)} has to take one argument,"
            " the configuration; tie others to it with tune.with_parameters"
        ) from None
    except ValueError:  # a built-in without a signature: calling it will tell
        return
