"""DataFrames of Dask and Modin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import skate
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
