"""Tables that the driver holds: cut once, and shared through the object store."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost.data import tables
from skate.xgboost.data._base import Piece, Place, Shard, Source
from skate.xgboost.data.batch import Batch, group_starts
from skate.xgboost.data.sharding import RayShardingMode, bounds

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPiece(Piece):
    """Rows of a stored ``Batch``; ``chosen``: which of them, None: all."""

    ref: Any
    chosen: slice | None = None

    def read(self) -> Batch:
        batch: Batch = skate.get(self.ref)
        return batch if self.chosen is None else batch.part(self.chosen)

    def _chosen(self, start: int, stop: int) -> dict[str, Any]:
        first, step = (0, 1) if self.chosen is None else (self.chosen.start, self.chosen.step)
        return {"chosen": slice(first + start * step, first + stop * step, step)}

    def __str__(self) -> str:
        return f"the rows {self.place.rows}"


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the stored objects divide the data."""

    num_actors: int
    mode: RayShardingMode
    session: str
    pieces: tuple[StoredPiece, ...]


class CentralSource(Source):
    """A table, and arrays beside it.

    It is stored when it is first divided, one object for each shard, so that an actor has its rows
    as one view of shared memory, and no other node is sent more than it needs.  In another session
    or for another number of actors that is done anew, as long as the table is there.  A pickled
    source consists of what is stored.

    Args:
        features: a table.
        fields: arrays with one entry per row, by name.
        num_actors: how many actors the data is cut for if it is pickled before it was used.
    """

    def __init__(
        self, features: Any, fields: Mapping[str, npt.NDArray[Any]], num_actors: int = 1
    ) -> None:
        self.rows: int = tables.row_count(features)
        self.columns = int(features.shape[1])
        self.fields = frozenset(fields)
        self._group_starts = group_starts(fields["qid"]) if "qid" in fields else None
        self._data: Batch | None = Batch(features, dict(fields))
        self.empty = self._data.head()
        self._num_actors = num_actors
        self._cut: _Cut | None = None

    def check_mode(self, mode: RayShardingMode) -> None:
        super().check_mode(mode)
        if mode is RayShardingMode.FIXED:
            raise ValueError(
                "RayShardingMode.FIXED is for data that comes in parts (files, object refs,"
                " partitions): use BATCH or INTERLEAVED"
            )

    def shards(
        self, num_actors: int, mode: RayShardingMode, nodes: Sequence[str] | None = None
    ) -> list[Shard]:
        # A session that has ended took its objects along.
        session = skate.get_runtime_context().get_job_id()
        cut = self._cut
        usable = cut is not None and (self._data is None or cut.session == session)
        if cut is not None and usable and (cut.num_actors, cut.mode) == (num_actors, mode):
            return [[piece] for piece in cut.pieces]
        if self._data is not None:
            self._cut = self._store(self._data, num_actors, mode, session)
            return [[piece] for piece in self._cut.pieces]
        assert cut is not None
        if mode is RayShardingMode.INTERLEAVED:
            return [
                [part for piece in cut.pieces if (part := _strided(piece, rank, num_actors))]
                for rank in range(num_actors)
            ]
        return self._ranges(cut, num_actors)

    def unload(self) -> None:
        if self._data is not None:
            self._cut = None

    def _store(self, data: Batch, num_actors: int, mode: RayShardingMode, session: str) -> _Cut:
        pieces: list[StoredPiece] = []
        for rank, chosen in enumerate(self._divide(num_actors, mode)):
            part = data if num_actors == 1 else data.part(chosen).compact()
            count = len(range(self.rows)[chosen])
            place = Place(rank, chosen)
            pieces.append(StoredPiece(place=place, rows=count, size=count, ref=skate.put(part)))
        self._num_actors = num_actors
        return _Cut(num_actors, mode, session, tuple(pieces))

    def _divide(self, num_actors: int, mode: RayShardingMode) -> list[slice]:
        if mode is RayShardingMode.INTERLEAVED:
            return [slice(rank, self.rows, num_actors) for rank in range(num_actors)]
        cuts = bounds(self.rows, num_actors, self._group_starts)
        return [slice(start, stop, 1) for start, stop in itertools.pairwise(cuts)]

    def _ranges(self, cut: _Cut, num_actors: int) -> list[Shard]:
        """Divide what is stored for another number of actors."""
        if cut.mode is RayShardingMode.INTERLEAVED:
            # Consecutive rows of each object; which rows those are does not matter.
            shards: list[Shard] = [[] for _ in range(num_actors)]
            for piece in cut.pieces:
                cuts = itertools.pairwise(bounds(piece.rows or 0, num_actors))
                for rank, (start, stop) in enumerate(cuts):
                    if start < stop:
                        shards[rank].append(piece.cut(start, stop))
            return shards
        shards = []
        for first, last in itertools.pairwise(bounds(self.rows, num_actors, self._group_starts)):
            shard: Shard = []
            for piece in cut.pieces:
                assert piece.place.rows is not None
                begin, end = piece.place.rows.start, piece.place.rows.stop
                start, stop = max(first, begin), min(last, end)
                if start < stop:
                    whole = (start, stop) == (begin, end)
                    shard.append(piece if whole else piece.cut(start - begin, stop - begin))
            shards.append(shard)
        return shards

    def __getstate__(self) -> dict[str, Any]:
        if self._data is not None:
            session = skate.get_runtime_context().get_job_id()
            if self._cut is None or self._cut.session != session:
                self.shards(self._num_actors, RayShardingMode.BATCH)
        return {**self.__dict__, "_data": None}


def _strided(piece: StoredPiece, rank: int, num_actors: int) -> StoredPiece | None:
    """Return every ``num_actors``-th row of a stored object."""
    inside = range(piece.rows or 0)[rank::num_actors]
    if not inside:
        return None
    where = piece.place.rows
    assert where is not None
    return StoredPiece(
        place=Place(
            piece.place.index,
            slice(where.start + rank * where.step, where.stop, where.step * num_actors),
        ),
        rows=len(inside),
        size=len(inside),
        ref=piece.ref,
        chosen=slice(rank, piece.rows, num_actors),
    )
