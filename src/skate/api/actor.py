"""Classes under ``@remote``, and the handles of their instances."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from skate.api import actor_spec
from skate.api import options as option_checks
from skate.api.session import current, portable
from skate.api.signature import Signature
from skate.engine.base import CallOptions, Code
from skate.exceptions import ActorAlreadyExistsError
from skate.refs import Tracked, hooks

F = TypeVar("F")


class ActorClass:
    """A class whose instances are actors: ``Counter.remote(...)`` returns a handle at once.

    Its other attributes are those of the class, and a class may inherit from it.
    """

    def __init__(self, cls: type, given: dict[str, Any]) -> None:
        functools.update_wrapper(self, cls, updated=())
        self._class = cls
        self._code = Code(cls)
        self._signature = Signature.of(cls.__name__, cls)
        self._asynchronous = actor_spec.is_async(cls)
        self._set_options(given)

    def _set_options(self, given: dict[str, Any]) -> None:
        self._given = given
        self._options = option_checks.actor_options(given, self._asynchronous)
        self._spec: actor_spec.ActorSpec | None = None

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Create an actor.  The arguments are those of the constructor.

        The actor ends when its last handle is gone, unless it is detached.  A constructor
        that raises makes every call of the actor fail with ``ActorDiedError``.

        Raises:
            TypeError: The class cannot be instantiated like this.
            ActorAlreadyExistsError: There is an actor of that name, and no ``get_if_exists``.
            SerializationError: An argument cannot be pickled.
        """
        self._signature.check(args, kwargs)
        if self._spec is None:
            self._spec = actor_spec.ActorSpec.of(self._class, self._options)
        spec = self._spec
        engine = current()
        options = self._options
        if not self._given.get("get_if_exists"):
            cell = engine.create_actor(self._code, args, kwargs, options, spec.data)
            return ActorHandle(cell, spec)
        while True:
            found = engine.find_actor(options.name, options.namespace)
            if found is not None:
                return ActorHandle(found[0], actor_spec.load(found[1]))
            try:
                cell = engine.create_actor(self._code, args, kwargs, options, spec.data)
            except ActorAlreadyExistsError:
                continue  # somebody was faster: theirs will do
            return ActorHandle(cell, spec)

    def options(self, **options: Any) -> ActorClass:
        """Return the same actor class with other options for the actors made through it."""
        other = ActorClass.__new__(ActorClass)
        other.__dict__.update(self.__dict__)
        other._set_options({**self._given, **options})
        return other

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        name = self._class.__name__
        raise TypeError(
            f"{name} is an actor class: create an actor with {name}.remote(...),"
            " which returns a handle"
        )

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._class,)

    def __getattr__(self, name: str) -> Any:
        # Dunder names are asked for by copy, pickle, doctest and others, of any object.
        if (name.startswith("__") and name.endswith("__")) or "_class" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._class, name)

    def __repr__(self) -> str:
        return f"ActorClass({self._class.__name__})"

    def __getstate__(self) -> dict[str, Any]:
        # As state for the same reason as in RemoteFunction.
        return {"cls": self._class, "given": portable(self._given)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # the same object, filled in


class ActorHandle(Tracked):
    """A running actor: ``handle.method.remote(...)`` calls it.

    Handles may be passed to tasks and actors.  Calls through one process arrive in their order.
    """

    __slots__ = ("__weakref__", "_spec")

    def __init__(self, cell: Any, spec: actor_spec.ActorSpec) -> None:
        self._cell = cell
        self._spec = spec

    def __getattr__(self, name: str) -> ActorMethod:
        spec = self._spec.methods.get(name)
        if spec is None:
            raise AttributeError(_no_method(self._spec, name))
        return ActorMethod(self, name, spec, spec.options)

    def __setattr__(self, name: str, value: object) -> None:
        if name not in ("_cell", "_spec"):
            raise AttributeError(
                f"cannot set {name!r} on a handle of {self._spec.class_name}:"
                " the state of an actor changes through its methods"
            )
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(name for name in self._spec.methods if not name.startswith("__"))

    @property
    def _actor_id(self) -> bytes:
        """The id; ``.hex()`` gives it as in ``get_runtime_context().get_actor_id()``."""
        object_id: bytes = self._cell.object_id
        return object_id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorHandle):
            return NotImplemented
        return self._actor_id == other._actor_id

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __repr__(self) -> str:
        return f"Actor({self._spec.class_name}, {self._actor_id.hex()})"

    def reduce_tracked(self) -> tuple[Any, ...]:
        """Reduce to id, owner and class; see ``Tracked``."""
        cell = self._cell
        return _rebuild_handle, (cell.object_id, cell.owner_address, self._spec.data)


def _no_method(spec: actor_spec.ActorSpec, name: str) -> str:
    public = [known for known in spec.methods if not known.startswith("__")]
    return f"{spec.class_name} has no method {name!r}.{option_checks.nearest(name, public)}"


def _rebuild_handle(object_id: bytes, owner_address: str, data: bytes) -> ActorHandle:
    return ActorHandle(hooks.resolve(object_id, owner_address), actor_spec.load(data))


class ActorMethod:
    """A method of one actor; made anew at each access, so that handles stay free of cycles."""

    __slots__ = ("_handle", "_name", "_options", "_spec")

    def __init__(
        self,
        handle: ActorHandle,
        name: str,
        spec: actor_spec.MethodSpec,
        options: CallOptions,
    ) -> None:
        self._handle = handle
        self._name = name
        self._spec = spec
        self._options = options

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method after all earlier calls of this process.

        It runs at most once; with ``max_task_retries`` it may run again when its process has died,
        after the constructor of the actor has.

        Returns:
            An ``ObjectRef``; a list of them for ``num_returns`` above one, None for zero.  Of a
            generator (or with ``num_returns="streaming"``) an ``ObjectRefGenerator``; with
            ``num_returns="dynamic"`` the ref of a ``DynamicObjectRefGenerator``.

        Raises:
            TypeError: The method cannot be called like this.
            SerializationError: An argument cannot be pickled.
            PendingCallsLimitExceeded: ``max_pending_calls`` of the actor are under way already.
        """
        spec = self._spec
        spec.signature.check(args, kwargs)
        options = self._options
        refs = current().submit_call(self._handle._cell, self._name, args, kwargs, options)
        count = options.num_returns
        return refs[0] if count == 1 or count < 0 else refs or None

    def options(self, **options: Any) -> ActorMethod:
        """Return the same method with other options for the calls made through it."""
        return ActorMethod(self._handle, self._name, self._spec, self._spec.merged(options))

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        name = self._spec.signature.name
        raise TypeError(
            f"{name} is a method of an actor: call it as handle.{self._name}.remote(...),"
            " which returns a ref to the result"
        )

    def __repr__(self) -> str:
        return f"ActorMethod({self._spec.signature.name})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_method, (self._handle, self._name, self._options)


def _rebuild_method(handle: ActorHandle, name: str, options: CallOptions) -> ActorMethod:
    return ActorMethod(handle, name, handle._spec.methods[name], options)


def method(*args: Any, **options: Any) -> Callable[[F], F]:
    """Give a method of an actor class options of its own: ``@method(num_returns=2)``.

    Args:
        args: None.
        options: ``num_returns``, ``max_task_retries`` (instead of the actor's),
            ``retry_exceptions`` (exceptions of the method that use these retries up, too; by
            default only crashes do), ``timeout_s`` (see ``remote``), ``concurrency_group``,
            ``name``, ``_generator_backpressure_num_objects``.

    Raises:
        TypeError, ValueError: An option that is unknown or wrong.
    """
    if args or not options:
        raise TypeError("@method takes options by name, as in @method(num_returns=2)")
    option_checks.call_options(options)
    if options.get("retry_exceptions") is not None:
        # The options travel with every handle, the classes may not.
        options["retry_exceptions"] = option_checks.exception_names(
            "retry_exceptions", options["retry_exceptions"]
        )

    def mark(function: F) -> F:
        setattr(function, actor_spec.METHOD_OPTIONS, options)
        return function

    return mark


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Return a handle of the actor called ``name``.  It does not keep the actor alive.

    Args:
        name: As given to ``.options(name=...)``.
        namespace: None for the namespace of the session.

    Raises:
        ValueError: There is no such actor (any more).
    """
    option_checks.non_empty("name", name)
    if namespace is not None:
        option_checks.non_empty("namespace", namespace)
    engine = current()
    found = engine.find_actor(name, namespace)
    if found is None:
        where = namespace if namespace is not None else engine.context().namespace
        raise ValueError(
            f"there is no actor named {name!r} in the namespace {where!r}: it was not created yet,"
            " has died or has no handles left, or lives in another namespace"
        )
    return ActorHandle(found[0], actor_spec.load(found[1]))


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor at once, without waiting for its calls; they fail with ``ActorDiedError``.

    Args:
        actor: The actor's handle.
        no_restart: False: it is restarted if its ``max_restarts`` allow.

    Raises:
        ValueError: ``actor`` is no handle.
    """
    if not isinstance(actor, ActorHandle):
        raise ValueError(
            f"kill() takes the handle of an actor, not {type(actor).__name__};"
            " tasks are ended with cancel(ref)"
        )
    current().kill_actor(actor._cell, no_restart)


def exit_actor() -> NoReturn:
    """End the actor that runs, from inside one of its methods.

    It is not restarted.  This call, others that run in threads or on the event loop, and those that
    wait fail with ``ActorDiedError``.

    Raises:
        TypeError: This code does not run in an actor.
    """
    if not current().context().actor_id:
        raise TypeError("exit_actor() ends the actor that runs, and this is not in an actor")
    raise SystemExit(0)
