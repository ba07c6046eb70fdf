"""From what a user passes as ``data`` to a ``Source``."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost import library
from skate.xgboost.data import blocks, tables
from skate.xgboost.data.batch import Columns, existing, flat, group_starts
from skate.xgboost.data.central import CentralSource

if TYPE_CHECKING:
    import numpy.typing as npt

    from skate.xgboost.data._base import Source


def source(
    data: Any, given: Mapping[str, Any], ignore: Sequence[str], *, categorical: bool
) -> Source:
    """Find out what the data is, and check it as far as that is possible without reading it.

    Args:
        data: what the user has.
        given: by field (see ``batch.FIELDS``): an array, or the name of a column or several.
        ignore: names of columns that are no features.
        categorical: whether features may be categories.

    Raises:
        TypeError, ValueError: it cannot be a matrix.
    """
    library.require_numpy()
    stream = _stream(data)
    if isinstance(data, skate.ObjectRef):
        stream = [data]
    if stream is None:
        return _central(tables.normal(data), given, ignore, categorical=categorical)
    return _blocks(stream, given, ignore, categorical=categorical)


def _stream(data: Any) -> Any | None:
    """Return an iterable of tables or refs; None if the data is one table."""
    found = tables.kind(data)
    if found or isinstance(data, str):
        return None
    if isinstance(data, list | tuple):
        return data if data and all(map(_is_part, data)) else None
    if hasattr(data, "__arrow_c_stream__"):
        return library.pyarrow(tables.name_of(data)).RecordBatchReader.from_stream(data)
    return data if hasattr(data, "__iter__") and not hasattr(data, "__array__") else None


def _is_part(item: Any) -> bool:
    """Say whether an item of a list is a table, not a row."""
    if isinstance(item, skate.ObjectRef):
        return True
    return bool(tables.kind(item)) and len(getattr(item, "shape", ())) == 2


def _split(
    names: Collection[Any] | None, given: Mapping[str, Any], ignore: Sequence[str]
) -> tuple[dict[str, str | list[str]], dict[str, Any], list[Any] | None]:
    """Return fields that are columns, fields that are arrays, and names of the features."""
    columns: dict[str, str | list[str]] = {}
    arrays: dict[str, Any] = {}
    known = None if names is None else list(names)
    for name, value in given.items():
        if isinstance(value, str) or (known is not None and _is_names(value)):
            existing(known, [value] if isinstance(value, str) else value, name)
            columns[name] = value
        else:
            arrays[name] = value
    existing(known, ignore, "ignore")
    if known is None:
        return columns, arrays, None
    taken = {*flat(columns.values()), *ignore}
    features = [name for name in known if name not in taken]
    if not features:
        raise ValueError("no columns are left to be features")
    return columns, arrays, features


def _is_names(value: Any) -> bool:
    """Say whether these are names of columns, of several targets, and no array of text."""
    return (
        isinstance(value, list) and 0 < len(value) <= 64 and all(isinstance(v, str) for v in value)
    )


def _central(
    table: Any, given: Mapping[str, Any], ignore: Sequence[str], *, categorical: bool
) -> CentralSource:
    columns, arrays, features = _split(tables.column_names(table), given, ignore)
    tables.check_features(tables.column_kinds(table), features or (), categorical=categorical)
    batch = Columns(columns, features).take(table)
    for name, value in arrays.items():
        batch.fields[name] = blocks.field_array(name, value)
    rows = batch.rows
    starts = group_starts(batch.fields["qid"]) if "qid" in batch.fields else None
    if starts is not None and "weight" in arrays:
        _check_length("weight", batch.fields["weight"], len(starts), "query groups")
        batch.fields["weight"] = _by_row(batch.fields["weight"], starts, rows)
    for name, values in batch.fields.items():
        _check_length(name, values, rows, "rows")
    return CentralSource(batch.features, batch.fields)


def _check_length(name: str, values: Any, wanted: int, of: str) -> None:
    if len(values) != wanted:
        raise ValueError(f"{name} has {len(values)} values, but the data has {wanted} {of}")


def _by_row(weights: npt.NDArray[Any], starts: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Return the weights of query groups as one for each row."""
    import numpy as np

    return np.repeat(weights, np.diff([*starts, rows]))


def _blocks(
    stream: Any, given: Mapping[str, Any], ignore: Sequence[str], *, categorical: bool
) -> blocks.BlockSource:
    refs = list(_stored(stream))
    qid = given.get("qid")
    infos = blocks.describe_refs(refs, qid if isinstance(qid, str) else None)
    blocks.check_alike(infos)
    kinds = infos[0].column_kinds
    names = None if kinds is None else [name for name, _, _ in kinds]
    columns, arrays, features = _split(names, given, ignore)
    for index, info in enumerate(infos):
        try:
            tables.check_features(info.column_kinds, features or (), categorical=categorical)
        except TypeError as error:
            error.add_note(f"in block {index}")
            raise
    starts = None
    if "qid" in arrays:
        ids = arrays["qid"] = blocks.field_array("qid", _joined(arrays["qid"]))
        starts = group_starts(ids)
        if "weight" in arrays:
            weights = blocks.field_array("weight", _joined(arrays["weight"]))
            _check_length("weight", weights, len(starts), "query groups")
            arrays["weight"] = _by_row(weights, starts, len(ids))
    field_refs = {name: _field_refs(name, value, infos) for name, value in arrays.items()}
    return blocks.BlockSource(refs, infos, Columns(columns, features), field_refs, starts)


def _stored(stream: Any) -> Iterator[Any]:
    """Yield refs of all tables of a stream, which may be refs already."""
    items = iter(stream)
    first = next(items, None)
    if isinstance(first, skate.ObjectRef):
        for item in itertools.chain([first], items):
            if not isinstance(item, skate.ObjectRef):
                raise TypeError(
                    "the data has object refs and other things: pass either refs or tables, not"
                    f" {tables.name_of(item)} among refs"
                )
            yield item
    elif first is not None:
        for block in blocks.gathered(itertools.chain([first], items)):
            yield skate.put(block)


def _field_refs(name: str, value: Any, infos: Sequence[blocks.BlockInfo]) -> list[Any]:
    """Return for each block a ref of the values of its rows."""
    if _are_refs(value):
        if len(value) != len(infos):
            raise ValueError(
                f"{name} has {len(value)} object refs, but the data has {len(infos)} blocks"
            )
        for index, (length, info) in enumerate(zip(blocks.lengths(value), infos, strict=True)):
            if length != info.rows:
                raise ValueError(
                    f"{name} of block {index} has {length} values, but the block has {info.rows}"
                    " rows"
                )
        return list(value)
    values = blocks.field_array(name, _joined(value))
    _check_length(name, values, sum(info.rows for info in infos), "rows")
    ends = itertools.accumulate(info.rows for info in infos)
    return [skate.put(values[end - info.rows : end]) for end, info in zip(ends, infos, strict=True)]


def _joined(value: Any) -> Any:
    """Return one array of what may be a ref, or several arrays or refs."""
    import numpy as np

    if isinstance(value, skate.ObjectRef) or _are_refs(value):
        value = skate.get(value)
    if isinstance(value, list | tuple) and value and all(hasattr(v, "shape") for v in value):
        return np.concatenate([np.asarray(each) for each in value])
    return value


def _are_refs(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, skate.ObjectRef) for each in value)
    )
