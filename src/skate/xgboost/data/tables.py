"""What can be done with rows and columns of the kinds of tables that XGBoost takes.

Users bring many kinds (``KINDS``); ``normal`` makes them one of the four that the rest works with:
a NumPy array, a pandas DataFrame, a pyarrow Table or a SciPy CSR matrix, without a copy where that
is possible.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from skate.xgboost import library

if TYPE_CHECKING:
    import numpy.typing as npt

#: What users are told that may be passed.
KINDS = (
    "a NumPy array, a pandas, polars, Dask or Modin DataFrame, a pyarrow Table, a SciPy sparse"
    " matrix, anything with __arrow_c_stream__, object refs of such tables, or names of CSV or"
    " Parquet files"
)

_KINDS = {
    "numpy.ndarray": "numpy",
    "pandas.DataFrame": "pandas",
    "pandas.Series": "series",
    "polars.DataFrame": "polars",
    "polars.LazyFrame": "lazy",
    "pyarrow.Table": "arrow",
    "pyarrow.RecordBatch": "batch",
    "scipy.csr_matrix": "scipy",
    "scipy.csr_array": "scipy",
    "scipy.spmatrix": "sparse",
    "scipy.sparray": "sparse",
    "modin.DataFrame": "modin",
    "dask.DataFrame": "dask",
    "dask_expr.DataFrame": "dask",
}


def kind(data: Any) -> str:
    """Return what sort of table this is, "" for none.

    Judged by the class's module, so that none of these has to be imported or installed.
    """
    for base in type(data).__mro__:
        found = _KINDS.get(f"{base.__module__.partition('.')[0]}.{base.__name__}")
        if found:
            return found
    return ""


def name_of(data: Any) -> str:
    """Return the full name of the type, for errors."""
    return f"{type(data).__module__}.{type(data).__name__}"


def normal(data: Any) -> Any:
    """Return a table as one of the four kinds, ready to be shared.

    Raises:
        TypeError: no kind of table, or not of numbers.
        ValueError: not two-dimensional, or without columns.
        XGBoostNotInstalledError: NumPy or pyarrow is missing.
    """
    library.require_numpy()
    found = kind(data)
    if found == "series":
        data, found = data.to_frame(), "pandas"
    elif found == "sparse":
        data, found = data.tocsr(), "scipy"
    elif found in ("polars", "lazy", "batch") or (
        not found and (hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"))
    ):
        data, found = _to_arrow(data, found), "arrow"
    elif not found and (isinstance(data, list | tuple) or hasattr(data, "__array__")):
        import numpy as np

        data, found = np.asarray(data), "numpy"
    if found not in ("numpy", "pandas", "arrow", "scipy"):
        raise TypeError(f"RayDMatrix takes {KINDS}, not {name_of(data)}")
    if found == "numpy":
        data = _checked_array(data)
    elif found == "arrow" and any(_is_dictionary(field.type) for field in data.schema):
        # Chunks may have dictionaries of their own.
        data = data.unify_dictionaries()
    if data.shape[1] == 0:
        raise ValueError("the data has no columns")
    return data


def _checked_array(data: Any) -> Any:
    import numpy as np

    if data.dtype.kind not in "biuf":
        raise TypeError(f"RayDMatrix takes arrays of numbers, not of dtype {data.dtype}")
    if data.ndim != 2:
        raise ValueError(
            "RayDMatrix takes a two-dimensional array (rows x columns), not one of shape"
            f" {data.shape}"
        )
    if not (data.flags.c_contiguous or data.flags.f_contiguous):
        # Only contiguous memory goes into shared memory as it is.
        data = np.ascontiguousarray(data)
    return data


def _to_arrow(data: Any, found: str) -> Any:
    arrow = library.pyarrow(name_of(data))
    if found == "lazy":
        data, found = data.collect(), "polars"
    if found == "polars":
        return data.to_arrow()
    if found == "batch":
        return arrow.Table.from_batches([data])
    if hasattr(data, "__arrow_c_stream__"):
        return arrow.RecordBatchReader.from_stream(data).read_all()
    return arrow.Table.from_batches([arrow.record_batch(data)])


def _is_dictionary(arrow_type: Any) -> bool:
    return bool(arrow_type.id == _dictionary_id())


def _dictionary_id() -> int:
    import pyarrow

    return int(pyarrow.lib.Type_DICTIONARY)


def row_count(table: Any) -> int:
    """Return the number of rows."""
    return int(table.shape[0])


def byte_count(table: Any) -> int:
    """Return about how many bytes the table takes."""
    found = kind(table)
    if found == "pandas":
        return int(table.memory_usage(index=False).sum())
    if found == "scipy":
        return int(table.data.nbytes + table.indices.nbytes + table.indptr.nbytes)
    return int(table.nbytes)


def column_names(table: Any) -> list[Any] | None:
    """Return the names of the columns, None for kinds without names."""
    found = kind(table)
    if found == "pandas":
        return list(table.columns)
    if found == "arrow":
        return list(table.column_names)
    return None


def column(table: Any, name: Any) -> npt.NDArray[Any]:
    """Return one column as an array of numbers.

    Raises:
        TypeError: it holds something else.
    """
    return numbers(table[name], f"column {name!r}")


def numbers(value: Any, what: str) -> npt.NDArray[Any]:
    """Return anything that is like an array of numbers as one; missing values become NaN.

    Raises:
        TypeError: it is not like that.
    """
    import numpy as np

    values: npt.NDArray[Any] = np.asarray(value)
    if values.dtype == object and hasattr(value, "to_numpy"):
        # Columns of pandas that may have missing values beside whole numbers.
        with contextlib.suppress(TypeError, ValueError):
            values = value.to_numpy(dtype="float64", na_value=np.nan)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{what} must be numbers, not of dtype {values.dtype}")
    return values


def select(table: Any, names: Sequence[Any]) -> Any:
    """Return some columns, in the order of ``names``."""
    if kind(table) == "pandas":
        return table if list(table.columns) == list(names) else table[list(names)]
    return table if table.column_names == list(names) else table.select(list(names))


def renamed(table: Any, names: Sequence[str]) -> Any:
    """Return an Arrow table with other names of its columns, and any other table as it is."""
    return table.rename_columns(list(names)) if kind(table) == "arrow" else table


def drop(table: Any, names: Collection[Any]) -> Any:
    """Return the table without some columns."""
    if not names:
        return table
    return select(table, [name for name in column_names(table) or () if name not in names])


def rows(table: Any, part: slice) -> Any:
    """Return some rows: a view if they are consecutive and the kind allows it."""
    found = kind(table)
    if found == "pandas":
        return table.iloc[part]
    if found == "arrow":
        start, stop, step = part.indices(table.num_rows)
        if step == 1:
            return table.slice(start, stop - start)
        return table.take(list(range(start, stop, step)))
    return table[part]


def compact(table: Any) -> Any:
    """Return a table that holds nothing but its own rows, in contiguous memory.

    A range of rows is a view of the whole; pickled as it is, it may take the whole along, or be
    copied once more on the way.
    """
    import numpy as np

    found = kind(table)
    if found == "numpy":
        if table.flags.c_contiguous or table.flags.f_contiguous:
            return table
        return np.ascontiguousarray(table)
    if found == "pandas":
        return table.copy()
    if found == "arrow":
        import pyarrow

        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return pyarrow.ipc.open_stream(sink.getvalue()).read_all()
    return table


def concatenate(parts: Sequence[Any]) -> Any:
    """Return one table of the rows of several of the same kind."""
    if len(parts) == 1:
        return parts[0]
    found = kind(parts[0])
    if found == "pandas":
        import pandas

        return pandas.concat(parts, ignore_index=True)
    if found == "arrow":
        import pyarrow

        return pyarrow.concat_tables(parts)
    if found == "scipy":
        import scipy.sparse

        return scipy.sparse.vstack(parts, format="csr")
    import numpy as np

    return np.concatenate(parts)


def dense(table: Any) -> npt.NDArray[Any]:
    """Return the numbers of a table as an array of 32 bit ones; what is missing becomes NaN."""
    import numpy as np

    found = kind(table)
    if found == "scipy":
        # Of what is not stored XGBoost does not know either.
        values = np.full(table.shape, np.nan, np.float32)
        coordinates = table.tocoo()
        values[coordinates.row, coordinates.col] = coordinates.data
        return values
    if found == "arrow":
        import pyarrow

        numbers = [each.cast(pyarrow.float32(), safe=False) for each in table.columns]
        return np.column_stack([np.asarray(each) for each in numbers])
    if found == "pandas":
        found_numbers: npt.NDArray[Any] = table.to_numpy(dtype=np.float32, na_value=np.nan)
        return found_numbers
    return np.asarray(table, dtype=np.float32)


def categories(table: Any) -> dict[Any, list[Any]]:
    """Return the categories of columns that have some, by name of the column."""
    found = kind(table)
    if found == "pandas":
        return {
            name: list(table[name].cat.categories)
            for name, dtype in table.dtypes.items()
            if _pandas_class(dtype) == "category"
        }
    if found == "arrow":
        return {
            each.name: _dictionary(table.column(each.name))
            for each in table.schema
            if _is_dictionary(each.type)
        }
    return {}


def _dictionary(chunked: Any) -> list[Any]:
    # Chunks may have dictionaries of their own.
    chunks = [chunk.dictionary.to_pylist() for chunk in chunked.chunks]
    return list(dict.fromkeys(itertools.chain.from_iterable(chunks)))


def united(
    parts: Iterable[Mapping[Any, list[Any]]], features: Collection[Any]
) -> dict[Any, list[Any]]:
    """Return the categories that parts of the data have together, by name of the feature."""
    found: dict[Any, dict[Any, None]] = {}
    for part in parts:
        for name, values in part.items():
            if name in features:
                found.setdefault(name, {}).update(dict.fromkeys(values))
    return {name: list(values) for name, values in found.items()}


def recoded(table: Any, wanted: Mapping[Any, list[Any]]) -> Any:
    """Return a table whose columns have these categories, by name: all of theirs and maybe more.

    XGBoost sees codes, the positions in such a list.
    """
    found = kind(table)
    for name, values in wanted.items():
        if found == "pandas":
            if list(table[name].cat.categories) != values:
                table = table.assign(**{name: table[name].cat.set_categories(values)})
        else:
            index = table.schema.get_field_index(name)
            table = table.set_column(index, name, _recoded_column(table.column(index), values))
    return table


def _recoded_column(chunked: Any, values: list[Any]) -> Any:
    import pyarrow
    from pyarrow import compute

    wanted = pyarrow.array(values, chunked.type.value_type)
    chunks = []
    for chunk in chunked.chunks:
        codes = compute.index_in(chunk.dictionary, value_set=wanted).take(chunk.indices)
        chunks.append(pyarrow.DictionaryArray.from_arrays(codes, wanted))
    return pyarrow.chunked_array(
        chunks, type=pyarrow.dictionary(pyarrow.int32(), chunked.type.value_type)
    )


#: Of one column: its name, its type for errors, and "number", "category" or "" for anything else.
ColumnKind: TypeAlias = "tuple[Any, str, str]"


def column_kinds(table: Any) -> list[ColumnKind] | None:
    """Return what the columns hold; None for kinds of tables that hold numbers only."""
    found = kind(table)
    if found == "pandas":
        return [(name, str(dtype), _pandas_class(dtype)) for name, dtype in table.dtypes.items()]
    if found == "arrow":
        return schema_kinds(table.schema)
    return None


def schema_kinds(schema: Any) -> list[ColumnKind]:
    """Return what the columns of an Arrow schema hold."""
    return [(each.name, str(each.type), _arrow_class(each.type)) for each in schema]


def check_features(
    columns: Iterable[ColumnKind] | None,
    features: Collection[Any],
    *,
    categorical: bool,
    where: str = "",
) -> None:
    """Refuse columns that XGBoost cannot take.

    Args:
        columns: all there are.
        features: the names of those that are features.
        categorical: whether these may be categories.
        where: the columns are, if there are several parts.

    Raises:
        TypeError: with the name of the column and what to do.
    """
    of = f" of {where}" if where else ""
    for name, dtype, found in columns or ():
        if name not in features or found == "number" or (found == "category" and categorical):
            continue
        if found == "category":
            raise TypeError(
                f"column {name!r}{of} has categories: pass enable_categorical=True, or leave it out"
                f" with ignore=[{name!r}]"
            )
        raise TypeError(
            f"column {name!r}{of} is of type {dtype}, which cannot be a feature: make it numbers or"
            f" a category, or leave it out with ignore=[{name!r}]"
        )


def _pandas_class(dtype: Any) -> str:
    from pandas.api import types

    if getattr(dtype, "name", "") == "category":
        return "category"
    arrow = getattr(dtype, "pyarrow_dtype", None)
    if arrow is not None:
        return _arrow_class(arrow)
    if types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype):
        return "" if types.is_complex_dtype(dtype) else "number"
    return ""


def _arrow_class(arrow_type: Any) -> str:
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        return "category"
    numeric = (
        types.is_integer(arrow_type)
        or types.is_floating(arrow_type)
        or types.is_boolean(arrow_type)
    )
    return "number" if numeric else ""
