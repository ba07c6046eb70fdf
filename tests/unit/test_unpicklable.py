"""Errors of serialization name the part that is to blame."""

from __future__ import annotations

import functools
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from skate.exceptions import SerializationError
from skate.serialization import dumps_code, serialize, serialize_arguments

LOCK = threading.Lock()


class Connection:
    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.close()


class Client:
    def __init__(self) -> None:
        self.name = "c"
        self.conn = Connection()


class Slotted:
    __slots__ = ("lock", "name")

    def __init__(self) -> None:
        self.name = "s"
        self.lock = threading.Lock()


class Pair(NamedTuple):
    left: Any
    right: Any


class Refuses:
    def __reduce__(self) -> Any:
        raise KeyError("my own reason")


class RefusesState:
    def __getstate__(self) -> Any:
        raise RuntimeError("no state")


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class RefusesSilently:
    def __reduce__(self) -> Any:
        raise UnspeakableError


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


class Locks(dict[str, Any]):
    pass


def uses_global() -> Any:
    return LOCK


def closure_over(value: Any) -> Callable[[], Any]:
    def inner() -> Any:
        return value

    return inner


def with_default(lock: Any) -> Callable[..., Any]:
    # Local, so that it travels by value.
    def function(x: int, lock: Any = lock) -> Any:
        return lock

    return function


def in_main(function: Callable[..., Any]) -> Callable[..., Any]:
    function.__module__ = "__main__"
    return function


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        (threading.Lock(), "cannot serialize value (", "_thread.lock"),
        ([1, {"lock": threading.Lock()}], "value[1]['lock'] ", "_thread.lock"),
        (Client(), "value.conn.sock ", "socket.socket"),
        ({"a": (Client(),)}, "value['a'][0].conn.sock ", "socket.socket"),
        (Slotted(), "value.lock ", "_thread.lock"),
        (Pair(1, threading.Lock()), "value.right ", "_thread.lock"),
        (Locks(a=threading.Lock()), "value['a'] ", "_thread.lock"),
        ({threading.Lock(): 1}, "key <unlocked _thread.lock", "_thread.lock"),
        ((i for i in range(2)), "value (", "generator"),
        (closure_over(Client()), "closure variable value.conn.sock of function ", "socket.socket"),
        ([closure_over([LOCK])], "closure variable value[0] of function ", "_thread.lock"),
        (with_default(LOCK), "default value 0 of function ", "_thread.lock"),
        (Client().__init__, "value.__self__.conn.sock ", "socket.socket"),
        (functools.partial(print, 1, LOCK), "value.args[1] ", "_thread.lock"),
        (ValueError("x", LOCK), "value.args[1] ", "_thread.lock"),
        ([Refuses()], "value[0] ", "Refuses"),
        ({"k": RefusesState()}, "value['k'] ", "RefusesState"),
    ],
)
def test_the_part_is_named_with_its_type(value: Any, place: str, kind: str) -> None:
    with pytest.raises(SerializationError) as caught:
        serialize(value)
    message = str(caught.value)
    assert place in message
    assert kind in message
    assert isinstance(caught.value, TypeError)


def test_the_caller_says_what_the_value_is_called() -> None:
    with pytest.raises(SerializationError, match=r"cannot serialize self\.conn\.sock"):
        serialize(Client(), "self")


def test_arguments_are_named_as_in_the_call() -> None:
    with pytest.raises(SerializationError, match=r"args\[1\]\['lock'\]"):
        serialize_arguments((0, {"lock": LOCK}), {})
    with pytest.raises(SerializationError, match=r"kwargs\['db'\]\.conn\.sock"):
        serialize_arguments((1,), {"a": 1, "db": Client()})


def test_globals_and_attributes_of_code() -> None:
    class Holder:
        lock = LOCK

    with pytest.raises(SerializationError, match="global variable LOCK of function uses_global"):
        dumps_code(in_main(uses_global))
    with pytest.raises(SerializationError, match=r"Holder\.lock .*_thread\.lock"):
        dumps_code(Holder)
    with pytest.raises(SerializationError, match="closure variable value of function"):
        dumps_code(closure_over(LOCK))


def test_exceptions_of_the_users_own_methods_are_chained() -> None:
    with pytest.raises(SerializationError, match="KeyError: 'my own reason'") as caught:
        serialize([Refuses()])
    assert isinstance(caught.value.__cause__, KeyError)


def test_deep_nesting_is_explained() -> None:
    value: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 5):
        value = [value]
    with pytest.raises(SerializationError, match=r"value \(type list\): it is nested too deeply"):
        serialize(value)
    with pytest.raises(SerializationError, match=r"args\[1\] .*nested too deeply"):
        serialize_arguments((1, value), {})


def test_out_of_memory_is_not_disguised() -> None:
    class Hungry:
        def __reduce__(self) -> Any:
            raise MemoryError

    with pytest.raises(MemoryError):
        serialize([Hungry()])


@pytest.mark.parametrize("where", [0, 50_000, 99_999])
def test_the_search_is_quick_in_wide_values(where: int) -> None:
    value: list[Any] = list(range(100_000))
    value[where] = LOCK
    started = time.monotonic()
    with pytest.raises(SerializationError, match=rf"value\[{where}\] "):
        serialize(value)
    assert time.monotonic() - started < 20


def test_the_search_gives_up() -> None:
    value = [[i] for i in range(20_000)]
    value[-1] = [LOCK]  # type: ignore[list-item]  # that is what is wrong with it
    with pytest.raises(
        SerializationError, match=r"cannot serialize value \(type list\).*_thread\.lock"
    ):
        serialize(value)


def test_broken_messages_and_reprs_do_not_get_in_the_way() -> None:
    with pytest.raises(
        SerializationError, match=r"value\[0\] .*UnspeakableError: \(its message cannot"
    ):
        serialize([RefusesSilently()])
    with pytest.raises(SerializationError, match=r"_thread\.lock"):
        serialize({Unprintable(): LOCK})


def test_cycles_end() -> None:
    value: dict[str, Any] = {}
    value["self"] = [value, LOCK]
    with pytest.raises(SerializationError, match=r"_thread\.lock"):
        serialize(value)
