"""How values become bytes: pickle protocol 5, large buffers out of band, refs followed.

The written form is the same for messages and for shared memory.  A single array has a form of its
own (``skate.arrays``).  Anything else without buffers is a pickle as it is (first byte 0x80).  With
buffers::

    byte 0       BUFFERS_MARK
    bytes 4-8    number of buffers, little endian
    bytes 8-16   length of the pickle
    then         length of each buffer, 8 bytes each; the pickle; the buffers, each starting
                 at the next multiple of 64 bytes

``deserialize`` copies no buffer: arrays are read-only views of the data they were read from, and
keep it alive.

Functions, lambdas, and classes of ``__main__`` travel by value (cloudpickle), everything else that
has a name by name.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from skate.arrays import ALIGNMENT, ARRAY_MARK, array_pieces, is_plain_array, read_array
from skate.exceptions import SerializationError
from skate.refs import Tracked

if TYPE_CHECKING:
    from skate.pickling import Pickler

#: First byte of the written form with buffers; pickles of protocol 2 and later start with 0x80.
BUFFERS_MARK = 0x53
#: Containers longer than this are not examined for the fast path: a pickler of our own costs about
#: a microsecond, which is as much as looking at some tens of elements.
FAST_LENGTH = 32
#: ``bytes`` longer than this travel out of band when they are the whole value.
LARGE_BYTES = 64 * 1024

#: Bytes copied without giving another thread the chance to run: a millisecond's worth.
COPY_STEP = 8 * 1024 * 1024

_PICKLE_MARK = 0x80
_HEAD = struct.Struct("<B3xIQ")
_ZEROS = bytes(ALIGNMENT)

_dumps = pickle.dumps
_loads = pickle.loads


class Slot:
    """Stands in pickled arguments where a ref stood; ``index`` says which of the task's refs."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        return Slot, (self.index,)

    def __repr__(self) -> str:
        return f"Slot({self.index})"


#: Exact types which the C pickler writes without calling anybody.
_ATOMS = frozenset((int, float, str, bytes, bool, type(None)))
_ATOMS_AND_SLOT = _ATOMS | {Slot}


class Serialized:
    """A value taken apart, ready to be written once.

    ``buffers`` (and large ``bytes`` inside the pickle) are the value's own memory: write them
    before the value changes.
    """

    __slots__ = ("_pieces", "buffers", "refs", "size")

    def __init__(
        self,
        pieces: Sequence[bytes | memoryview],
        buffers: Sequence[memoryview] = (),
        refs: Sequence[Tracked] = (),
    ) -> None:
        #: The pickle, or all of an array.
        self._pieces = pieces
        #: Contiguous views of bytes, in the order of the pickle's buffers.
        self.buffers = buffers
        #: Every ref and actor handle inside the value, each once.
        self.refs = refs
        #: Bytes of the written form.
        self.size = len(pieces[0])
        if buffers or len(pieces) > 1:
            self.size = self._sum()

    def _sum(self) -> int:
        size = sum(map(len, self._pieces))
        if self.buffers:
            size += _HEAD.size + 8 * len(self.buffers)
            for buffer in self.buffers:
                size += -size % ALIGNMENT + buffer.nbytes
        return size

    def pieces(self) -> Sequence[bytes | memoryview]:
        """Return the written form as consecutive pieces, padding included."""
        if not self.buffers:
            return self._pieces
        lengths = [buffer.nbytes for buffer in self.buffers]
        pickle_size = sum(map(len, self._pieces))
        pieces: list[bytes | memoryview] = [
            _HEAD.pack(BUFFERS_MARK, len(lengths), pickle_size)
            + struct.pack(f"<{len(lengths)}Q", *lengths),
            *self._pieces,
        ]
        position = _HEAD.size + 8 * len(lengths) + pickle_size
        for buffer, length in zip(self.buffers, lengths, strict=True):
            padding = -position % ALIGNMENT
            if padding:
                pieces.append(_ZEROS[:padding])
            pieces.append(buffer)
            position += padding + length
        return pieces

    def to_bytes(self) -> bytes:
        """Return the written form."""
        # Of a single piece, which is nearly always the case, join makes no copy.
        return b"".join(self.pieces() if self.buffers else self._pieces)

    def detach(self) -> None:
        """Copy what is the value's own memory: from now on the value may change, or go."""
        self._pieces, self.buffers = (self.to_bytes(),), ()

    def write_into(self, view: memoryview) -> None:
        """Write ``size`` bytes to the start of ``view``, a writable view of bytes.

        Assigning to a slice of a memoryview is one ``memcpy``, which holds the interpreter: it is
        done in steps, between which other threads get a turn.
        """
        position = 0
        for piece in self.pieces():
            length = len(piece)
            if length > COPY_STEP:
                source = memoryview(piece)
                for start in range(0, length, COPY_STEP):
                    part = source[start : start + COPY_STEP]
                    view[position + start : position + start + len(part)] = part
            else:
                view[position : position + length] = piece
            position += length


_EMPTY_ARGUMENTS = Serialized((_dumps(((), {}), 5),))


def serialize(value: Any, name: str = "value") -> Serialized:
    """Take ``value`` apart.

    Args:
        value: anything that can be pickled.
        name: what to call the value if it cannot be serialized.

    Raises:
        SerializationError: names the part that cannot be pickled.
    """
    kind = type(value)
    if kind in _ATOMS:
        if kind is bytes and len(value) > LARGE_BYTES:
            return _serialize_bytes(value)
        return Serialized((_dumps(value, 5),))
    if _is_plain(value, kind):
        return Serialized((_dumps(value, 5),))
    if kind.__name__ == "ndarray" and is_plain_array(value):
        return Serialized(array_pieces(value))
    if kind is bytearray and len(value) > LARGE_BYTES:
        return _serialize_bytes(value)
    return _serialize_any(value, name)


def serialize_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Serialized:
    """Take the arguments of a call apart; refs at the top level have been replaced by ``Slot``.

    Raises:
        SerializationError: names the part that cannot be pickled, as ``args[1]['lock']``.
    """
    if not kwargs:
        if not args:
            return _EMPTY_ARGUMENTS
    elif not _are_plain(kwargs.values()):
        return _serialize_any((args, kwargs), "")
    if len(args) <= FAST_LENGTH and _are_plain(args):
        return Serialized((_dumps((args, kwargs), 5),))
    return _serialize_any((args, kwargs), "")


def _are_plain(values: Any) -> bool:
    """Return whether all are atoms, slots, or short containers of atoms."""
    if _ATOMS_AND_SLOT.issuperset(map(type, values)):
        return True
    for value in values:
        kind = type(value)
        if kind not in _ATOMS_AND_SLOT and not _is_plain(value, kind):
            return False
    return True


def _is_plain(value: Any, kind: type) -> bool:
    """Return whether ``value`` is a short tuple, list or dict of atoms."""
    if kind is tuple or kind is list:
        return len(value) <= FAST_LENGTH and _ATOMS.issuperset(map(type, value))
    if kind is dict:
        return (
            len(value) <= FAST_LENGTH
            and _ATOMS.issuperset(map(type, value.values()))
            and _ATOMS.issuperset(map(type, value))
        )
    return False


_Pickler: type[Pickler] | None = None


def _pickler_class() -> type[Pickler]:
    global _Pickler
    from skate.pickling import Pickler

    _Pickler = Pickler
    return Pickler


class _Pieces:
    """The file that a pickle is written to; large ``bytes`` arrive as themselves, uncopied."""

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if type(data) is bytes:
            self.pieces.append(data)
        elif type(data) is bytearray:
            self.pieces.append(memoryview(data))
        else:
            # A view of a temporary, the UTF-8 form of a long string.
            self.pieces.append(bytes(data))


def _serialize_any(value: object, name: str) -> Serialized:
    file = _Pieces()
    buffers: list[pickle.PickleBuffer] = []
    pickler = (_Pickler or _pickler_class())(file, buffers.append)
    try:
        pickler.dump(value)
        views = [buffer.raw() for buffer in buffers]
    except MemoryError:
        raise
    except Exception as error:
        from skate.unpicklable import explain

        raise SerializationError(explain(value, name, error)) from error
    return Serialized(file.pieces, views, pickler.refs)


def _serialize_bytes(value: Any) -> Serialized:
    from skate.pickling import BytesHolder

    view = memoryview(value)
    pickled = _dumps(BytesHolder(value), 5, buffer_callback=lambda _: False)
    return Serialized((pickled,), [view])


def deserialize(data: bytes | memoryview) -> Any:
    """Return the value written as ``data``; its arrays are read-only views of ``data``.

    Raises:
        ValueError: ``data`` is truncated or was not written by ``Serialized``.
        Exception: whatever unpickling raises (a module that cannot be imported, for instance).
    """
    if not data:
        raise ValueError("no serialized value: the data is empty")
    mark = data[0]
    if mark == _PICKLE_MARK:
        return _loads(data)
    if mark == ARRAY_MARK:
        return read_array(data if type(data) is bytes else memoryview(data).toreadonly())
    if mark != BUFFERS_MARK:
        raise ValueError(f"no serialized value: the data starts with {mark:#04x}")
    view = memoryview(data).toreadonly()
    try:
        _, count, position = _HEAD.unpack_from(view)
        lengths = struct.unpack_from(f"<{count}Q", view, _HEAD.size)
    except struct.error as error:
        raise ValueError(f"truncated serialized value: {error}") from None
    start = _HEAD.size + 8 * count
    position += start
    pickled = view[start:position]
    buffers = []
    for length in lengths:
        position += -position % ALIGNMENT
        buffers.append(view[position : position + length])
        position += length
    if position > len(view):
        raise ValueError(f"truncated serialized value: {len(view)} of {position} bytes")
    return _loads(pickled, buffers=buffers)


def deserialize_arguments(data: bytes | memoryview) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments written by ``serialize_arguments``, slots still in their places."""
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = deserialize(data)
    return arguments


def fill_slots(
    args: tuple[Any, ...], kwargs: dict[str, Any], values: Sequence[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with each slot replaced by ``values[slot.index]``."""
    filled = tuple([values[arg.index] if type(arg) is Slot else arg for arg in args])
    if kwargs:
        kwargs = {
            key: values[value.index] if type(value) is Slot else value
            for key, value in kwargs.items()
        }
    return filled, kwargs


def dumps_code(target: Callable[..., Any]) -> bytes:
    """Return a function or class as bytes, by value unless its module can be imported elsewhere.

    Refs inside it keep their objects until the session ends: code is cached by whoever receives it.

    Raises:
        SerializationError: names the closure variable, global or attribute that cannot be pickled.
    """
    from skate.pickling import CodePickler

    file = io.BytesIO()
    try:
        CodePickler(file, protocol=5).dump(target)
    except MemoryError:
        raise
    except Exception as error:
        from skate.unpicklable import explain

        name = getattr(target, "__qualname__", None) or repr(target)
        raise SerializationError(explain(target, name, error)) from error
    return file.getvalue()


def loads_code(payload: bytes) -> Any:
    """Return the function or class written by ``dumps_code``."""
    return _loads(payload)
