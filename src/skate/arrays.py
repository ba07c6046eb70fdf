"""Numpy arrays as bytes, without importing numpy and mostly without pickle.

numpy's own pickling writes two functions and a dtype object for every array.  A dtype without
fields is completely described by a short name, so an array is its name, its shape and its memory.
An array that is a whole value is not pickled at all::

    byte 0       ARRAY_MARK
    byte 1       1 if the elements are in Fortran order
    byte 2       length of the dtype's name
    byte 3       number of dimensions
    then         the shape, 8 bytes each, little endian; the name; zeros up to a multiple of 64
    then         the elements
"""

from __future__ import annotations

import importlib
import struct
import sys
from pickle import PickleBuffer
from typing import Any

#: First byte of the written form of an array.
ARRAY_MARK = 0x41
#: Elements start at a multiple of this many bytes: a cache line, and more than any SIMD unit asks.
ALIGNMENT = 64
#: Arrays up to this many bytes are copied at once instead of referred to until they are written.
#: That is faster up to 32 KiB, but then reading a collection of small arrays copies all of it.
INLINE_ARRAY_BYTES = 4096

#: Kinds of dtypes that ``dtype.str`` describes completely.
_PLAIN_KINDS = frozenset("biufcSUmM")
#: Names of dtypes are looked up so often that parsing them shows; strings have many lengths.
_MAX_DTYPES = 256

_dtypes: dict[bytes, Any] = {}
_ndarray: Any = None


def is_plain_array(value: Any) -> bool:
    """Return whether ``value`` is exactly an ndarray, of a dtype that its name describes."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not getattr(numpy, "ndarray", None):
        return False
    dtype = value.dtype
    return dtype.kind in _PLAIN_KINDS and not dtype.metadata


def array_pieces(array: Any) -> tuple[bytes | memoryview, ...]:
    """Return the written form of a plain array, in pieces; its memory is referred to if large."""
    dtype, shape = array.dtype, array.shape
    elements, order = array_memory(array)
    name = dtype.str.encode()
    head = struct.pack(f"<4B{len(shape)}Q", ARRAY_MARK, order == "F", len(name), len(shape), *shape)
    head += name
    head += bytes(-len(head) % ALIGNMENT)
    if type(elements) is bytes:
        return (head + elements,)
    return head, PickleBuffer(elements).raw()


def array_memory(array: Any) -> tuple[Any, str]:
    """Return the elements of a plain array as something with a contiguous buffer, and their order.

    Small arrays are copied, and those that are not contiguous.
    """
    order = "C"
    if array.nbytes <= INLINE_ARRAY_BYTES:
        # In C order whatever the strides are.
        return array.tobytes(), order
    flags = array.flags
    if not flags.c_contiguous:
        if flags.f_contiguous:
            order = "F"
        else:
            array = array.copy("C")
    if array.dtype.kind in "mM":
        array = array.view("i8")  # numpy does not export buffers of dates
    return array, order


def read_array(data: bytes | memoryview) -> Any:
    """Return the array written as ``data``, as a view of it; ``data`` is bytes or read-only.

    Raises:
        ValueError: the data is truncated or wrong.
    """
    try:
        _, is_fortran, name_length, dimensions = data[:4]
        shape = struct.unpack_from(f"<{dimensions}Q", data, 4)
        start = 4 + 8 * dimensions
        end = start + name_length
        dtype = _dtype(bytes(data[start:end]))
        return _ndarray(
            shape, dtype, data, end + -end % ALIGNMENT, None, "F" if is_fortran else "C"
        )
    except (TypeError, OverflowError, SyntaxError, struct.error) as error:
        raise ValueError(f"truncated serialized array: {error}") from None


def restore_array(buffer: Any, dtype: bytes, shape: tuple[int, ...], order: str) -> Any:
    """Return a read-only array over ``buffer``; the counterpart of ``Pickler`` for nested
    arrays."""
    found = _dtype(dtype)  # first: it imports numpy
    return _ndarray(shape, found, buffer, 0, None, order)


def _dtype(name: bytes) -> Any:
    global _ndarray
    found = _dtypes.get(name)
    if found is None:
        numpy = importlib.import_module("numpy")
        _ndarray = numpy.ndarray
        found = numpy.dtype(name.decode("ascii"))
        if found.kind not in _PLAIN_KINDS:
            raise ValueError(f"{name!r} is no dtype of a serialized array")
        if len(_dtypes) >= _MAX_DTYPES:
            _dtypes.clear()
        _dtypes[name] = found
    return found
