"""``RayDMatrix``: data that the driver holds, checked at once, shared when it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost import tables
from skate.xgboost.sharding import RayShardingMode, ShardPlan, group_starts

if TYPE_CHECKING:
    import numpy.typing as npt

#: Row-wise parts of a matrix beside its features, by their names in ``xgboost.DMatrix``.
_FIELDS = ("label", "weight", "base_margin", "qid", "label_lower_bound", "label_upper_bound")


@dataclass(slots=True)
class CentralData:
    """What lies in the object store: everything that makes a ``DMatrix``, of all rows."""

    features: Any
    #: Row-wise arrays by name.
    fields: dict[str, npt.NDArray[Any]]
    #: Arguments of ``DMatrix`` that are the same for every shard.
    common: dict[str, Any]
    #: First rows of the query groups, if there are any; ``weight`` is then by group.
    group_starts: npt.NDArray[Any] | None = None


class RayDMatrix:
    """Data to train on or to predict for.

    The data goes into the object store once, when it is first used in a session; all actors of
    all trainings read it from there without copying it.  Pickled (for a task, an actor, a trial)
    the matrix is a reference to that object.  Do not change the data in the meantime.

    Args:
        data: rows x columns: a NumPy array, a pandas or polars DataFrame, a pyarrow Table, a SciPy
            CSR matrix, or a list of rows.
        label: the target of each row: an array, or the name of a column of ``data``.
        weight: of each row (with ``qid``: of each query group); an array or a column's name.
        feature_weights: of each column, for column sampling.
        base_margin: where the prediction of each row starts from.
        missing: the value that stands for "missing" in ``data``; NaN by default.
        label_lower_bound, label_upper_bound: for survival analysis.
        feature_names, feature_types: as in ``xgboost.DMatrix``; DataFrames bring their own.
        qid: the query group of each row, for ranking; sorted.
        enable_categorical: whether columns of category type are features.
        ignore: names of columns that are neither features nor anything else.
        sharding: which rows go to which actor.

    Raises:
        TypeError, ValueError: data that cannot be a matrix, a column that does not exist, or parts
            whose lengths differ.
    """

    def __init__(
        self,
        data: Any,
        label: Any = None,
        weight: Any = None,
        feature_weights: Any = None,
        base_margin: Any = None,
        missing: float | None = None,
        label_lower_bound: Any = None,
        label_upper_bound: Any = None,
        feature_names: Sequence[str] | None = None,
        feature_types: Sequence[str] | None = None,
        qid: Any = None,
        enable_categorical: bool = False,
        *,
        ignore: Sequence[str] = (),
        sharding: RayShardingMode = RayShardingMode.BATCH,
    ) -> None:
        if not isinstance(sharding, RayShardingMode):
            raise TypeError(f"sharding must be a RayShardingMode, not {sharding!r}")
        data = tables.check(data)
        given = (label, weight, base_margin, qid, label_lower_bound, label_upper_bound)
        names = tables.column_names(data)
        taken = set(_existing(names, list(ignore), "ignore"))
        fields: dict[str, npt.NDArray[Any]] = {}
        for name, value in zip(_FIELDS, given, strict=True):
            if value is None:
                continue
            if isinstance(value, str):
                taken.update(_existing(names, [value], name))
                fields[name] = tables.column(data, value)
            else:
                fields[name] = _array(name, value)
        features = tables.drop(data, taken)
        if features.shape[1] == 0:
            raise ValueError("no columns are left to be features")
        self.sharding = sharding
        self._rows = tables.row_count(data)
        self._columns = int(features.shape[1])
        starts = None
        if "qid" in fields:
            starts = group_starts(fields["qid"])
            if sharding is RayShardingMode.INTERLEAVED:
                ShardPlan.make(self._rows, 1, sharding, starts)
        self._check_lengths(fields, None if starts is None else len(starts))
        optional = {
            "missing": missing,
            "feature_names": None if feature_names is None else list(feature_names),
            "feature_types": None if feature_types is None else list(feature_types),
            "feature_weights": feature_weights,
        }
        common: dict[str, Any] = {"enable_categorical": enable_categorical}
        common.update((name, value) for name, value in optional.items() if value is not None)
        self._check_features(common)
        self.has_label = "label" in fields or "label_lower_bound" in fields
        self._group_starts = starts
        self._data: CentralData | None = CentralData(features, fields, common, starts)
        self._ref: Any = None
        self._session = ""

    def _check_lengths(self, fields: dict[str, npt.NDArray[Any]], groups: int | None) -> None:
        for name, values in fields.items():
            wanted, of = self._rows, "rows"
            if name == "weight" and groups is not None:
                wanted, of = groups, "query groups"
            if len(values) != wanted:
                raise ValueError(f"{name} has {len(values)} values, but the data has {wanted} {of}")

    def _check_features(self, common: dict[str, Any]) -> None:
        for name in ("feature_names", "feature_types", "feature_weights"):
            if name in common and len(common[name]) != self._columns:
                raise ValueError(
                    f"{name} has {len(common[name])} entries, but there are {self._columns}"
                    " feature columns"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and feature columns."""
        return self._rows, self._columns

    def num_row(self) -> int:
        """Return the number of rows."""
        return self._rows

    def num_col(self) -> int:
        """Return the number of feature columns."""
        return self._columns

    def plan(self, num_actors: int) -> ShardPlan:
        """Return which rows each of ``num_actors`` actors gets."""
        return ShardPlan.make(self._rows, num_actors, self.sharding, self._group_starts)

    def ref(self) -> Any:
        """Return a reference to the ``CentralData``, putting it into the object store if needed."""
        # A session that has ended took its objects along.
        session = skate.get_runtime_context().get_job_id()
        if self._data is not None and (self._ref is None or self._session != session):
            self._ref = skate.put(self._data)
            self._session = session
        return self._ref

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ref": self.ref(), "_data": None}

    def __repr__(self) -> str:
        return f"RayDMatrix({self._rows} rows x {self._columns} columns)"


def _array(name: str, value: Any) -> npt.NDArray[Any]:
    import numpy as np

    values: npt.NDArray[Any] = np.asarray(value)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, not of dtype {values.dtype}")
    if values.ndim == 0:
        raise TypeError(f"{name} must be an array or the name of a column, not {value!r}")
    if name != "base_margin" and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    return np.ascontiguousarray(values)


def _existing(names: list[Any] | None, wanted: list[str], argument: str) -> list[str]:
    if wanted and names is None:
        raise TypeError(f"{argument}={wanted[-1]!r} names a column, but the data has no names")
    for name in wanted:
        if name not in (names or ()):
            shown = ", ".join(map(str, (names or [])[:20]))
            raise ValueError(f"{argument}: there is no column {name!r}, only {shown}")
    return wanted
