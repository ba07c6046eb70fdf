"""Batches of calls on their way to tasks: large arrays travel once, through the object store."""

from __future__ import annotations

import contextvars
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import skate
from skate.actor import ActorHandle
from skate.pickling import CodePickler


class Shared(NamedTuple):
    """Stands for an array that was stored."""

    ref: skate.ObjectRef[Any]


class SharedArrays:
    """Arrays of one ``Parallel`` call that were stored, each once, by identity."""

    def __init__(self, least: int | None) -> None:
        #: Arrays of at least so many bytes are shared; None: none are.
        self._least = least
        # With each array, so that its id is not used again while this lives.
        self._known: dict[int, tuple[Any, Shared]] = {}

    def find(self, value: Any) -> Shared | None:
        """Return what stands for ``value``; None if that travels as it is."""
        # By name: NumPy is not imported only to look whether something comes from it.
        if (
            self._least is None
            or type(value).__module__ != "numpy"
            or type(value).__name__ != "ndarray"
            or value.nbytes < self._least
            or value.dtype.hasobject
        ):
            return None
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = (value, Shared(skate.put(value)))
        return known[1]


class _Pickler(CodePickler):
    """Puts arrays, refs and handles aside, which Skate itself takes to the task."""

    def __init__(self, file: io.BytesIO, arrays: SharedArrays) -> None:
        super().__init__(file, protocol=5)
        self._arrays = arrays
        self.aside: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        """Replace what is put aside by its number."""
        kept = obj if isinstance(obj, skate.ObjectRef | ActorHandle) else self._arrays.find(obj)
        if kept is None:
            return super().reducer_override(obj)
        self.aside.append(kept)
        return _take, (len(self.aside) - 1,)


#: What the batch that is being unpickled refers to.
_aside: contextvars.ContextVar[Sequence[Any]] = contextvars.ContextVar("aside")


def _take(number: int) -> Any:
    return _aside.get()[number]


def pack(batch: Callable[[], Any], arrays: SharedArrays) -> tuple[bytes, list[Any]]:
    """Pickle a batch; return the bytes and what has to travel beside them."""
    file = io.BytesIO()
    pickler = _Pickler(file, arrays)
    pickler.dump(batch)
    return file.getvalue(), pickler.aside


def run_packed(data: bytes, aside: list[Any]) -> Any:
    """Unpickle a batch and run it; arrays that were shared are read-only views."""
    refs = [kept.ref for kept in aside if isinstance(kept, Shared)]
    values = iter(skate.get(refs))
    token = _aside.set([next(values) if isinstance(kept, Shared) else kept for kept in aside])
    try:
        batch = pickle.loads(data)
    finally:
        _aside.reset(token)
    return batch()
