"""The pickler behind ``skate.serialization`` for everything that is not plain data.

Kept apart because ``cloudpickle`` takes 20 ms to import: a program that has only imported
``skate``, or sends nothing but numbers and strings, does not pay for it.
"""

from __future__ import annotations

import copyreg
import pickle
import sys
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import cloudpickle

from skate.arrays import array_memory, is_plain_array, restore_array
from skate.refs import Tracked

_Reduction = Any
_Reducer = Callable[[Any], _Reduction]

#: Types that cloudpickle knows how to take apart (modules, cells, loggers, ...).  Looked up
#: in ``reducer_override`` because its own ``ChainMap`` costs a microsecond for every object.
_cloudpickle_reducers: dict[type, _Reducer] = dict(cloudpickle.CloudPickler.dispatch_table.maps[0])
_reduce_code_of_cloudpickle = _cloudpickle_reducers[CodeType]
#: What cloudpickle 3.1.3 and later writes instead of the name of a file.
_NO_FILE = "<dynamic-code>"
#: Types that we take apart better than they do themselves; filled when numpy has been imported.
_fast_reducers: dict[type, _Reducer] = {}
#: Names of modules whose classes and functions the user wants to travel by value.
_by_value_modules: set[str] = getattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", {"?"})


def _reduce_code(code: CodeType) -> _Reduction:
    """Reduce code with the name of its file: tracebacks and debuggers need it."""
    make, args = _reduce_code_of_cloudpickle(code)
    return make, tuple(
        code.co_filename if type(part) is str and part == _NO_FILE else part for part in args
    )


_cloudpickle_reducers[CodeType] = _reduce_code


class CodePickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle is not typed
    """cloudpickle's own, with the names of files."""

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle ``obj``, or NotImplemented for the default."""
        return _reduce_code(obj) if type(obj) is CodeType else super().reducer_override(obj)


class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # cloudpickle is not typed
    """Protocol 5 with out-of-band buffers; collects the refs it meets in ``refs``."""

    # A plain dict: the C pickler then looks up misses without calling back into Python.
    dispatch_table = copyreg.dispatch_table

    def __init__(self, file: Any, buffer_callback: Callable[[Any], Any]) -> None:
        # Not super().__init__: cloudpickle's does the same in more steps, and this one runs often.
        pickle.Pickler.__init__(self, file, 5, buffer_callback=buffer_callback)
        self.globals_ref: dict[int, Any] = {}
        self.proto = 5
        self.refs: list[Tracked] = []
        if not _fast_reducers and "numpy" in sys.modules:
            _learn_numpy()

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle ``obj``, or NotImplemented for the default."""
        kind = type(obj)
        reducer = _fast_reducers.get(kind)
        if reducer is not None:
            return reducer(obj)
        if issubclass(kind, Tracked):
            self.refs.append(obj)
            return obj.reduce_tracked()
        if issubclass(kind, (type, FunctionType)):
            return NotImplemented if _has_name(obj) else super().reducer_override(obj)
        reducer = _cloudpickle_reducers.get(kind)
        if reducer is not None:
            return reducer(obj)
        return NotImplemented


def _has_name(obj: Any) -> bool:
    """Return whether a class or function is certainly what its module has under its name.

    Answers for nearly all in a tenth of the time that cloudpickle takes to give the same answer.
    """
    module_name = getattr(obj, "__module__", None)
    if type(module_name) is not str or module_name == "__main__" or _by_value_modules:
        return False
    module = sys.modules.get(module_name)
    return module is not None and getattr(module, "__dict__", {}).get(obj.__qualname__) is obj


def _learn_numpy() -> None:
    numpy = sys.modules["numpy"]
    if not hasattr(numpy, "ndarray"):
        return  # another thread is importing it right now
    for kind in (numpy.float64, numpy.float32, numpy.int64, numpy.int32, numpy.bool_):
        _fast_reducers[kind] = _reduce_scalar
    _fast_reducers[numpy.ndarray] = _reduce_array


def _reduce_scalar(scalar: Any) -> Any:
    """Reduce a numpy scalar to a Python one; numpy would pickle its dtype with each."""
    return type(scalar), (scalar.item(),)


def _reduce_array(array: Any) -> Any:
    """Reduce an ndarray in half the time that numpy needs, and never to a writable one."""
    if not is_plain_array(array):
        return NotImplemented
    elements, order = array_memory(array)
    if type(elements) is not bytes:
        elements = pickle.PickleBuffer(elements)
    return restore_array, (elements, array.dtype.str.encode(), array.shape, order)


class BytesHolder:
    """Stands for one large ``bytes`` or ``bytearray``, so that it is pickled out of band."""

    __slots__ = ("content",)

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        return type(self.content), (pickle.PickleBuffer(self.content),)
