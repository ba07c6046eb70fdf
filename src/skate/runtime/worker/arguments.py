"""Arguments of a call, serialized for sending."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from skate.exceptions import SerializationError
from skate.refs import ObjectRef
from skate.runtime.wire.connection import MAX_PAYLOAD
from skate.runtime.worker.objects import INLINE_MAX
from skate.serialization import Slot, serialize, serialize_arguments

if TYPE_CHECKING:
    from skate.runtime.worker.core import Core


#: Serialized arguments, cells of the top-level refs in the order of their slots, cells of nested
#: refs.
Packed: TypeAlias = tuple[bytes, Sequence[Any], Sequence[Any]]


def pack(core: Core, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """Serialize arguments: top-level refs become slots, and so do values too large to send."""
    for value in args:
        if type(value) is ObjectRef:
            break
    else:
        for value in kwargs.values():
            if type(value) is ObjectRef:
                break
        else:
            serialized = serialize_arguments(args, kwargs)
            if serialized.size <= INLINE_MAX:
                nested = [ref._cell for ref in serialized.refs] if serialized.refs else ()
                return serialized.to_bytes(), (), nested
            return _pack_large(core, args, kwargs, [])

    cells: list[Any] = []

    def slot(value: Any) -> Any:
        if type(value) is not ObjectRef:
            return value
        cells.append(value._cell)
        return Slot(len(cells) - 1)

    args = tuple([slot(value) for value in args])
    kwargs = {name: slot(value) for name, value in kwargs.items()}
    serialized = serialize_arguments(args, kwargs)
    if serialized.size > INLINE_MAX:
        return _pack_large(core, args, kwargs, cells)
    return serialized.to_bytes(), cells, [ref._cell for ref in serialized.refs]


def _pack_large(
    core: Core, args: tuple[Any, ...], kwargs: dict[str, Any], cells: list[Any]
) -> Packed:
    def slot(value: Any) -> Any:
        if type(value) is Slot:
            return value
        serialized = serialize(value)
        if serialized.size <= INLINE_MAX:
            return value
        cells.append(core.objects.new_cell(serialized))
        return Slot(len(cells) - 1)

    args = tuple([slot(value) for value in args])
    kwargs = {name: slot(value) for name, value in kwargs.items()}
    serialized = serialize_arguments(args, kwargs)
    if serialized.size > MAX_PAYLOAD:
        raise SerializationError(
            f"the arguments are {serialized.size / 1e9:.1f} GB of small objects:"
            " put() them in parts and pass the refs"
        )
    return serialized.to_bytes(), cells, [ref._cell for ref in serialized.refs]
