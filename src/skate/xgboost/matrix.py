"""``RayDMatrix``: data to train on, checked at once, read where it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from skate.xgboost.data import opening
from skate.xgboost.data.batch import FIELDS
from skate.xgboost.data.sharding import RayShardingMode
from skate.xgboost.loading import Common, ShardSpec

if TYPE_CHECKING:
    from skate.xgboost.data._base import Source


class RayDMatrix:
    """Data to train on or to predict for.

    Data that the driver holds goes into the object store once, when it is first used in a session;
    all actors of all trainings read it from there without copying it.  Pickled (for a task, an
    actor, a trial) the matrix is a reference to those objects.  Do not change the data in the
    meantime.

    Args:
        data: rows x columns: a NumPy array, a pandas or polars DataFrame, a pyarrow Table, a SciPy
            CSR matrix, a list of rows; object refs of such tables, a list or an iterable of them,
            anything with ``__arrow_c_stream__``.
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
        ignore: Sequence[str] | None = None,
        sharding: RayShardingMode = RayShardingMode.BATCH,
    ) -> None:
        if not isinstance(sharding, RayShardingMode):
            raise TypeError(f"sharding must be a RayShardingMode, not {sharding!r}")
        values = (label, weight, base_margin, qid, label_lower_bound, label_upper_bound)
        given = {
            name: value for name, value in zip(FIELDS, values, strict=True) if value is not None
        }
        self._source: Source = opening.source(
            data, given, list(ignore or ()), categorical=enable_categorical
        )
        self._source.check_mode(sharding)
        self.sharding = sharding
        optional = {
            "missing": missing,
            "feature_names": None if feature_names is None else list(feature_names),
            "feature_types": None if feature_types is None else list(feature_types),
            "feature_weights": feature_weights,
        }
        arguments: dict[str, Any] = {"enable_categorical": enable_categorical}
        arguments.update((name, value) for name, value in optional.items() if value is not None)
        self._check_features(arguments)
        self._common = Common(arguments, self._source.empty)

    def _check_features(self, arguments: Mapping[str, Any]) -> None:
        for name in ("feature_names", "feature_types", "feature_weights"):
            if name in arguments and len(arguments[name]) != self._source.columns:
                raise ValueError(
                    f"{name} has {len(arguments[name])} entries, but there are"
                    f" {self._source.columns} feature columns"
                )

    @property
    def has_label(self) -> bool:
        """Whether one can train on it."""
        return bool(self._source.fields & {"label", "label_lower_bound"})

    @property
    def nodes(self) -> frozenset[str]:
        """Ids of the nodes between which the data is spread, if it matters who reads what."""
        return self._source.nodes

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and feature columns."""
        return self.num_row(), self.num_col()

    def num_row(self) -> int:
        """Return the number of rows; of CSV files and partitions by reading them, once."""
        return self._source.counted()

    def num_col(self) -> int:
        """Return the number of feature columns."""
        return self._source.columns

    def shards(self, num_actors: int, nodes: Sequence[str] | None = None) -> list[ShardSpec]:
        """Return what each of ``num_actors`` actors has to load; some may get nothing.

        Args:
            num_actors: among how many to divide.
            nodes: the node of each rank; None if it does not matter (see the property ``nodes``).
        """
        divided = self._source.shards(num_actors, self.sharding, nodes)
        return [ShardSpec(pieces, self._common) for pieces in divided]

    def check_actors(self, num_actors: int) -> None:
        """Refuse a number of actors of which some would get no rows.

        Raises:
            ValueError: there are too many.
        """
        self._source.check_actors(num_actors, self.sharding)

    def __repr__(self) -> str:
        rows = self._source.rows
        return f"RayDMatrix({'?' if rows is None else rows} rows x {self.num_col()} columns)"
