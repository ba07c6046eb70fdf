"""Sources whose pieces are read by the actors: files, and partitions of frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import skate
from skate.xgboost.data import tables
from skate.xgboost.data._base import ColumnPiece, Piece, Place, Shard, Source
from skate.xgboost.data.batch import Batch, Columns, concatenate, group_starts
from skate.xgboost.data.blocks import joined_groups
from skate.xgboost.data.central import CentralSource, StoredPiece
from skate.xgboost.data.sharding import RayShardingMode, bounds, divide


@dataclass(frozen=True, slots=True)
class _Learned:
    """What was found out about a piece by reading some of it."""

    rows: int
    groups: Any
    categories: dict[Any, list[Any]]


class PartSource(Source):
    """Pieces that can be read anywhere, and need not be in the object store.

    Pieces whose rows are not known before they are read cannot be cut.  Where that is necessary
    (more actors than pieces, query groups), tasks read them into the object store, once.

    Args:
        pieces: in the order of the data.
        columns: what their columns are.
        head: a table like the pieces', without its rows.
        what: to call the pieces, for errors.
    """

    def __init__(
        self, pieces: Sequence[ColumnPiece], columns: Columns, head: Any, what: str
    ) -> None:
        assert columns.features is not None
        rows = [piece.rows for piece in pieces]
        self.rows = None if None in rows else sum(each or 0 for each in rows)
        self.columns = len(columns.features)
        self.fields = frozenset(columns.fields)
        self.nodes = frozenset(node for piece in pieces for node in piece.nodes)
        self.empty = columns.take(head)
        self._what = what
        self._columns = columns
        self._pieces = list(pieces)
        #: Of features that have categories in some part.
        self._categorical = [
            name
            for name, _, found in tables.column_kinds(self.empty.features) or ()
            if found == "category"
        ]
        self._starts: Any | None = None
        self._has_learned = False
        #: Pieces of what was read into the object store, in the session of that name.
        self._stored: list[Piece] | None = None
        self._session = ""

    def shards(
        self, num_actors: int, mode: RayShardingMode, nodes: Sequence[str] | None = None
    ) -> list[Shard]:
        pieces: list[Piece] = list(self._pieces)
        if self._has_to_be_cut(num_actors, mode):
            pieces = self._read_into_store(num_actors, mode)
        self._learn()
        pieces = [piece for piece in pieces if piece.rows != 0]
        return divide(pieces, num_actors, mode, nodes, self._starts)

    def unload(self) -> None:
        self._stored = None

    def _has_to_be_cut(self, num_actors: int, mode: RayShardingMode) -> bool:
        if None not in (piece.rows for piece in self._pieces):
            return False
        if "qid" in self.fields:
            return True
        return mode is not RayShardingMode.FIXED and len(self._pieces) < num_actors

    def _learn(self) -> None:
        """Read of all pieces what has to be known of all of them: query groups, categories."""
        ranked = "qid" in self.fields and self._starts is None
        if self._has_learned or not (ranked or self._categorical):
            return
        fields = {"qid": self._columns.fields["qid"]} if ranked else {}
        narrow = Columns(fields, self._categorical)
        task = skate.remote(_learn).options(num_cpus=0)
        learned: list[_Learned] = skate.get(
            [task.remote(piece.narrow(narrow)) for piece in self._pieces]
        )
        if ranked:
            self._starts = joined_groups([each.groups for each in learned], learned)
        self.categories = tables.united([each.categories for each in learned], self._categorical)
        self._has_learned = True

    def _read_into_store(self, num_actors: int, mode: RayShardingMode) -> list[Piece]:
        session = skate.get_runtime_context().get_job_id()
        if self._stored is not None and self._session == session:
            return self._stored
        # So many objects of each that whatever is done with them, few of them are cut.
        number = 1 if mode is RayShardingMode.FIXED else -(-num_actors // len(self._pieces))
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
            learned = [_Learned(sum(sizes), groups, {}) for sizes, _, groups in infos]
            self._starts = joined_groups([each.groups for each in learned], learned)
        self.rows = first
        self._stored, self._session = stored, session
        return stored

    def counted(self) -> int:
        if self.rows is None:
            task = skate.remote(_count).options(num_cpus=0)
            narrow = Columns({}, (self._columns.features or ())[:1])
            self.rows = sum(
                skate.get([task.remote(piece.narrow(narrow)) for piece in self._pieces])
            )
        return self.rows

    def measure(self, mode: RayShardingMode) -> str:
        if mode is RayShardingMode.FIXED:
            return f"{len(self._pieces)} {self._what}, which RayShardingMode.FIXED does not cut"
        return super().measure(mode)

    def gathered(self, num_actors: int) -> CentralSource:
        """Read everything in this process."""
        self._learn()
        batches = [piece.read() for piece in self._pieces]
        for batch in batches:
            batch.features = tables.recoded(batch.features, self.categories)
        batch = concatenate(batches)
        return CentralSource(batch.features, batch.fields, num_actors)


def _learn(piece: Piece) -> _Learned:
    batch = piece.read()
    groups = None
    if "qid" in batch.fields:
        starts = group_starts(batch.fields["qid"])
        groups = (starts, batch.fields["qid"][starts])
    return _Learned(piece.rows or 0, groups, tables.categories(batch.features))


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
