"""What the inline engine keeps of objects, actors and what runs."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from skate.engine.base import ActorOptions, Strategy
from skate.exceptions import ActorDiedError
from skate.refs import ObjectRef

if TYPE_CHECKING:
    from skate.engine.inline.loops import CallLoop


class Session(Protocol):
    """The engine that a cell belongs to."""

    def end_actor(self, actor_id: bytes, cause: str) -> None:
        """End an actor, if it lives."""


class Cell:
    """One object: its pickle, or the pickle of the exception that ``get`` raises."""

    __slots__ = (
        "__weakref__",
        "contained",
        "data",
        "failed",
        "object_id",
        "owner_address",
        "session",
    )

    def __init__(self, session: Session, object_id: bytes) -> None:
        self.session = session
        self.object_id = object_id
        self.owner_address = "inline"
        self.data: bytes = b""
        self.failed = False
        #: Refs inside the value live as long as it does.
        self.contained: Sequence[Any] = ()


class Ordered:
    """Refs that are ready, one after the other; see ``engine.base.Completions``."""

    def __init__(self, refs: Sequence[ObjectRef[Any]]) -> None:
        self._refs = deque(refs)

    def take(self, timeout: float | None) -> ObjectRef[Any] | None:
        """Return the next ref."""
        return self._refs.popleft()

    async def take_soon(self) -> ObjectRef[Any]:
        """Return the next ref."""
        return self._refs.popleft()

    def close(self) -> None:
        """Forget the others."""
        self._refs.clear()


class ActorCell:
    """A handle's hold on an actor.  The actor ends with the cell that ``keeps`` it."""

    __slots__ = ("__weakref__", "keeps", "object_id", "owner_address", "session")

    def __init__(self, session: Session, actor_id: bytes, keeps: bool) -> None:
        self.session = session
        self.object_id = actor_id
        self.keeps = keeps
        self.owner_address = "inline" if keeps else ""

    def __del__(self) -> None:
        if self.keeps:
            self.session.end_actor(self.object_id, "its last handle is gone")


class Actor:
    """An actor and how it was made."""

    def __init__(
        self, actor_id: bytes, options: ActorOptions, namespace: str, handle: bytes
    ) -> None:
        self.actor_id = actor_id
        self.options = options
        self.namespace = namespace
        self.handle = handle
        self.class_name = ""
        self.make: Callable[[], Any] = lambda: None
        self.instance: Any = None
        self.restarts = 0
        self.death: ActorDiedError | None = None
        #: Of an async actor.
        self.loop: CallLoop | None = None
        #: One call at a time, also when the driver has several threads.  Re-entrant like an
        #: actor that calls itself through another one.
        self.lock = threading.RLock() if options.max_concurrency == 1 else contextlib.nullcontext()

    def run(self, function: Callable[[], Any]) -> Any:
        """Run code of the actor where its calls run."""
        return function() if self.loop is None else self.loop.call(function)

    def items(self, result: Any) -> Any:
        """Return an iterator over what a generator method has returned."""
        return result if self.loop is None else self.loop.items(result)


class Running:
    """What the current thread executes."""

    __slots__ = ("actor", "attempt", "level", "name", "resources", "strategy", "task_id")

    def __init__(
        self,
        task_id: bytes,
        name: str,
        resources: dict[str, float],
        actor: Actor | None,
        level: int,
        attempt: int = 0,
        strategy: Strategy | None = None,
    ) -> None:
        self.task_id = task_id
        self.name = name
        self.resources = resources
        self.actor = actor
        self.level = level
        self.attempt = attempt
        self.strategy = strategy


#: What runs in this thread.
current: contextvars.ContextVar[Running | None] = contextvars.ContextVar("current", default=None)
