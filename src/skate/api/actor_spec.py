"""What a handle knows of its actor's class, in a form that travels."""

from __future__ import annotations

import functools
import pickle
from typing import Any

from skate.api import options as option_checks
from skate.api.signature import Signature
from skate.engine.base import ActorOptions, CallOptions

#: Where ``@method`` leaves its options on the function.
METHOD_OPTIONS = "__skate_method__"

# Names that copy and pickle look up on any object; a handle must not answer for the actor.
_PROTOCOL_NAMES = frozenset(
    ("__copy__", "__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__setstate__")
)


#: What calls of one actor share: ``max_pending_calls``, ``out_of_order`` and the names of the
#: concurrency groups.
CallLimits = tuple[int, bool, tuple[str, ...]]


class MethodSpec:
    """One method: how it may be called and with which options it is."""

    __slots__ = ("_limits", "given", "kind", "options", "signature")

    def __init__(
        self, signature: Signature, given: dict[str, Any], kind: str, limits: CallLimits
    ) -> None:
        self.signature = signature
        self._limits = limits
        self.given = given
        #: "", "async", "generator" or "async generator".
        self.kind = kind
        self.options = self.merged({})

    def merged(self, given: dict[str, Any]) -> CallOptions:
        """Return the options of calls, those of the method overridden by ``given``.

        Raises:
            TypeError, ValueError: One is unknown or wrong, or the actor has no such concurrency
                group.
        """
        options = option_checks.call_options(
            {**self.given, **given}, generator=self.kind.endswith("generator")
        )
        options.max_pending_calls, options.out_of_order, groups = self._limits
        group = options.concurrency_group
        if group and group not in groups:
            names = ", ".join(map(repr, groups)) or "none"
            raise ValueError(
                f"{self.signature.name} cannot be called in the concurrency group {group!r}: the"
                f" actor has {names}. Declare it in concurrency_groups when the actor is made"
            )
        return options


class ActorSpec:
    """The name of an actor's class and its methods.

    ``data`` is the written form: it goes into every pickled handle, and to the engine for
    ``get_actor``.
    """

    __slots__ = ("class_name", "data", "methods")

    def __init__(self, class_name: str, methods: dict[str, MethodSpec], data: bytes) -> None:
        self.class_name = class_name
        self.methods = methods
        self.data = data

    @classmethod
    def of(cls, actor_class: type, options: ActorOptions) -> ActorSpec:
        """Describe a class whose actors have these options.

        Raises:
            ValueError: A method names a concurrency group that the options do not.
        """
        class_name = actor_class.__name__
        rows = [
            (name, *_describe(actor_class, name, member))
            for name, member in _members(actor_class).items()
        ]
        rows.append(("__ray_ready__", (), {}, ""))
        for name, _, given, _ in rows:
            group = given.get("concurrency_group")
            if group is not None and group not in options.concurrency_groups:
                raise ValueError(
                    f"{class_name}.{name} is in the concurrency group {group!r}, which"
                    f" concurrency_groups={options.concurrency_groups} does not name"
                )
        groups = tuple(options.concurrency_groups)
        limits = (options.max_pending_calls, options.out_of_order, groups)
        data = pickle.dumps((class_name, rows, limits), protocol=5)
        return load(data)


@functools.lru_cache(maxsize=1024)
def load(data: bytes) -> ActorSpec:
    """Read the written form.  Handles of one class share the result."""
    class_name, rows, limits = pickle.loads(data)
    methods = {
        name: MethodSpec(Signature(f"{class_name}.{name}", parameters), given, kind, limits)
        for name, parameters, given, kind in rows
    }
    return ActorSpec(class_name, methods, data)


def is_async(actor_class: type) -> bool:
    """Return whether actors of a class run their calls on an event loop: it has async methods."""
    return any(
        _kind(getattr(member, "__func__", member)).startswith("async")
        for member in _members(actor_class).values()
    )


def _members(actor_class: type) -> dict[str, Any]:
    """Return the methods by name, static and class methods too, as they stand in the class body."""
    import inspect

    found: dict[str, Any] = {}
    for base in reversed(actor_class.__mro__):
        if base is object:
            continue
        for name, member in vars(base).items():
            callable_member = isinstance(
                member, staticmethod | classmethod | functools.partialmethod
            ) or inspect.isroutine(member)
            if callable_member and name not in _PROTOCOL_NAMES:
                found[name] = member
            else:
                # A property or constant of a subclass hides the method of its base.
                found.pop(name, None)
    return found


def _describe(actor_class: type, name: str, member: Any) -> tuple[Any, dict[str, Any], str]:
    import inspect

    function = getattr(actor_class, name)
    plain = inspect.unwrap(getattr(member, "__func__", member))
    bound = not isinstance(member, staticmethod | classmethod)
    kind = _kind(plain)
    given = getattr(member, METHOD_OPTIONS, None) or getattr(plain, METHOD_OPTIONS, {})
    return Signature.of(name, function, bound).parameters, dict(given), kind


def _kind(function: Any) -> str:
    """Return "", "async", "generator" or "async generator"."""
    import inspect

    plain = inspect.unwrap(function)
    if inspect.iscoroutinefunction(plain):
        return "async"
    if inspect.isasyncgenfunction(plain):
        return "async generator"
    return "generator" if inspect.isgeneratorfunction(plain) else ""
