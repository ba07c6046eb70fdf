"""From what a user passes as ``data`` to a ``Source``."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost import library
from skate.xgboost.data import blocks, files, frames, places, tables
from skate.xgboost.data.batch import Columns, existing, flat, group_starts
from skate.xgboost.data.central import CentralSource
from skate.xgboost.data.parts import PartSource
from skate.xgboost.data.places import RayFileType

if TYPE_CHECKING:
    import numpy.typing as npt

    from skate.xgboost.data._base import Source


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user says about the data.

    Attributes:
        fields: by name (see ``batch.FIELDS``): an array, or the name of a column or several.
        ignore: names of columns that are no features.
        categorical: whether features may be categories.
        num_actors: how many actors there are going to be, as far as that is known.
        distributed: whether the actors read the data; None: if they can.
        file_type: what is in files, if their names do not say.
        options: of ``pandas.read_csv``, or ``columns`` of Parquet files.
    """

    fields: Mapping[str, Any]
    ignore: Sequence[str] = ()
    categorical: bool = False
    num_actors: int = 1
    distributed: bool | None = None
    file_type: RayFileType | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def source(data: Any, wishes: Wishes) -> Source:
    """Find out what the data is, and check it as far as that is possible without reading it.

    Raises:
        TypeError, ValueError: it cannot be a matrix.
        FileNotFoundError: there is no such file.
    """
    library.require_numpy()
    names = _file_names(data)
    if names is not None:
        return _files(names, wishes)
    if wishes.options or wishes.file_type is not None:
        unknown = ", ".join([*wishes.options, *(["filetype"] if wishes.file_type else [])])
        raise TypeError(f"RayDMatrix: there is no argument {unknown} for {tables.name_of(data)}")
    found = tables.kind(data)
    if found == "dask":
        return _dask(data, wishes)
    if found == "modin":
        data = frames.modin(data)
    if not found and hasattr(data, "__partitioned__"):
        data = frames.partitioned(data.__partitioned__, named=_names_columns(wishes))
    stream = _stream(data)
    if isinstance(data, skate.ObjectRef):
        stream = [data]
    if stream is not None:
        return _blocks(stream, wishes)
    if wishes.distributed:
        raise ValueError(
            f"distributed=True is for files, object refs and partitions, not {tables.name_of(data)}"
        )
    return _central(tables.normal(data), wishes)


def _file_names(data: Any) -> list[str] | None:
    """Return names of files, None if the data is something else."""
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)]
    if not isinstance(data, list | tuple) or not data:
        return None
    are_names = all(isinstance(each, str | os.PathLike) for each in data)
    return [os.fspath(each) for each in data] if are_names else None


def _files(names: Sequence[str], wishes: Wishes) -> Source:
    found = places.expanded(names)
    kind = places.file_type(found, wishes.file_type)
    infos = files.look(found, kind, wishes.options)
    kinds = infos[0].column_kinds
    # A column in the names of folders is not read, so whoever leaves it out need not.
    unread = places.folder_columns(found) - {name for name, _, _ in kinds}
    wishes = replace(wishes, ignore=[name for name in wishes.ignore if name not in unread])
    columns = _columns(kinds, wishes)
    for path, info in zip(found, infos, strict=True):
        tables.check_features(
            info.column_kinds, columns.features or (), categorical=wishes.categorical, where=path
        )
    pieces = files.pieces(
        found, infos, kind, columns, wishes.options, categorical=wishes.categorical
    )
    # Of a file without rows the types are not known.
    longest = max(infos, key=lambda info: info.size)
    return _parts(pieces, columns, longest.head, "files", wishes)


def _dask(frame: Any, wishes: Wishes) -> Source:
    head = frames.dask_head(frame)
    kinds = tables.column_kinds(head) or []
    columns = _columns(kinds, wishes)
    tables.check_features(kinds, columns.features or (), categorical=wishes.categorical)
    pieces = frames.dask_pieces(frame, columns, categorical=wishes.categorical)
    return _parts(pieces, columns, head, "partitions", wishes)


def _parts(pieces: Sequence[Any], columns: Columns, head: Any, what: str, wishes: Wishes) -> Source:
    parts = PartSource(pieces, columns, head, what)
    return parts.gathered(wishes.num_actors) if wishes.distributed is False else parts


def _columns(kinds: Sequence[tables.ColumnKind], wishes: Wishes) -> Columns:
    """Return which column is what, for data whose fields are columns."""
    columns, arrays, features = _split([name for name, _, _ in kinds], wishes)
    for name, value in arrays.items():
        raise TypeError(
            f"{name} must be the name of a column if the data is files or partitions, not"
            f" {tables.name_of(value)}"
        )
    return Columns(columns, features)


def _names_columns(wishes: Wishes) -> bool:
    """Say whether the user speaks of columns by name."""
    values = wishes.fields.values()
    return bool(wishes.ignore) or any(isinstance(v, str) or _is_names(v) for v in values)


def _stream(data: Any) -> Any | None:
    """Return an iterable of tables or refs; None if the data is one table."""
    found = tables.kind(data)
    if found or isinstance(data, Mapping):
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
    names: Collection[Any] | None, wishes: Wishes
) -> tuple[dict[str, str | list[str]], dict[str, Any], list[Any] | None]:
    """Return fields that are columns, fields that are arrays, and names of the features."""
    columns: dict[str, str | list[str]] = {}
    arrays: dict[str, Any] = {}
    known = None if names is None else list(names)
    for name, value in wishes.fields.items():
        if isinstance(value, str) or (known is not None and _is_names(value)):
            existing(known, [value] if isinstance(value, str) else value, name)
            columns[name] = value
        else:
            arrays[name] = value
    existing(known, wishes.ignore, "ignore")
    if known is None:
        return columns, arrays, None
    for name, count in Counter(known).items():
        if count > 1 and name not in wishes.ignore:
            raise ValueError(f"{count} columns are called {name!r}")
    taken = {*flat(columns.values()), *wishes.ignore}
    features = [name for name in known if name not in taken]
    if not features:
        raise ValueError("no columns are left to be features")
    return columns, arrays, features


def _is_names(value: Any) -> bool:
    """Say whether these are names of columns, of several targets, and no array of text."""
    return (
        isinstance(value, list) and 0 < len(value) <= 64 and all(isinstance(v, str) for v in value)
    )


def _central(table: Any, wishes: Wishes) -> CentralSource:
    columns, arrays, features = _split(tables.column_names(table), wishes)
    tables.check_features(
        tables.column_kinds(table), features or (), categorical=wishes.categorical
    )
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
    return CentralSource(batch.features, batch.fields, wishes.num_actors)


def _check_length(name: str, values: Any, wanted: int, of: str) -> None:
    if len(values) != wanted:
        raise ValueError(f"{name} has {len(values)} values, but the data has {wanted} {of}")


def _by_row(weights: npt.NDArray[Any], starts: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Return the weights of query groups as one for each row."""
    import numpy as np

    return np.repeat(weights, np.diff([*starts, rows]))


def _blocks(stream: Any, wishes: Wishes) -> blocks.BlockSource:
    refs = list(_stored(stream))
    qid = wishes.fields.get("qid")
    infos = blocks.describe_refs(refs, qid if isinstance(qid, str) else None)
    blocks.check_alike(infos)
    kinds = infos[0].column_kinds
    names = None if kinds is None else [name for name, _, _ in kinds]
    columns, arrays, features = _split(names, wishes)
    for index, info in enumerate(infos):
        tables.check_features(
            info.column_kinds,
            features or (),
            categorical=wishes.categorical,
            where=f"block {index}",
        )
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
