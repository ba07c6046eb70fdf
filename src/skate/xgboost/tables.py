"""What can be done with rows and columns of the kinds of tables that XGBoost takes.

XGBoost understands all of them by itself; needed here are only their size, their columns by name,
and consecutive or strided rows, without a copy where the kind allows it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from skate.xgboost import library

if TYPE_CHECKING:
    import numpy.typing as npt


def kind(data: Any) -> str:
    """Return "numpy", "pandas", "polars", "arrow", "scipy" or "" for anything else.

    Judged by the class's module, so that none of these has to be imported or installed.
    """
    for base in type(data).__mro__:
        name = f"{base.__module__.partition('.')[0]}.{base.__name__}"
        found = _KINDS.get(name)
        if found:
            return found
    return ""


_KINDS = {
    "numpy.ndarray": "numpy",
    "pandas.DataFrame": "pandas",
    "polars.DataFrame": "polars",
    "pyarrow.Table": "arrow",
    "scipy.csr_matrix": "scipy",
    "scipy.csr_array": "scipy",
}


def check(data: Any) -> Any:
    """Return the data as one of the known kinds, two-dimensional and ready to be shared.

    Raises:
        TypeError: no kind of table.
        ValueError: not two-dimensional, or without columns.
        XGBoostNotInstalledError: NumPy is missing.
    """
    library.require_numpy()
    import numpy as np

    if isinstance(data, list | tuple):
        data = np.asarray(data)
    found = kind(data)
    if not found:
        raise TypeError(
            "RayDMatrix takes a NumPy array, a pandas or polars DataFrame, a pyarrow Table or a"
            f" SciPy CSR matrix, not {type(data).__module__}.{type(data).__name__}"
        )
    if found == "numpy":
        if data.dtype == object or data.dtype.kind in "USmM":
            raise TypeError(f"RayDMatrix takes arrays of numbers, not of dtype {data.dtype}")
        if data.ndim != 2:
            raise ValueError(
                f"RayDMatrix takes a two-dimensional array (rows x columns), not one of shape"
                f" {data.shape}"
            )
        if not (data.flags.c_contiguous or data.flags.f_contiguous):
            # Only contiguous memory goes into shared memory as it is.
            data = np.ascontiguousarray(data)
    if data.shape[1] == 0:
        raise ValueError("the data has no columns")
    return data


def row_count(data: Any) -> int:
    """Return the number of rows."""
    return int(data.shape[0])


def column_names(data: Any) -> list[Any] | None:
    """Return the names of the columns, None for kinds without names."""
    found = kind(data)
    if found in ("pandas", "polars"):
        return list(data.columns)
    if found == "arrow":
        return list(data.column_names)
    return None


def column(data: Any, name: Any) -> npt.NDArray[Any]:
    """Return one column as an array."""
    values: npt.NDArray[Any] = data[name].to_numpy()
    return values


def drop(data: Any, names: Collection[Any]) -> Any:
    """Return the data without some columns."""
    if not names:
        return data
    found = kind(data)
    if found == "pandas":
        return data.drop(columns=list(names))
    if found == "polars":
        return data.drop(list(names))
    return data.drop_columns(list(names))


def rows(data: Any, part: slice) -> Any:
    """Return some rows: a view if they are consecutive and the kind allows it."""
    found = kind(data)
    if found == "pandas":
        return data.iloc[part]
    if found == "arrow":
        start, stop, step = part.indices(data.num_rows)
        if step == 1:
            return data.slice(start, stop - start)
        return data.take(list(range(start, stop, step)))
    return data[part]
