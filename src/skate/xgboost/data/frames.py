"""DataFrames of Dask and Modin, and what has ``__partitioned__``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import skate
from skate.xgboost.data import tables
from skate.xgboost.data._base import ColumnPiece, Place
from skate.xgboost.data.batch import Batch, Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskPiece(ColumnPiece):
    """A partition, computed where it is read.

    Attributes:
        ref: of the pickled graph: that of a frame which was made from memory contains its rows.
    """

    ref: Any

    def read(self) -> Batch:
        return self._take(skate.get(self.ref).compute(scheduler="synchronous"))

    def _chosen(self, start: int, stop: int) -> dict[str, Any]:
        raise AssertionError("the number of rows is not known")

    def __str__(self) -> str:
        return f"partition {self.place.index}"


def dask_head(frame: Any) -> Any:
    """Return the columns of a frame of Dask as a frame of pandas, without rows."""
    return frame._meta.iloc[:0]


def dask_pieces(frame: Any, columns: Columns, *, categorical: bool) -> list[DaskPiece]:
    """Return the partitions of a frame of Dask."""
    return [
        DaskPiece(
            place=Place(index, None),
            rows=None,
            size=1,
            ref=skate.put(delayed),
            columns=columns,
            categorical=categorical,
        )
        for index, delayed in enumerate(frame.to_delayed())
    ]


def modin(frame: Any) -> Any:
    """Return a frame of Modin as one of pandas."""
    return frame._to_pandas()


def partitioned(structure: Mapping[str, Any], *, named: bool) -> Any:
    """Return the partitions of what has ``__partitioned__``: object refs, or tables one by one.

    That is a draft of a protocol for tables that are spread over several machines,
    https://github.com/IntelPython/DPPY-Spec/blob/draft/partitioned/Partitioned.md.

    Args:
        structure: the value of that attribute.
        named: whether columns are going to be spoken of by name: those of arrays are called f0, f1
            and so on, as XGBoost calls them.

    Raises:
        ValueError: it is not divided by rows.
    """
    tiling = structure["partition_tiling"]
    if not 1 <= len(tiling) <= 2 or any(number != 1 for number in tiling[1:]):
        raise ValueError(f"__partitioned__: only rows may be divided, but the tiling is {tiling}")
    rest = (0,) * (len(tiling) - 1)
    parts = [structure["partitions"][(index, *rest)]["data"] for index in range(tiling[0])]
    if not all(isinstance(part, skate.ObjectRef) for part in parts):
        tables_of_parts = map(structure["get"], parts)
        return map(_with_names, tables_of_parts) if named else tables_of_parts
    if not named:
        return parts
    # Where the partitions are: a task runs beside what is large.
    task = skate.remote(_with_names).options(num_cpus=0)
    return [task.remote(part) for part in parts]


def _with_names(table: Any) -> Any:
    if tables.kind(table) != "numpy":
        return table
    import pandas

    return pandas.DataFrame(table, columns=[f"f{index}" for index in range(table.shape[1])])
