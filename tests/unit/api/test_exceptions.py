"""Exceptions carry what the user needs, over any number of pickles."""

from __future__ import annotations

import abc
import copy
import dataclasses
import enum
import pickle
import threading
from typing import Any

import pytest

from skate import _tracebacks, exceptions
from skate.exceptions import ActorDiedError, ActorError, SkateError, TaskError


def failure(error: BaseException, name: str = "task") -> TaskError:
    """Wrap an exception as the process where it was raised does."""
    try:
        raise error
    except BaseException as raised:
        return TaskError.from_exception(name, raised, 123, "node-1")


def travelled(error: TaskError) -> TaskError:
    """Pickle and unpickle twice: results of tasks are passed on."""
    return pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error))))


class KeywordOnlyError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__("text")
        self.code = code


class OwnReduceError(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)
        self.total = a + b

    def __reduce__(self) -> Any:
        return OwnReduceError, self.args


class BrokenReduceError(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be reduced")


class ReadOnlyError(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("read only")


class PropertiesError(Exception):
    cause = property(lambda self: "mine")
    pid = property(lambda self: "mine")

    def __init__(self) -> None:
        super().__init__("with properties")


class FinalError(Exception):
    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise TypeError("final")


class MetaError(Exception, metaclass=abc.ABCMeta):
    pass


class OddNewError(Exception):
    def __new__(cls, a: int, b: int) -> OddNewError:
        return super().__new__(cls, a, b)

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a + b)


@dataclasses.dataclass
class DataError(Exception):
    code: int
    text: str


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class SlotsError(Exception):
    __slots__ = ("code", "unset")

    def __init__(self, code: int) -> None:
        self.code = code


class SubclassedOSError(OSError):
    def __init__(self, where: str, what: str) -> None:
        super().__init__(5, what)
        self.where = where


class Color(enum.Enum):
    RED = 1


class EnumError(ValueError):
    def __init__(self) -> None:
        super().__init__(Color.RED)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError(("a", 1)),
        OSError(2, "no such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        SyntaxError("bad", ("file", 1, 2, "text")),
        ImportError("no", name="module", path="/path"),
        StopIteration(5),
        ZeroDivisionError(),
        Exception("plain"),
        ExceptionGroup("group", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]),
        AttributeError("no", name="a", obj=threading.Lock()),
        KeywordOnlyError(code=3),
        OwnReduceError(1, 2),
        BrokenReduceError("x"),
        PropertiesError(),
        MetaError("x"),
        OddNewError(1, 2),
        DataError(1, "x"),
        FrozenError(2),
        ReadOnlyError("x"),
        SlotsError(3),
        SubclassedOSError("here", "what"),
        EnumError(),
        exceptions.GetTimeoutError("late"),
        ActorDiedError("dead", actor_id="ab"),
        exceptions.SerializationError("lock"),
        SkateError("ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_caught_as_what_the_user_raised(error: Exception) -> None:
    arrived = travelled(failure(error))
    raised = arrived.as_instanceof_cause()
    with pytest.raises(type(error)) as caught:
        raise raised
    assert isinstance(caught.value, TaskError)
    # By repr: the members of a group are other objects.
    assert repr(caught.value.args) == repr(error.args)
    again = travelled(caught.value)
    assert isinstance(again, type(error))
    assert type(again.cause) is type(error)
    assert repr(again.args) == repr(error.args)
    for name in ("code", "where", "errno", "filename", "total", "reason", "value", "name"):
        if hasattr(error, name):
            assert getattr(again, name) == getattr(error, name)
    assert "test_exceptions.py" in str(again)
    assert "task() (pid=123, node=node-1)" in str(again)


@pytest.mark.parametrize("error", [FinalError("x"), SystemExit(3), KeyboardInterrupt()])
def test_what_cannot_be_inherited_from_is_a_task_error(error: BaseException) -> None:
    raised = travelled(failure(error)).as_instanceof_cause()
    assert type(raised) is TaskError
    assert type(error).__name__ in str(raised)


def test_attributes_that_cannot_be_pickled_become_text() -> None:
    error = ValueError("broken")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    error.fine = [1]  # type: ignore[attr-defined]
    arrived: Any = travelled(failure(error)).as_instanceof_cause()
    assert isinstance(arrived, ValueError)
    assert arrived.args == ("broken",)
    assert arrived.fine == [1]
    assert "lock" in arrived.lock


def test_class_that_cannot_be_pickled_becomes_text() -> None:
    def make(lock: Any) -> Any:
        class WithClosureError(ValueError):
            def held(self) -> Any:
                return lock

        return WithClosureError("in a closure")

    arrived = travelled(failure(make(threading.Lock())))
    assert type(arrived) is TaskError
    assert arrived.cause is None
    assert "WithClosureError: in a closure" in str(arrived)
    assert type(arrived.as_instanceof_cause()) is TaskError


def test_class_that_does_not_exist_at_the_other_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("module_of_the_worker")
    kind = type("RemoteOnlyError", (Exception,), {"__module__": module.__name__})
    module.RemoteOnlyError = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # A class that is found by name travels by name only if its module is a real one.
    monkeypatch.setattr(module, "__file__", "/elsewhere.py", raising=False)
    data = pickle.dumps(failure(kind("only there")))
    monkeypatch.delitem(sys.modules, module.__name__)
    arrived = pickle.loads(data)
    assert "only there" in str(arrived)
    assert isinstance(arrived.as_instanceof_cause(), TaskError)


def test_properties() -> None:
    error = failure(ValueError("x"), "f")
    assert (error.function_name, error.pid, error.node) == ("f", 123, "node-1")
    assert "ValueError: x" in repr(error)
    assert error.traceback_str == str(error)
    # Ours come first, the user's are on the cause.
    raised = failure(PropertiesError()).as_instanceof_cause()
    assert raised.pid == 123
    assert isinstance(raised.cause, PropertiesError)


def test_made_by_hand() -> None:
    error = TaskError("f", "the traceback", ValueError("x"), pid=1, node="n")
    assert "the traceback" in str(error)
    assert isinstance(error.as_instanceof_cause(), ValueError)


def test_each_one_raised_is_new() -> None:
    error = failure(ValueError("x"))
    a, b = error.as_instanceof_cause(), error.as_instanceof_cause()
    assert a is not b
    assert type(a) is type(b)
    plain = failure(SystemExit(1))
    assert plain.as_instanceof_cause() is not plain


def test_copies() -> None:
    raised = failure(ValueError("x")).as_instanceof_cause()
    for duplicate in (copy.copy(raised), copy.deepcopy(raised)):
        assert isinstance(duplicate, ValueError)
        assert str(duplicate) == str(raised)


def test_stages_of_nested_tasks() -> None:
    error = failure(ValueError("innermost"), "inner")
    for name in ("middle", "outer"):
        try:
            raise travelled(error).as_instanceof_cause()
        except ValueError as raised:
            error = TaskError.from_exception(name, raised, 7, "n")
    text = str(error)
    assert [text.index(f"{name}()") for name in ("inner", "middle", "outer")] == sorted(
        text.index(f"{name}()") for name in ("inner", "middle", "outer")
    )
    assert text.count("raise error\n") == 1
    assert error.function_name == "inner"
    assert error.args == error.as_instanceof_cause().args or error.cause is not None


def test_raised_from_a_task_error_shows_it_once() -> None:
    inner = failure(ValueError("inner"), "inner")
    try:
        try:
            raise inner.as_instanceof_cause()
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        outer = TaskError.from_exception("outer", error)
    assert isinstance(outer.as_instanceof_cause(), RuntimeError)
    assert str(outer).count("inner() (pid=123, node=node-1) raised") == 1
    assert "direct cause" in str(outer)


def test_context_and_suppressed_context() -> None:
    def fail(suppress: bool) -> TaskError:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                if suppress:
                    raise ValueError("second") from None
                raise ValueError("second")  # noqa: B904
        except ValueError as error:
            return TaskError.from_exception("f", error)

    assert "first" in str(fail(suppress=False))
    assert "first" not in str(fail(suppress=True))


def test_causes_in_a_circle() -> None:
    a, b = ValueError("a"), KeyError("b")
    a.__cause__, b.__cause__ = b, a
    assert "ValueError: a" in _tracebacks.text(a)


def test_our_frames_are_left_out() -> None:
    from skate.serialization import serialize

    with pytest.raises(exceptions.SerializationError) as caught:
        serialize(threading.Lock())
    text = _tracebacks.text(caught.value)
    assert "serialization.py" not in text
    assert "test_exceptions.py" in text


def test_long_tracebacks_are_cut() -> None:
    text = str(failure(ValueError("x" * 1_000_000)))
    assert len(text) < 2 * _tracebacks.MAX_CHARACTERS
    assert "left out" in text


def test_deep_recursion() -> None:
    def down() -> None:
        down()

    try:
        down()
    except RecursionError as error:
        raised = travelled(TaskError.from_exception("deep", error))
    assert isinstance(raised.as_instanceof_cause(), RecursionError)
    assert "repeated" in str(raised)


def test_errors_without_text() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

        __repr__ = __str__

    assert "SilentError" in str(failure(SilentError()))
    assert _tracebacks.describe(ValueError("a\nb")) == "ValueError: a"
    assert _tracebacks.describe(ValueError()) == "ValueError"
    assert "repr() raised" in _tracebacks.safe_repr(SilentError())


def test_actor_errors_keep_what_they_carry() -> None:
    died = ActorDiedError.in_constructor("Counter", failure(ValueError("x")), actor_id="ab")
    arrived = pickle.loads(pickle.dumps(died))
    assert arrived.actor_id == "ab"
    assert "Counter" in str(arrived)
    assert "ValueError: x" in str(arrived)
    assert isinstance(arrived.__cause__, TaskError)
    assert isinstance(arrived, ActorError)


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("GetTimeoutError", (TimeoutError,)),
        ("SerializationError", (TypeError,)),
        ("ActorAlreadyExistsError", (ValueError,)),
        ("NotSupportedError", (NotImplementedError,)),
        ("SessionError", (RuntimeError,)),
        ("OwnerDiedError", (exceptions.ObjectLostError,)),
        ("ActorDiedError", (exceptions.RayActorError,)),
        ("OutOfMemoryError", (SkateError,)),
    ],
)
def test_exceptions_are_what_python_programs_expect(
    name: str, bases: tuple[type[Exception], ...]
) -> None:
    kind = getattr(exceptions, name)
    assert issubclass(kind, (SkateError, *bases))
    for base in bases:
        assert issubclass(kind, base)
    error = pickle.loads(pickle.dumps(kind("text")))
    assert type(error) is kind
    assert str(error) == "text"


def test_names_of_ray() -> None:
    assert exceptions.RayError is SkateError
    assert exceptions.RayTaskError is TaskError
    assert exceptions.RayActorError is ActorError
