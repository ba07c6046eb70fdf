"""What goes into ``serialize`` comes out again, uncopied and read-only where that is promised."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import fractions
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roundtrip import roundtrip, written

from skate.refs import ObjectRef, hooks
from skate.serialization import (
    FAST_LENGTH,
    LARGE_BYTES,
    Slot,
    deserialize,
    deserialize_arguments,
    dumps_code,
    fill_slots,
    loads_code,
    serialize,
    serialize_arguments,
)


class Color(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Text(str):
    __slots__ = ()


@dataclass
class Record:
    name: str
    values: list[int]


PLAIN = [
    0,
    -(2**80),
    True,
    None,
    1.5,
    float("inf"),
    "",
    "\ud800 lone surrogate",
    b"",
    b"x" * LARGE_BYTES,
    (),
    (1, "a"),
    [1, 2.0, None],
    {"a": 1, 2: b"b"},
    list(range(FAST_LENGTH + 1)),
    {i: str(i) for i in range(FAST_LENGTH + 1)},
    {"nested": [{"deep": (1, [2])}]},
    {1, 2},
    frozenset("a"),
    1j,
    ...,
    bytearray(b"short"),
    range(5),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    decimal.Decimal("1.1"),
    fractions.Fraction(1, 3),
    collections.OrderedDict(a=1),
    collections.Counter("aab"),
    Color.RED,
    [Color.RED],
    Point(1, 2),
    Text("t"),
    {"k": Text("t")},
    Record("r", [1]),
    int,
    len,
    Record,
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    result = roundtrip(value)
    assert result == value
    assert type(result) is type(value)
    if isinstance(value, (list, tuple)):
        assert [type(item) for item in result] == [type(item) for item in value]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.text() | st.integers(), inner)
            | st.tuples(inner, inner)
            | st.binary()
        ),
    )
)
def test_nested_plain_data_comes_back_equal(value: Any) -> None:
    assert roundtrip(value) == value


def test_a_value_without_buffers_is_a_bare_pickle() -> None:
    for value in (1, [1], Record("r", [])):
        data = written(serialize(value))
        assert data[0] == 0x80
        assert pickle.loads(data) == value


# --------------------------------------------------------------------------- refs


class FakeCell:
    def __init__(self, number: int) -> None:
        self.object_id = bytes(15) + bytes([number])
        self.owner_address = "owner"


@pytest.fixture
def cells() -> Iterator[tuple[list[FakeCell], list[FakeCell]]]:
    """Return (cells by number, cells that were pinned) of an engine that does nothing else."""
    known = [FakeCell(i) for i in range(3)]
    pinned: list[FakeCell] = []
    hooks.resolve = lambda object_id, _: known[object_id[-1]]
    hooks.pin = pinned.append
    yield known, pinned
    hooks.clear()


Cells = tuple[list[FakeCell], list[FakeCell]]


def test_refs_are_collected_wherever_they_are(cells: Cells) -> None:
    known, pinned = cells
    refs: list[ObjectRef[Any]] = [ObjectRef(cell) for cell in known]

    def closure() -> ObjectRef[Any]:
        return refs[2]

    value = {"a": [refs[0], refs[0]], "b": Record("r", [refs[1]]), "c": closure}  # type: ignore[list-item]  # a ref is as good as any
    serialized = serialize(value)
    assert {ref.binary() for ref in serialized.refs} == {ref.binary() for ref in refs}  # type: ignore[attr-defined]  # they are ObjectRefs
    assert len(serialized.refs) == 3
    result = deserialize(written(serialized))
    assert result["a"] == [refs[0], refs[0]]
    assert result["c"]() == refs[2]
    assert pinned == []


def test_a_ref_alone(cells: Cells) -> None:
    ref: ObjectRef[Any] = ObjectRef(cells[0][1])
    serialized = serialize(ref)
    assert serialized.refs == [ref]
    assert deserialize(written(serialized)) == ref


def test_refs_in_code_are_pinned(cells: Cells) -> None:
    known, pinned = cells
    ref: ObjectRef[Any] = ObjectRef(known[0])
    function = loads_code(dumps_code(lambda: ref))
    assert function() == ref
    assert pinned == [known[0]]


# --------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, "a", [1, 2], {"k": None}), {}),
        ((), {"x": 1, "y": (1, 2)}),
        (tuple(range(100)), {}),
        ((Record("r", []),), {"k": Color.RED}),
        ((1,), {"k": [Record("r", [])]}),
    ],
)
def test_arguments_come_back(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert deserialize_arguments(written(serialize_arguments(args, kwargs))) == (args, kwargs)


def test_arguments_with_arrays_are_views() -> None:
    source = np.arange(10_000)
    data = written(serialize_arguments((source,), {"w": source * 2}))
    (first,), kwargs = deserialize_arguments(data)
    np.testing.assert_array_equal(first, source)
    np.testing.assert_array_equal(kwargs["w"], source * 2)
    assert not first.flags.writeable


def test_slots_are_filled() -> None:
    data = written(serialize_arguments((Slot(1), 5, [6]), {"k": Slot(0), "l": 7}))
    args, kwargs = fill_slots(*deserialize_arguments(data), values=["zero", "one"])
    assert args == ("one", 5, [6])
    assert kwargs == {"k": "zero", "l": 7}


# --------------------------------------------------------------------------- code


def test_functions_travel_by_value() -> None:
    factor = 3

    def multiply(x: int) -> int:
        return x * factor

    def factorial(n: int) -> int:
        return 1 if n == 0 else n * factorial(n - 1)

    assert loads_code(dumps_code(multiply))(2) == 6
    assert loads_code(dumps_code(factorial))(5) == 120
    assert roundtrip([lambda: 4])[0]() == 4
    assert loads_code(dumps_code(Record)) is Record


def test_code_is_the_same_bytes_each_time() -> None:
    def function(x: int) -> int:
        return x + len(PLAIN)

    assert dumps_code(function) == dumps_code(function)


def test_classes_of_main_can_be_read_by_another_process() -> None:
    write = textwrap.dedent(
        """
        import sys
        from skate.serialization import dumps_code, serialize
        class Thing:
            def __init__(self, x): self.x = x
            def double(self): return self.x * 2
        def make(x): return Thing(x).double()
        sys.stdout.buffer.write(len(dumps_code(make)).to_bytes(4, "big") + dumps_code(make))
        sys.stdout.buffer.write(serialize(Thing(21)).to_bytes())
        """
    )
    output = subprocess.run(
        [sys.executable, "-c", write], check=True, capture_output=True, timeout=30
    ).stdout
    size = int.from_bytes(output[:4], "big")
    assert loads_code(output[4 : 4 + size])(4) == 8
    assert deserialize(output[4 + size :]).double() == 42


def test_a_module_registered_by_value_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    import cloudpickle

    module = sys.modules[Record.__module__]
    assert serialize(Record("r", [])).size < 200
    cloudpickle.register_pickle_by_value(module)
    try:
        assert serialize(Record("r", [])).size > 500
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_nothing_of_numpy_or_cloudpickle_is_imported_for_plain_data() -> None:
    script = textwrap.dedent(
        """
        import sys
        from skate.serialization import deserialize, serialize, serialize_arguments
        before = {"numpy", "cloudpickle"} & set(sys.modules)
        deserialize(serialize({"a": 1}).to_bytes()), serialize_arguments((1, [2]), {"k": ()})
        sys.exit(len({"numpy", "cloudpickle"} & set(sys.modules)) - len(before))
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


# --------------------------------------------------------------------------- bad data


@pytest.mark.parametrize(
    "value", [[np.arange(2000.0), b"x"], np.arange(2000.0)], ids=["list", "array"]
)
def test_truncated_data_is_an_error(value: Any) -> None:
    data = written(serialize(value))
    for size in (0, 1, 3, 4, 11, 15, 20, 60, 100, len(data) - 1):
        with pytest.raises((ValueError, pickle.UnpicklingError, EOFError)):
            deserialize(data[:size])


@given(st.binary(max_size=100))
def test_noise_with_a_buffer_mark_is_an_error(noise: bytes) -> None:
    with pytest.raises((ValueError, pickle.UnpicklingError, EOFError)):
        deserialize(b"\x53" + noise[:15].ljust(15, b"\xff") + noise)


@given(st.binary(max_size=100))
def test_noise_with_an_array_mark_is_an_error_or_a_small_array(noise: bytes) -> None:
    try:
        result = deserialize(b"\x41" + noise)
    except ValueError:
        return
    assert result.nbytes <= len(noise)


def test_concurrent_use() -> None:
    source = [np.arange(5000), Record("r", [1]), lambda: 1]
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(100):
                result = roundtrip(source)
                assert result[0][-1] == 4999
                assert result[2]() == 1
        except BaseException as error:  # the thread's only way to report
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert errors == []


@pytest.mark.parametrize(
    "travel",
    [
        lambda function: loads_code(dumps_code(function)),
        lambda function: deserialize(serialize(function).to_bytes()),
    ],
    ids=["code", "value"],
)
def test_functions_keep_the_names_of_their_files(travel):
    # Tracebacks, the debugger and reports of hanging calls name them.
    function = travel(lambda: lambda: 1)
    assert function.__code__.co_filename == __file__
    assert function().__code__.co_filename == __file__
