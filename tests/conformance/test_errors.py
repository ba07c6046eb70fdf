"""What goes wrong arrives as what it is, at once, and says where it happened."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import skate
from skate.exceptions import ActorDiedError, SerializationError, SkateError, TaskError

pytestmark = pytest.mark.usefixtures("session")


@skate.remote
def fail(error: BaseException) -> None:
    raise error


@skate.remote
def identity(x: Any) -> Any:
    return x


class RequiredArgumentsError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class KeywordOnlyError(ValueError):
    def __init__(self, *, code: int) -> None:
        super().__init__("keyword only")
        self.code = code


class WithSlotsError(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


class WithLockError(Exception):
    def __init__(self) -> None:
        super().__init__("cannot be pickled")
        self.lock = threading.Lock()


class BadStrError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no string for you")


def test_user_exception_and_task_error() -> None:
    with pytest.raises(ValueError, match="broken") as caught:
        skate.get(fail.remote(ValueError("broken")))
    error = caught.value
    assert isinstance(error, TaskError)
    assert isinstance(error, skate.exceptions.RayTaskError)
    assert error.args == ("broken",)
    assert type(error.cause) is ValueError
    assert error.__cause__ is error.cause
    assert error.function_name == "fail"
    assert error.pid > 0
    assert error.node


def test_traceback_is_that_of_the_user() -> None:
    def helper() -> None:
        raise KeyError("deep down")

    @skate.remote
    def outer() -> None:
        helper()

    with pytest.raises(KeyError) as caught:
        skate.get(outer.remote())
    text = str(caught.value)
    assert "in helper" in text
    assert "in outer" in text
    assert "KeyError: 'deep down'" in text
    assert "skate/engine" not in text
    assert "skate/runtime" not in text


def test_cause_is_shown() -> None:
    @skate.remote
    def f() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise RuntimeError("second") from error

    with pytest.raises(RuntimeError) as caught:
        skate.get(f.remote())
    assert "first" in str(caught.value)
    assert "direct cause" in str(caught.value)


def test_nested_tasks_show_each_traceback_once() -> None:
    @skate.remote
    def inner() -> None:
        raise LookupError("innermost")

    @skate.remote
    def middle() -> Any:
        return skate.get(inner.remote())

    @skate.remote
    def outer() -> Any:
        return skate.get(middle.remote())

    with pytest.raises(LookupError) as caught:
        skate.get(outer.remote())
    error = caught.value
    assert isinstance(error, TaskError)
    assert type(error.cause) is LookupError
    assert error.args == ("innermost",)
    text = str(error)
    assert text.count('raise LookupError("innermost")') == 1
    for line in ("in inner", "in middle", "in outer"):
        assert text.count(line) == 1


def test_caught_in_a_task() -> None:
    @skate.remote
    def careful() -> str:
        try:
            skate.get(fail.remote(ZeroDivisionError("caught")))
        except ZeroDivisionError as error:
            return f"handled {error.args[0]}"
        return "nothing raised"

    assert skate.get(careful.remote()) == "handled caught"


def test_failed_argument_fails_the_task() -> None:
    with pytest.raises(ValueError, match="broken"):
        skate.get(identity.remote(fail.remote(ValueError("broken"))))
    with pytest.raises(ValueError, match="broken"):
        skate.get(identity.remote(identity.remote(fail.remote(ValueError("broken")))))


def test_get_of_many_raises_the_first() -> None:
    refs = [identity.remote(1), fail.remote(KeyError("a")), fail.remote(ValueError("b"))]
    # ``get`` does not wait for more once one has failed: here both have.
    skate.wait(refs, num_returns=3)
    with pytest.raises(KeyError):
        skate.get(refs)


def test_error_raised_again_and_again() -> None:
    ref = fail.remote(ValueError("again"))
    errors = []
    for _ in range(3):
        with pytest.raises(ValueError, match="again") as caught:
            skate.get(ref)
        errors.append(caught.value)
    assert len(set(map(id, errors))) == 3
    assert len({str(error) for error in errors}) == 1


def odd_exceptions() -> list[tuple[Exception, dict[str, Any]]]:
    """Made where they are raised: not all of them survive ordinary pickling."""
    return [
        (RequiredArgumentsError(7, "x"), {"code": 7, "args": ("7: x",)}),
        (KeywordOnlyError(code=7), {"code": 7}),
        (WithSlotsError(7), {"code": 7}),
        (FileNotFoundError(2, "gone", "file"), {"errno": 2, "filename": "file"}),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), {"start": 0, "reason": "bad"}),
        (ExceptionGroup("several", [ValueError(1)]), {"message": "several"}),
        (StopIteration(7), {"value": 7}),
        (KeyError("k"), {"args": ("k",)}),
    ]


@pytest.mark.parametrize("which", range(8))
def test_odd_exceptions_keep_class_and_attributes(which: int) -> None:
    error, attributes = odd_exceptions()[which]

    @skate.remote
    def raise_it(which: int) -> None:
        raise odd_exceptions()[which][0]

    with pytest.raises(type(error)) as caught:
        skate.get(raise_it.remote(which))
    assert isinstance(caught.value, TaskError)
    for name, value in attributes.items():
        assert getattr(caught.value, name) == value


def test_exception_that_cannot_be_pickled() -> None:
    @skate.remote
    def f() -> None:
        raise WithLockError

    with pytest.raises(TaskError, match="cannot be pickled"):
        skate.get(f.remote())


def test_exception_without_a_string() -> None:
    @skate.remote
    def f() -> None:
        raise BadStrError

    with pytest.raises(TaskError, match="BadStrError"):
        skate.get(f.remote())


def test_exception_of_a_local_class() -> None:
    class LocalError(Exception):
        pass

    @skate.remote
    def f() -> None:
        raise LocalError("local")

    with pytest.raises(LocalError, match="local"):
        skate.get(f.remote())


# --------------------------------------------------------------------------- what cannot be pickled


def test_unpicklable_argument_is_named() -> None:
    with pytest.raises(SerializationError, match=r"args\[0\]\['lock'\]"):
        identity.remote({"lock": threading.Lock()})
    with pytest.raises(TypeError, match="lock"):
        identity.remote(x=threading.Lock())


def test_unpicklable_closure_is_named() -> None:
    guard = threading.Lock()

    @skate.remote
    def f() -> bool:
        return guard.locked()

    with pytest.raises(SerializationError, match="guard"):
        f.remote()


def test_unpicklable_class_attribute_is_named() -> None:
    class Holder:
        guard = threading.Lock()

    with pytest.raises(SerializationError, match="guard"):
        skate.remote(Holder).remote()


def test_unpicklable_put_is_named() -> None:
    with pytest.raises(SerializationError, match="lock"):
        skate.put([threading.Lock()])


def test_unpicklable_result() -> None:
    @skate.remote
    def f() -> Any:
        return {"inside": threading.Lock()}

    with pytest.raises(SerializationError, match="inside") as caught:
        skate.get(f.remote())
    assert isinstance(caught.value, TaskError)
    assert skate.get(identity.remote(1)) == 1


def test_one_unpicklable_result_of_two() -> None:
    @skate.remote(num_returns=2)
    def f() -> Any:
        return 1, threading.Lock()

    for ref in f.remote():
        with pytest.raises(SerializationError, match="lock"):
            skate.get(ref)


def test_result_that_cannot_be_unpickled() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    @skate.remote
    def f() -> Any:
        return Bomb()

    with pytest.raises(Exception, match="no number"):
        skate.get(f.remote())
    assert skate.get(identity.remote(1)) == 1


def test_function_that_cannot_be_unpickled() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    bomb = Bomb()

    @skate.remote(max_retries=0)
    def f() -> Any:
        return bomb

    @skate.remote
    class Bombed:
        def f(self) -> Any:
            return bomb

    with pytest.raises(Exception, match="no number"):
        skate.get(f.remote(), timeout=30)
    with pytest.raises(ActorDiedError, match="no number"):
        skate.get(Bombed.remote().f.remote(), timeout=30)
    assert skate.get(identity.remote(1)) == 1


def test_argument_that_cannot_be_unpickled() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    with pytest.raises(Exception, match="no number"):
        skate.get(identity.options(max_retries=0).remote(Bomb()))
    assert skate.get(identity.remote(1)) == 1


# --------------------------------------------------------------------------- actors


@skate.remote
class Fragile:
    def __init__(self, error: BaseException | None = None) -> None:
        if error is not None:
            raise error
        self.calls = 0

    def call(self) -> int:
        self.calls += 1
        return self.calls

    def fail(self) -> None:
        self.calls += 1
        raise ValueError("method failed")

    def result(self) -> Any:
        return threading.Lock()


def test_method_that_raises_leaves_the_actor_alive() -> None:
    actor = Fragile.remote()
    with pytest.raises(ValueError, match="method failed") as caught:
        skate.get(actor.fail.remote())
    assert isinstance(caught.value, TaskError)
    assert caught.value.function_name == "Fragile.fail"
    with pytest.raises(SerializationError):
        skate.get(actor.result.remote())
    assert skate.get(actor.call.remote()) == 2


def test_constructor_that_raises() -> None:
    actor = Fragile.remote(ValueError("no actor today"))
    for _ in range(2):
        with pytest.raises(ActorDiedError, match="no actor today") as caught:
            skate.get(actor.call.remote(), timeout=30)
        assert "__init__" in str(caught.value)


def test_constructor_with_a_failed_argument() -> None:
    actor = Fragile.remote(fail.remote(ValueError("argument failed")))
    with pytest.raises(SkateError, match="argument failed"):
        skate.get(actor.call.remote(), timeout=30)


def test_failed_argument_of_a_call_does_not_hurt_the_actor() -> None:
    @skate.remote
    class Holder:
        def keep(self, x: Any) -> Any:
            return x

    holder = Holder.remote()
    with pytest.raises(ValueError, match="broken"):
        skate.get(holder.keep.remote(fail.remote(ValueError("broken"))), timeout=30)
    assert skate.get(holder.keep.remote(1), timeout=30) == 1
