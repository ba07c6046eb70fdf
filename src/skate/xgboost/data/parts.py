"""Sources whose pieces are read by the actors: files, and partitions of frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import skate
from skate.xgboost.data._base import Piece, Place, Shard, Source
from skate.xgboost.data.batch import Batch, Columns, concatenate, group_starts
from skate.xgboost.data.blocks import joined_groups
from skate.xgboost.data.central import CentralSource, StoredPiece
from skate.xgboost.data.sharding import RayShardingMode, bounds, divide


class PartSource(Source):
    """Pieces that can be read anywhere, and need not be in the object store.

    Pieces whose rows are not known before they are read cannot be cut.  Where that is necessary
    (more actors than pieces, query groups), tasks read them into the object store, once.

    Args:
        pieces: in the order of the data.
        columns: what their columns are.
        starts: of ranking data whose rows are known: first rows of the query groups.
    """

    def __init__(
        self, pieces: Sequence[Piece], columns: Columns, starts: Any | None = None
    ) -> None:
        assert columns.features is not None
        rows = [piece.rows for piece in pieces]
        self.rows = None if None in rows else sum(each or 0 for each in rows)
        self.columns = len(columns.features)
        self.fields = frozenset(columns.fields)
        self.nodes = frozenset(node for piece in pieces for node in piece.nodes)
        self._pieces = list(pieces)
        self._starts = starts
        #: Pieces of what was read into the object store, in the session of that name.
        self._stored: list[Piece] | None = None
        self._session = ""

    def shards(
        self, num_actors: int, mode: RayShardingMode, nodes: Sequence[str] | None = None
    ) -> list[Shard]:
        pieces = self._pieces
        if self._has_to_be_cut(num_actors, mode):
            pieces = self._read_into_store(num_actors)
        else:
            pieces = [piece for piece in pieces if piece.rows != 0]
        return divide(pieces, num_actors, mode, nodes, self._starts)

    def _has_to_be_cut(self, num_actors: int, mode: RayShardingMode) -> bool:
        if self.rows is not None and ("qid" not in self.fields or self._starts is not None):
            return False
        if mode is RayShardingMode.FIXED:
            return False
        return len(self._pieces) < num_actors or "qid" in self.fields

    def _read_into_store(self, num_actors: int) -> list[Piece]:
        session = skate.get_runtime_context().get_job_id()
        if self._stored is not None and self._session == session:
            return self._stored
        # So many objects of each that whatever is done with them, few of them are cut.
        number = -(-num_actors // len(self._pieces))
        task = skate.remote(_read_and_cut).options(num_cpus=0, num_returns=number + 1)
        answers = [task.remote(piece, number) for piece in self._pieces]
        infos = skate.get([answer[0] for answer in answers])
        stored: list[Piece] = []
        first = 0
        for answer, (sizes, node, _) in zip(answers, infos, strict=True):
            for ref, rows in zip(answer[1:], sizes, strict=True):
                place = Place(len(stored), slice(first, first + rows, 1))
                nodes = (node,) if self.nodes else ()
                stored.append(StoredPiece(place=place, rows=rows, size=rows, nodes=nodes, ref=ref))
                first += rows
        if "qid" in self.fields:
            wholes = [_Rows(sum(sizes)) for sizes, _, _ in infos]
            self._starts = joined_groups([groups for _, _, groups in infos], wholes)
        self.rows = first
        self._stored, self._session = stored, session
        return stored

    def counted(self) -> int:
        """Return the number of rows, by reading them if need be."""
        if self.rows is None:
            task = skate.remote(_count).options(num_cpus=0)
            self.rows = sum(skate.get([task.remote(piece) for piece in self._pieces]))
        return self.rows

    def gathered(self, num_actors: int) -> CentralSource:
        """Read everything in this process."""
        batch = concatenate([piece.read() for piece in self._pieces])
        return CentralSource(batch.features, batch.fields, num_actors)


class _Rows:
    def __init__(self, rows: int) -> None:
        self.rows = rows


def _count(piece: Piece) -> int:
    return piece.read().rows


def _read_and_cut(piece: Piece, number: int) -> tuple[Any, ...]:
    batch = piece.read()
    groups = None
    if "qid" in batch.fields:
        starts = group_starts(batch.fields["qid"])
        groups = (starts, batch.fields["qid"][starts])
    cuts = list(itertools.pairwise(bounds(batch.rows, number)))
    parts = [_own(batch.part(slice(start, stop)), len(cuts)) for start, stop in cuts]
    node = skate.get_runtime_context().get_node_id()
    return ([stop - start for start, stop in cuts], node, groups), *parts


def _own(batch: Batch, number: int) -> Batch:
    return batch if number == 1 else batch.compact()
