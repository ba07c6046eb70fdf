"""What a trial runs: functions of the user, with parameters or resources tied to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, TypeGuard

import skate
from skate.tune.checkpoint_folder import WithCheckpointDir, call, takes_checkpoint_dir
from skate.tune.resources import PlacementGroupFactory, Resources, as_factory
from skate.tune.trainable_class import Trainable

#: A function of one configuration that reports, returns or yields its results; or a class derived
#: from ``Trainable``.
Function: TypeAlias = Callable[[dict[str, Any]], Any]
#: What trials need: always the same, or depending on the configuration.
Request: TypeAlias = PlacementGroupFactory | Callable[[dict[str, Any]], PlacementGroupFactory]


class _WithParameters:
    """A function with large arguments, which travel through the object store once."""

    def __init__(self, function: Callable[..., Any], parameters: dict[str, Any]) -> None:
        self.__name__ = trainable_name(function)
        self._function = function
        self._refs = {name: skate.put(value) for name, value in parameters.items()}

    def __call__(self, config: dict[str, Any]) -> Any:
        names = list(self._refs)
        values = skate.get([self._refs[name] for name in names])
        parameters = dict(zip(names, values, strict=True))
        if takes_checkpoint_dir(self._function):
            return call(self._function, config, **parameters)
        return self._function(config, **parameters)


class _WithResources:
    """A trainable that says what each of its trials needs."""

    def __init__(self, function: Function, resources: Request) -> None:
        self.__name__ = trainable_name(function)
        self.function = function
        self.resources = resources

    def __call__(self, config: dict[str, Any]) -> Any:
        return self.function(config)


def with_parameters(trainable: Callable[..., Any], **parameters: Any) -> Function:
    """Return a trainable that calls ``trainable(config, **parameters)``.

    A class gets the parameters in ``setup(config, **parameters)``.

    Each parameter is put into the object store once, however large it is and however many trials
    there are; arrays arrive read-only and without a copy.

    Raises:
        TypeError: the trainable does not take these parameters.
    """
    if isinstance(trainable, _WithResources):
        return _WithResources(
            with_parameters(trainable.function, **parameters), trainable.resources
        )
    if is_class(trainable):
        return _class_with_parameters(trainable, parameters)
    if inspect.isclass(trainable):
        raise TypeError(f"with_parameters wants a function or a Trainable, got {trainable!r}")
    try:
        inspect.signature(trainable).bind({}, **parameters)
    except TypeError as error:
        raise TypeError(f"{trainable_name(trainable)}(config, ...): {error}") from None
    return _WithParameters(trainable, parameters)


def _class_with_parameters(kind: type[Trainable], parameters: dict[str, Any]) -> type[Trainable]:
    try:
        inspect.signature(kind.setup).bind(None, {}, **parameters)
    except TypeError as error:
        raise TypeError(f"{kind.__name__}.setup(config, ...): {error}") from None
    refs = {name: skate.put(value) for name, value in parameters.items()}

    def setup(self: Trainable, config: dict[str, Any]) -> None:
        values = skate.get(list(refs.values()))
        kind.setup(self, config, **dict(zip(refs, values, strict=True)))

    return type(kind.__name__, (kind,), {"setup": setup, "__module__": kind.__module__})


def with_resources(
    trainable: Function, resources: Resources | Callable[[dict[str, Any]], Resources]
) -> Function:
    """Return a trainable whose trials each need ``resources``, such as ``{"cpu": 2, "gpu": 1}``.

    ``resources`` may be a function of the configuration.
    """
    check(trainable)
    if isinstance(trainable, _WithResources):
        trainable = trainable.function
    if not callable(resources):
        return _WithResources(trainable, as_factory(resources))
    choose = resources
    return _WithResources(trainable, lambda config: as_factory(choose(config)))


def unwrap(trainable: Function) -> tuple[Function, Request | None]:
    """Return what to run and the resources tied to it, if any."""
    if isinstance(trainable, _WithResources):
        return unwrap(trainable.function)[0], trainable.resources
    if takes_checkpoint_dir(trainable):
        return WithCheckpointDir(trainable, trainable_name(trainable)), None
    if is_class(trainable):
        # The class's own wish, where it has one.
        own = trainable.default_resource_request
        if getattr(own, "__func__", None) is not _nothing_special:
            return trainable, lambda config: as_factory(own(config))
    return trainable, None


_nothing_special = Trainable.default_resource_request.__func__  # type: ignore[attr-defined]  # a classmethod


def is_class(trainable: object) -> TypeGuard[type[Trainable]]:
    """Say whether trials are objects of a ``Trainable`` class."""
    return inspect.isclass(trainable) and issubclass(trainable, Trainable)


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
    if isinstance(trainable, _WithResources):
        return
    if is_class(trainable):
        if trainable.step is Trainable.step:
            raise TypeError(f"{trainable.__name__} has to have a method step()")
        return
    if inspect.isclass(trainable):
        raise TypeError(
            f"{trainable.__name__} is a class that is not derived from tune.Trainable; derive it"
            " from that, or pass a function that takes the configuration and calls tune.report"
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
