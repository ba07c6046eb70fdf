"""``RayDMatrix``: data to train on, checked at once, read where it is used."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

from skate.xgboost.amounts import real, whole
from skate.xgboost.data import opening
from skate.xgboost.data._base import Place
from skate.xgboost.data.batch import FIELDS
from skate.xgboost.data.places import RayFileType
from skate.xgboost.data.sharding import RayShardingMode, merge
from skate.xgboost.loading import Common, ShardSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from skate.xgboost.data._base import Source

#: What a ``RayDMatrix`` may be made of, in annotations: see ``data`` there.
Data: TypeAlias = Any


class RayDMatrix:
    """Data to train on or to predict for.

    Data that the driver holds goes into the object store once, when it is first used in a session;
    all actors of all trainings read it from there without copying it.  Pickled (for a task, an
    actor, a trial) the matrix is a reference to those objects.  Do not change the data in the
    meantime.

    Args:
        data: rows x columns: a NumPy array, a pandas or polars DataFrame, a pyarrow Table, a SciPy
            CSR matrix, a list of rows; object refs of such tables, a list or an iterable of them,
            anything with ``__arrow_c_stream__``; a Dask or Modin DataFrame; or names of CSV or
            Parquet files: one or several, with globs, folders, or URLs for fsspec.
        label: the target of each row: an array, or the name of a column of ``data``.
        weight: of each row (with ``qid``: of each query group); an array or a column's name.
        feature_weights: of each column, for column sampling.
        base_margin: where the prediction of each row starts from.
        missing: the value that stands for "missing" in ``data``; NaN by default.
        label_lower_bound, label_upper_bound: for survival analysis.
        feature_names, feature_types: as in ``xgboost.DMatrix``; DataFrames bring their own.
        qid: the query group of each row, for ranking; sorted.
        enable_categorical: whether columns of category type are features.
        num_actors: how many actors are going to use the data: if it is pickled before it is used,
            it is cut for so many.
        filetype: what is in files, if their names do not say.
        ignore: names of columns that are neither features nor anything else.
        distributed: whether the actors read files and partitions themselves, as they do by default;
            False: they are read here and now.
        sharding: which rows go to which actor.
        external_memory: for more data than there is memory: actors read it again and again, and
            keep its bins in temporary files; a folder for these, or True.
        lazy: False: if ``num_actors`` is given, ``load_data`` is called here and now.
        options: of ``pandas.read_csv``, for CSV files; ``columns``, for Parquet files: their names,
            where the others are to be left out.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError, ValueError: data that cannot be a matrix, a column that does not exist, or parts
            whose lengths differ.
    """

    _max_bin: int | None = None

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
        enable_categorical: bool | None = False,
        *,
        num_actors: int | None = None,
        filetype: RayFileType | None = None,
        ignore: Sequence[str] | None = None,
        distributed: bool | None = None,
        sharding: RayShardingMode = RayShardingMode.BATCH,
        external_memory: bool | str | os.PathLike[str] = False,
        lazy: bool = True,
        **options: Any,
    ) -> None:
        if not isinstance(sharding, RayShardingMode):
            raise TypeError(f"sharding must be a RayShardingMode, not {sharding!r}")
        if missing is not None:
            real(missing, "missing")
        if num_actors is not None:
            whole(num_actors, "num_actors", 0)
        values = (label, weight, base_margin, qid, label_lower_bound, label_upper_bound)
        given = {
            name: value for name, value in zip(FIELDS, values, strict=True) if value is not None
        }
        wishes = opening.Wishes(
            fields=given,
            ignore=list(ignore or ()),
            categorical=bool(enable_categorical),
            num_actors=num_actors or 1,
            distributed=distributed,
            file_type=filetype,
            options=options,
        )
        self._source: Source = opening.source(data, wishes)
        self._source.check_mode(sharding)
        self.sharding = sharding
        of_matrix = {"missing": missing, "max_bin": self._max_bin}
        of_batches = {
            "feature_names": None if feature_names is None else list(feature_names),
            "feature_types": None if feature_types is None else list(feature_types),
            "feature_weights": feature_weights,
        }
        self._check_features(of_batches)
        if external_memory and not isinstance(external_memory, bool | str | os.PathLike):
            raise TypeError(f"external_memory must be a bool or a folder, not {external_memory!r}")
        self._common = Common(
            {**_given(of_matrix), "enable_categorical": bool(enable_categorical)},
            _given(of_batches),
            self._source.empty,
            external=bool(external_memory),
            cache_parent=None if isinstance(external_memory, bool) else os.fspath(external_memory),
        )
        self._num_actors = num_actors
        if num_actors and not lazy:
            self.load_data()

    def _check_features(self, lists: Mapping[str, Any]) -> None:
        for name, values in lists.items():
            if values is not None and not hasattr(values, "__len__"):
                raise TypeError(f"{name} must have an entry for each feature, but is {values!r}")
            if values is not None and len(values) != self._source.columns:
                raise ValueError(
                    f"{name} has {len(values)} entries, but there are {self._source.columns}"
                    " feature columns"
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

    def load_data(self, num_actors: int | None = None) -> None:
        """Put what the driver holds into the object store now, and not when it is first used.

        Args:
            num_actors: for how many actors to cut it; as in the constructor if it was given there.

        Raises:
            ValueError: neither here nor there.
        """
        number = num_actors or self._num_actors
        if not number:
            raise ValueError("load_data needs to know for how many actors: load_data(num_actors)")
        self.shards(number)

    def unload_data(self) -> None:
        """Let go of what was put into the object store; when it is used again, it is put again.

        Without effect on what is nowhere else: blocks, and matrices that were pickled.
        """
        self._source.unload()

    def shards(self, num_actors: int, nodes: Sequence[str] | None = None) -> list[ShardSpec]:
        """Return what each of ``num_actors`` actors has to load; some may get nothing.

        Args:
            num_actors: among how many to divide.
            nodes: the node of each rank; None if it does not matter (see the property ``nodes``).
        """
        divided = self._source.shards(num_actors, self.sharding, nodes)
        common = replace(self._common, categories=dict(self._source.categories))
        return [ShardSpec(pieces, common) for pieces in divided]

    def check_actors(self, num_actors: int) -> None:
        """Refuse a number of actors of which some would get no rows.

        Raises:
            ValueError: there are too many.
        """
        self._source.check_actors(num_actors, self.sharding)

    def __repr__(self) -> str:
        rows = self._source.rows
        return f"RayDMatrix({'?' if rows is None else rows} rows x {self.num_col()} columns)"


class RayQuantileDMatrix(RayDMatrix):
    """A ``RayDMatrix`` that says how many bins there are.

    ``RayDMatrix`` makes a ``QuantileDMatrix`` by itself wherever that serves; what this adds is
    ``max_bin``, which has to be that of the model's parameters if these have one.

    Args:
        args, kwargs: as of ``RayDMatrix``.
        max_bin: how many bins.
    """

    def __init__(self, *args: Any, max_bin: int | None = None, **kwargs: Any) -> None:
        self._max_bin = None if max_bin is None else whole(max_bin, "max_bin", 2)
        super().__init__(*args, **kwargs)


#: The name of ``RayQuantileDMatrix`` in older scripts: it is on a GPU if the training is.
RayDeviceQuantileDMatrix = RayQuantileDMatrix


def combine_data(sharding: RayShardingMode, data: Iterable[Any]) -> npt.NDArray[Any]:
    """Put results of actors into the order of the rows.

    Args:
        sharding: how the rows were divided, ``BATCH`` or ``INTERLEAVED``.
        data: an array for each rank.

    Raises:
        ValueError: another ``sharding``, which does not say whose rows come first.
    """
    arrays = list(data)
    ends = list(itertools.accumulate(map(len, arrays)))
    if sharding is RayShardingMode.BATCH:
        rows = [slice(end - len(part), end, 1) for part, end in zip(arrays, ends, strict=True)]
    elif sharding is RayShardingMode.INTERLEAVED:
        rows = [slice(rank, ends[-1], len(arrays)) for rank in range(len(arrays))]
    else:
        raise ValueError(f"sharding must be BATCH or INTERLEAVED, not {sharding!r}")
    places = [(Place(rank, where), arrays[rank]) for rank, where in enumerate(rows)]
    return merge(places, ends[-1])


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
