"""What a handle knows of its actor's class, in a form that travels."""

from __future__ import annotations

import functools
import pickle
from typing import Any

from skate.api import options as option_checks
from skate.api.signature import Signature
from skate.engine.base import CallOptions
from skate.exceptions import NotSupportedError

#: Where ``@method`` leaves its options on the function.
METHOD_OPTIONS = "__skate_method__"

# Names that copy and pickle look up on any object; a handle must not answer for the actor.
_PROTOCOL_NAMES = frozenset(
    ("__copy__", "__deepcopy__", "__getnewargs__", "__getnewargs_ex__", "__setstate__")
)


class MethodSpec:
    """One method: how it may be called and with which options it is."""

    __slots__ = ("given", "kind", "options", "signature")

    def __init__(self, signature: Signature, given: dict[str, Any], kind: str) -> None:
        self.signature = signature
        self.given = given
        #: "", "async", "generator" or "async generator".
        self.kind = kind
        self.options = self.merged({})

    def merged(self, given: dict[str, Any]) -> CallOptions:
        """Return the options of calls, those of the method overridden by ``given``."""
        return option_checks.call_options(
            {**self.given, **given}, generator=self.kind.endswith("generator")
        )

    def refuse(self) -> None:
        """Raise if calls of this kind of method cannot be run."""
        name = self.signature.name
        if self.kind.startswith("async"):
            raise NotSupportedError(
                f"{name} is an async method, and actors do not run in an event loop: "
                "make it a plain method, with max_concurrency for calls at the same time"
            )


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
    def of(cls, actor_class: type) -> ActorSpec:
        """Describe a class."""
        class_name = actor_class.__name__
        rows = [
            (name, *_describe(actor_class, name, member))
            for name, member in _members(actor_class).items()
        ]
        rows.append(("__ray_ready__", (), {}, ""))
        data = pickle.dumps((class_name, rows), protocol=5)
        return load(data)


@functools.lru_cache(maxsize=1024)
def load(data: bytes) -> ActorSpec:
    """Read the written form.  Handles of one class share the result."""
    class_name, rows = pickle.loads(data)
    methods = {
        name: MethodSpec(Signature(f"{class_name}.{name}", parameters), given, kind)
        for name, parameters, given, kind in rows
    }
    return ActorSpec(class_name, methods, data)


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
    kind = ""
    if inspect.iscoroutinefunction(plain):
        kind = "async"
    elif inspect.isasyncgenfunction(plain):
        kind = "async generator"
    elif inspect.isgeneratorfunction(plain):
        kind = "generator"
    given = getattr(member, METHOD_OPTIONS, None) or getattr(plain, METHOD_OPTIONS, {})
    return Signature.of(name, function, bound).parameters, dict(given), kind
