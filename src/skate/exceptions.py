"""Everything that Skate raises.

What a task raised arrives as a ``TaskError`` that is also an instance of the user's exception, so
``except ValueError`` around ``get`` works.  What happened to processes, objects and actors has
types of its own.  The names of ``ray.exceptions`` are aliases, at the end of this file.
"""

from __future__ import annotations

import functools
import pickle
import types
from typing import Any, NamedTuple

from skate import _tracebacks


class SkateError(Exception):
    """Base of all exceptions of Skate."""

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception's own reduction forgets what it was raised from.  That may be anything;
        # ours can be pickled whatever they carry.
        state = dict(self.__dict__)
        if isinstance(self.__cause__, SkateError):
            state["__cause__"] = self.__cause__
        return type(self), self.args, state


# --------------------------------------------------------------------------- what tasks raise


class Stage(NamedTuple):
    """One task that an exception went through."""

    function_name: str
    pid: int
    node: str
    #: Frames of the user's code and the exception, as Python prints them.
    traceback_text: str

    def headline(self) -> str:
        """Return who it was and where it ran."""
        where = ", ".join(
            part
            for part in (
                f"pid={self.pid}" if self.pid else "",
                f"node={self.node}" if self.node else "",
            )
            if part
        )
        return f"{self.function_name}()" + (f" ({where})" if where else "")


class _Failure:
    """What a ``TaskError`` carries, in one attribute: user exceptions have names of their own."""

    __slots__ = ("cause", "description", "stages")

    def __init__(
        self, stages: tuple[Stage, ...], cause: BaseException | None, description: str
    ) -> None:
        #: Innermost task first.
        self.stages = stages
        self.cause = cause
        #: The exception in one line, for when there is no ``cause``.
        self.description = description


class TaskError(SkateError):
    """A task or actor method raised.

    ``get`` raises an instance that is also one of the class of ``cause`` (see
    ``as_instanceof_cause``) with its ``args`` and attributes; ``str()`` shows the remote traceback.
    """

    _skate_failure: _Failure

    def __init__(
        self,
        function_name: str,
        traceback_str: str,
        cause: BaseException | None = None,
        *,
        pid: int = 0,
        node: str = "",
    ) -> None:
        stage = Stage(function_name, pid, node, traceback_str)
        self._adopt(_Failure((stage,), cause, _tracebacks.describe(cause)))

    def _adopt(self, failure: _Failure) -> None:
        # The class of the user's exception may forbid or redirect setting attributes.
        object.__setattr__(self, "_skate_failure", failure)

    @classmethod
    def from_exception(
        cls, name: str, exception: BaseException, pid: int = 0, node: str = ""
    ) -> TaskError:
        """Wrap what the function called ``name`` raised, in the process where it ran.

        A ``TaskError`` that came out of a ``get`` in that function is extended by one more stage
        instead of being wrapped: the user's exception stays the cause, each traceback is shown
        once.
        """
        if isinstance(exception, TaskError):
            inner = exception._skate_failure
            frames = _tracebacks.frames_only(exception) + inner.description + "\n"
            stages = (*inner.stages, Stage(name, pid, node, frames))
            return _from_failure(_Failure(stages, inner.cause, inner.description))
        stage = Stage(name, pid, node, _tracebacks.text(exception))
        return _from_failure(_Failure((stage,), exception, _tracebacks.describe(exception)))

    @property
    def function_name(self) -> str:
        """The task that raised first."""
        return self._skate_failure.stages[0].function_name

    @property
    def pid(self) -> int:
        """The process in which it raised."""
        return self._skate_failure.stages[0].pid

    @property
    def node(self) -> str:
        """The node on which it raised."""
        return self._skate_failure.stages[0].node

    @property
    def cause(self) -> BaseException | None:
        """The user's exception; None if it could not be brought here."""
        return self._skate_failure.cause

    @property
    def traceback_str(self) -> str:
        """The remote tracebacks, of the innermost task first."""
        stages = self._skate_failure.stages
        parts = [f"{stages[0].headline()} raised\n{stages[0].traceback_text}"]
        parts += [
            f"\nand so {stage.headline()} raised\n{stage.traceback_text}" for stage in stages[1:]
        ]
        return "".join(parts).rstrip("\n")

    def __str__(self) -> str:
        return self.traceback_str

    def __repr__(self) -> str:
        failure = self._skate_failure
        return f"{type(self).__name__}({failure.stages[-1].headline()}: {failure.description})"

    def as_instanceof_cause(self) -> TaskError:
        """Return a new exception to raise: this one, and an instance of the class of ``cause``.

        A fresh object each time, because raising one object twice mixes up its tracebacks.
        Exceptions that are no ``Exception`` (``SystemExit``) and classes that cannot be inherited
        from give a plain ``TaskError``.
        """
        failure = self._skate_failure
        cause = failure.cause
        if not isinstance(cause, Exception):
            return _from_failure(failure)
        try:
            cause_class: Any = type(cause)
            dual = _dual_class(cause_class)
            error: TaskError = _copy_as(dual, cause)
        except Exception:
            # Classes may refuse to be subclassed or instantiated in any way they like.
            return _from_failure(failure)
        error._adopt(failure)
        object.__setattr__(error, "__cause__", cause)
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        failure = self._skate_failure
        stages = tuple(tuple(stage) for stage in failure.stages)
        dual = type(self) is not TaskError
        return _rebuild_task_error, (stages, _dump_cause(failure.cause), failure.description, dual)

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # Defined so that a ``__reduce_ex__`` of the user's class does not come first.
        return self.__reduce__()


def _from_failure(failure: _Failure) -> TaskError:
    error = TaskError.__new__(TaskError, failure.description)
    error._adopt(failure)
    if failure.cause is not None:
        error.__cause__ = failure.cause
    return error


@functools.lru_cache(maxsize=256)
def _dual_class(cause_class: Any) -> type[TaskError]:
    bases: tuple[type, ...] = (TaskError, cause_class)
    if issubclass(TaskError, cause_class):
        bases = (TaskError,)
    name = f"TaskError({cause_class.__name__})"
    return types.new_class(name, bases, {}, lambda body: body.update(__module__=__name__))


# --------------------------------------------------------------------------- copies of exceptions


def _builtin_base(exception_class: type[BaseException]) -> type[BaseException]:
    heap_type = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made by a class statement
    for base in exception_class.__mro__:
        if issubclass(base, BaseException) and not base.__flags__ & heap_type:
            return base
    return BaseException


def _fields(exception: BaseException) -> dict[str, Any]:
    """Return the attributes that are not in ``__dict__``: of C structs (``errno``) and of slots."""
    fields: dict[str, Any] = {}
    for base in type(exception).__mro__:
        if base in (BaseException, Exception, object):
            continue
        for name, member in vars(base).items():
            if isinstance(member, (types.MemberDescriptorType, types.GetSetDescriptorType)):
                try:
                    fields[name] = member.__get__(exception)
                except Exception:  # a slot that was never set
                    continue
    for name in ("__dict__", "__weakref__"):
        fields.pop(name, None)
    if isinstance(exception, AttributeError):
        # The object without the attribute: of any size, and for hints in tracebacks only.
        fields.pop("obj", None)
    return fields


def _assemble(
    exception_class: type[Any],
    args: tuple[Any, ...],
    attributes: dict[str, Any],
    fields: dict[str, Any],
) -> Any:
    """Make an exception without running its ``__init__``, which may want other arguments."""
    builtin = _builtin_base(exception_class)
    if issubclass(builtin, BaseExceptionGroup):
        made = builtin.__new__(exception_class, fields["message"], fields["exceptions"])
    else:
        made = builtin.__new__(exception_class, *args)
    # Not by assignment: the class may forbid that (frozen dataclasses do).
    object.__setattr__(made, "args", args)
    made.__dict__.update(attributes)
    for name, value in fields.items():
        try:
            object.__setattr__(made, name, value)
        except (AttributeError, TypeError):  # read-only, or NULL in C
            continue
    return made


def _copy_as(exception_class: type[Any], exception: BaseException) -> Any:
    return _assemble(exception_class, exception.args, exception.__dict__, _fields(exception))


def _dump_cause(cause: BaseException | None) -> bytes | None:
    """Pickle an exception, as much of it as can be pickled; None if its class cannot."""
    if cause is None:
        return None
    import cloudpickle

    def dumps(value: object) -> bytes:
        data: bytes = cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        return data

    kind = type(cause)
    if (
        kind.__reduce__ is not BaseException.__reduce__
        or kind.__reduce_ex__ is not BaseException.__reduce_ex__
    ):
        # The class has its own idea.  It counts only if it works in both directions.
        try:
            data = dumps(cause)
            if type(pickle.loads(data)) is kind:
                return data
        except Exception:
            pass
    attributes, fields = dict(cause.__dict__), _fields(cause)
    try:
        return dumps((kind, cause.args, attributes, fields))
    except Exception:
        pass

    def portable(value: object) -> object:
        try:
            dumps(value)
        except Exception:
            return _tracebacks.safe_repr(value)
        return value

    try:
        return dumps(
            (
                kind,
                tuple(portable(value) for value in cause.args),
                {name: portable(value) for name, value in attributes.items()},
                {name: portable(value) for name, value in fields.items()},
            )
        )
    except Exception:
        return None


def _load_cause(data: bytes | None) -> BaseException | None:
    if data is None:
        return None
    try:
        loaded = pickle.loads(data)
        cause: BaseException = loaded if isinstance(loaded, BaseException) else _assemble(*loaded)
    except Exception:
        # The class does not exist here, or does not survive the journey: the text has to do.
        return None
    return cause


def _rebuild_task_error(
    stages: tuple[tuple[Any, ...], ...], cause: bytes | None, description: str, dual: bool
) -> TaskError:
    failure = _Failure(tuple(Stage(*stage) for stage in stages), _load_cause(cause), description)
    error = _from_failure(failure)
    return error.as_instanceof_cause() if dual else error


# --------------------------------------------------------------------------- tasks


class TaskCancelledError(SkateError):
    """The task was cancelled with ``skate.cancel`` before it finished."""


class TaskTimeoutError(SkateError, TimeoutError):
    """The task ran longer than its ``timeout_s``; the message says where and how long.

    Args:
        message: For the user.
        pid: The process that ran it.
        node: The id of its node.
        seconds: How long it had run.
    """

    def __init__(
        self, message: str = "", *, pid: int = 0, node: str = "", seconds: float = 0.0
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.node = node
        self.seconds = seconds


class TaskUnschedulableError(SkateError):
    """No worker can ever be had for the task."""


class WorkerCrashedError(SkateError):
    """The process that ran the task ended before the task did, and no retries were left."""


class OutOfMemoryError(WorkerCrashedError):
    """The process that ran the task was ended before memory ran out.

    The message says how much was in use, of how much, and which processes used most.  A task is
    tried again several times, later each time, whatever its ``max_retries``; with
    ``max_retries=0`` it is not.
    """


class PlacementGroupRemovedError(SkateError):
    """The placement group is gone, and with it what ran in it or waited for it."""


class TaskPlacementGroupRemovedError(PlacementGroupRemovedError):
    """The task ran, or was to run, in a placement group that has been removed."""


class RuntimeEnvSetupError(SkateError):
    """What a task needs around it could not be prepared."""


# --------------------------------------------------------------------------- actors


class ActorError(SkateError):
    """A call of an actor could not be carried out.

    Args:
        message: Who died, where and why, for the user.
        actor_id: The actor's id as hexadecimal digits, or "".
    """

    def __init__(self, message: str = "", *, actor_id: str = "") -> None:
        super().__init__(message)
        self.actor_id = actor_id


class ActorDiedError(ActorError):
    """The actor is dead and does not come back."""

    @classmethod
    def in_constructor(
        cls, class_name: str, error: TaskError, *, actor_id: str = ""
    ) -> ActorDiedError:
        """Return the error of all calls of an actor whose constructor raised ``error``."""
        died = cls(f"{class_name} could not be created: {error}", actor_id=actor_id)
        died.__cause__ = error
        return died


class ActorPlacementGroupRemovedError(ActorDiedError, PlacementGroupRemovedError):
    """The actor was in a placement group that has been removed."""


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now; it may come back.  The call may or may not have run."""


class PendingCallsLimitExceeded(ActorError):  # noqa: N818  # the name that Ray has
    """The caller has ``max_pending_calls`` unfinished calls of the actor already."""


class ActorUnschedulableError(ActorError):
    """No worker can ever be had for the actor."""


class ActorAlreadyExistsError(SkateError, ValueError):
    """An actor of that name exists in the namespace."""


# --------------------------------------------------------------------------- objects


class GetTimeoutError(SkateError, TimeoutError):
    """``get`` gave up after ``timeout`` seconds; the task goes on."""


class ObjectLostError(SkateError):
    """No copy of the object is left."""


class OwnerDiedError(ObjectLostError):
    """The process that made the ref is gone, and what it owned with it."""


class ObjectFreedError(ObjectLostError):
    """The object was freed by request."""


class ObjectReconstructionFailedError(ObjectLostError):
    """The object was lost and making it again failed."""


class ObjectStoreFullError(SkateError):
    """The shared-memory store has no room for the object."""


class SerializationError(SkateError, TypeError):
    """A value cannot be pickled; the message names the offending part."""


# --------------------------------------------------------------------------- the session


class SessionError(SkateError, RuntimeError):
    """There is no session, it could not be started, or it has ended."""


class NodeDiedError(SessionError):
    """The node daemon is gone, and the session with it."""


class NotSupportedError(SkateError, NotImplementedError):
    """Something of the API that this version or this engine does not do."""


# ----------------------------------------------------------------- names of ray.exceptions

RayError = SkateError
RayTaskError = TaskError
RayActorError = ActorError
RaySystemError = SessionError
LocalRayletDiedError = NodeDiedError
TaskPlacementGroupRemoved = TaskPlacementGroupRemovedError
ActorPlacementGroupRemoved = ActorPlacementGroupRemovedError
