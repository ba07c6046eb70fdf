"""Arrays, bytes and other memory: uncopied and read-only where that is promised."""

from __future__ import annotations

import array
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from roundtrip import roundtrip, written

from skate.serialization import ALIGNMENT, LARGE_BYTES, deserialize, serialize


@dataclass
class Record:
    name: str
    values: list[int]


def arrays() -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for size in (0, 1, 10, 5000):
        for dtype in (
            "f8",
            "f4",
            "f2",
            "i1",
            "u8",
            ">i4",
            "?",
            "c16",
            "S3",
            "U2",
            "M8[ns]",
            "m8[s]",
        ):
            yield f"{dtype}-{size}", (np.arange(size) % 2).astype("i8").astype(dtype)
    big = np.arange(60000.0).reshape(30, 2000)
    yield "2d", big
    yield "fortran", np.asfortranarray(big)
    yield "transposed", big.T
    yield "strided", big[::2, ::3]
    yield "reversed", big[::-1]
    yield "small strided", np.arange(10)[::2]
    yield "small fortran", np.arange(6).reshape(2, 3).T
    yield "broadcast", np.broadcast_to(np.arange(1000.0), (10, 1000))
    yield "dates, fortran", np.asfortranarray(big.astype("i8").astype("M8[s]"))
    yield "zero size, shaped", np.zeros((3, 0, 2))
    yield "scalar array", np.array(7)
    yield "structured", np.zeros(2000, dtype=[("a", "f8"), ("b", "i4", (2,))])
    yield "small structured", np.zeros(2, dtype=[("a", "f8"), ("b", "i4")])
    yield "void", np.zeros(2000, dtype="V7")


@pytest.mark.parametrize("value", [pytest.param(a, id=name) for name, a in arrays()])
def test_arrays_come_back_equal_and_read_only(value: np.ndarray[Any, Any]) -> None:
    for result in (roundtrip(value), roundtrip({"k": [value]})["k"][0]):
        assert result.dtype == value.dtype
        assert result.shape == value.shape
        np.testing.assert_array_equal(result, value)
        assert not result.flags.writeable
        if value.size:
            with pytest.raises(ValueError, match="read-only"):
                result[...] = value


def test_large_arrays_are_not_copied() -> None:
    source = np.arange(100_000.0)
    serialized = serialize([source, 1])
    (buffer,) = serialized.buffers
    assert np.shares_memory(np.frombuffer(buffer), source)
    data = written(serialized)
    result = deserialize(data)[0]
    assert np.shares_memory(result, np.frombuffer(data, dtype="u1"))


@pytest.mark.parametrize("sizes", [(5000, 4097, 9001), (100_000,), (5000,) * 7])
def test_buffers_are_aligned(sizes: tuple[int, ...]) -> None:
    base = np.zeros(256 * 1024, dtype="u1")
    start = -base.ctypes.data % ALIGNMENT
    values = [np.ones(n, dtype="u1") for n in sizes]
    serialized = serialize(values if len(values) > 1 else values[0])
    view = memoryview(base)[start : start + serialized.size]
    serialized.write_into(view)
    results = deserialize(view)
    for result in results if len(values) > 1 else [results]:
        assert result.ctypes.data % ALIGNMENT == 0
        assert not result.flags.writeable
        assert result.all()


def test_an_array_alone_is_not_copied() -> None:
    source = np.arange(100_000.0)
    serialized = serialize(source)
    assert np.shares_memory(np.frombuffer(serialized.pieces()[-1]), source)
    data = written(serialized)
    assert len(data) == source.nbytes + 64
    assert np.shares_memory(deserialize(data), np.frombuffer(data, dtype="u1"))


def test_many_dtypes() -> None:
    for length in range(1, 600):
        value = np.array(["x" * length])
        assert roundtrip(value) == value
        assert roundtrip(value).dtype == value.dtype


def test_dtypes_with_metadata_keep_it() -> None:
    dtype = np.dtype("f8", metadata={"unit": "m"})
    result = roundtrip(np.zeros(3, dtype=dtype))
    assert result.dtype.metadata == {"unit": "m"}


def test_arrays_of_objects_are_never_made_from_bytes() -> None:
    data = b"\x41\x00\x02\x01" + (1).to_bytes(8, "little") + b"|O"
    with pytest.raises(ValueError, match="dtype"):
        deserialize(data.ljust(64, b"\0") + bytes(8))


def test_an_array_that_occurs_twice_is_written_once() -> None:
    source = np.zeros(10_000)
    serialized = serialize([source, source])
    assert len(serialized.buffers) == 1
    first, second = deserialize(written(serialized))
    assert first is second


def test_object_arrays() -> None:
    value = np.array([1, "a", None, [2]], dtype=object)
    result = roundtrip(value)
    assert result.dtype == object
    assert result.tolist() == value.tolist()


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_array_subclasses_keep_their_class() -> None:
    masked = np.ma.masked_array(np.arange(5000.0), mask=np.arange(5000) % 2)
    result = roundtrip(masked)
    assert type(result) is np.ma.MaskedArray
    assert result.sum() == masked.sum()
    assert type(roundtrip(np.asmatrix(np.eye(3)))) is np.matrix


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.1),
        np.float32(0.1),
        np.int64(-(2**63)),
        np.int32(5),
        np.bool_(True),
        np.uint8(3),
    ],
    ids=repr,
)
def test_numpy_scalars_keep_their_type_and_value(value: Any) -> None:
    result = roundtrip([value])[0]
    assert type(result) is type(value)
    assert result == value


# --------------------------------------------------------------------------- other buffers


@pytest.mark.parametrize("size", [0, 10, LARGE_BYTES, LARGE_BYTES + 1, 300_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_and_bytearrays(kind: Callable[[bytes], bytes | bytearray], size: int) -> None:
    value = kind(bytes(range(256)) * (size // 256) + bytes(size % 256))
    result = roundtrip(value)
    assert type(result) is type(value)
    assert result == value
    assert roundtrip([value]) == [value]


def test_large_bytes_are_copied_once() -> None:
    value = bytes(1 << 20)
    serialized = serialize(value)
    assert serialized.buffers[0].obj is value
    assert serialized.size < len(value) + 300


def test_large_bytes_and_strings_inside_other_values() -> None:
    text, blob = "\u00e9" * 200_000, b"ab" * 100_000
    value = {"record": Record("r", []), "text": text, "blobs": [blob, bytearray(blob)], "end": 1}
    serialized = serialize(value)
    assert any(piece is blob for piece in serialized.pieces())
    assert deserialize(written(serialized)) == value
    # Together with buffers.
    *rest, numbers = roundtrip([value, blob, np.arange(5000)])
    assert rest == [value, blob]
    assert numbers[-1] == 4999


def test_pickles_of_many_frames() -> None:
    value = [Record(str(i), [i]) for i in range(20_000)]
    serialized = serialize(value)
    assert len(serialized.pieces()) > 1
    assert deserialize(written(serialized)) == value


def test_a_bytearray_that_comes_back_is_writable() -> None:
    result = roundtrip(bytearray(200_000))
    result[0] = 1
    assert result[0] == 1


def test_pickle_buffers_become_read_only_views() -> None:
    result = roundtrip([pickle.PickleBuffer(bytearray(b"ab" * 1000))])[0]
    assert bytes(result) == b"ab" * 1000
    assert memoryview(result).readonly


def test_memoryviews_and_other_arrays() -> None:
    assert bytes(roundtrip(memoryview(b"abc" * 50_000))) == b"abc" * 50_000
    assert roundtrip(array.array("d", range(20_000))) == array.array("d", range(20_000))


def test_pandas_frames_are_views() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "a": np.arange(20_000.0),
            "b": np.arange(20_000),
            "c": pandas.date_range("2020", periods=20_000, freq="s"),
            "d": ["x", "y"] * 10_000,
            "e": pandas.Categorical(["u", "v"] * 10_000),
        }
    )
    data = written(serialize(frame))
    result = deserialize(data)
    pandas.testing.assert_frame_equal(result, frame)
    memory = np.frombuffer(data, dtype="u1")
    assert np.shares_memory(result["a"].to_numpy(), memory)
    assert np.shares_memory(result["b"].to_numpy(), memory)


def test_sparse_matrices_are_views() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.random(500, 400, density=0.1, format="csr", random_state=1)
    data = written(serialize(matrix))
    result = deserialize(data)
    assert (result != matrix).nnz == 0
    assert np.shares_memory(result.data, np.frombuffer(data, dtype="u1"))


def test_arrow_tables_are_views() -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": np.arange(50_000), "b": ["x"] * 50_000})
    data = written(serialize(table))
    result = deserialize(data)
    assert result.equals(table)
    start = np.frombuffer(data, dtype="u1").ctypes.data
    address = result["a"].chunk(0).buffers()[1].address
    assert start <= address < start + len(data)
