"""The contracts: a source of rows, and the pieces that it is divided into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self, TypeAlias

from skate.xgboost.data import tables
from skate.xgboost.data.batch import Batch, Columns
from skate.xgboost.data.sharding import RayShardingMode


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows belong in the order of the data.

    Attributes:
        index: counts the parts that the data came in.
        rows: which rows of the whole these are, if that is known; its three numbers are given.
    """

    index: int
    rows: slice | None

    def cut(self, start: int, stop: int) -> Place:
        """Return the place of the rows from ``start`` to ``stop`` among these."""
        if self.rows is None:
            return self
        first, step = self.rows.start, self.rows.step
        return Place(self.index, slice(first + start * step, first + stop * step, step))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(ABC):
    """Rows that one actor reads.  Small when pickled, and readable in any process.

    Attributes:
        place: where the rows belong.
        rows: how many there are; None if that takes reading them.
        size: of the piece in comparison with others: rows, or bytes.
        nodes: ids of nodes on which it is cheap to read; none: anywhere.
    """

    place: Place
    rows: int | None
    size: float
    nodes: tuple[str, ...] = ()

    @abstractmethod
    def read(self) -> Batch:
        """Return the rows.

        Raises:
            Exception: whatever reading raises; the caller names the piece.
        """

    def stream(self, rows: int) -> Iterator[Batch]:
        """Yield the rows in batches of about so many, holding as few of them as possible."""
        batch = self.read()
        for start in range(0, max(1, batch.rows), rows):
            yield batch.part(slice(start, start + rows))

    def cut(self, start: int, stop: int) -> Self:
        """Return the rows from ``start`` to ``stop`` among these.  ``rows`` has to be known."""
        assert self.rows is not None
        return replace(
            self,
            place=self.place.cut(start, stop),
            rows=stop - start,
            size=self.size * (stop - start) / self.rows,
            **self._chosen(start, stop),
        )

    @abstractmethod
    def _chosen(self, start: int, stop: int) -> dict[str, Any]:
        """Return what else is different in the piece that ``cut`` returns."""

    @abstractmethod
    def __str__(self) -> str:
        """Return what to call it in an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPiece(Piece):
    """A piece that reads the columns that it is told to.

    Attributes:
        columns: what they are.
        categorical: whether features may be categories.
    """

    columns: Columns
    categorical: bool

    def narrow(self, columns: Columns) -> Self:
        """Return a piece with other columns of the same rows."""
        return replace(self, columns=columns)

    def _take(self, table: Any) -> Batch:
        """Return what was read, which may be of other types than the first rows."""
        tables.check_features(
            tables.column_kinds(table),
            self.columns.features or (),
            categorical=self.categorical,
            where=str(self),
        )
        return self.columns.take(table)


#: The pieces of one rank.
Shard: TypeAlias = "list[Piece]"


def is_empty(shard: Shard) -> bool:
    """Say whether there are no rows."""
    return all(piece.rows == 0 for piece in shard)


class Source(ABC):
    """Where the rows of a matrix are.

    Attributes:
        rows: how many; None if that takes reading them.
        columns: the number of features.
        fields: which of ``batch.FIELDS`` there are.
        nodes: ids of the nodes between which the data is spread, if that is known.
        empty: no rows of this data.
        categories: by name of a column all that its parts have, where it comes in several parts;
            complete once ``shards`` has returned.
    """

    rows: int | None
    columns: int
    fields: frozenset[str]
    nodes: frozenset[str] = frozenset()
    empty: Batch
    categories: Mapping[Any, list[Any]] = MappingProxyType({})

    def counted(self) -> int:
        """Return the number of rows, which may take reading them."""
        assert self.rows is not None
        return self.rows

    @abstractmethod
    def shards(
        self, num_actors: int, mode: RayShardingMode, nodes: Sequence[str] | None = None
    ) -> list[Shard]:
        """Divide the data; some shards may be empty.

        Args:
            num_actors: among how many.
            mode: in which way.
            nodes: the node of each rank; None if it does not matter.

        Raises:
            ValueError: it cannot be divided like this.
        """

    def unload(self) -> None:  # noqa: B027  # most have nothing
        """Forget what was put into the object store, if it can be put there again."""

    def check_actors(self, num_actors: int, mode: RayShardingMode) -> None:
        """Refuse a number of actors of which some would get no rows.

        Raises:
            ValueError: there are too many.
        """
        few = self.rows is not None and self.rows < num_actors
        if few or any(is_empty(shard) for shard in self.shards(num_actors, mode)):
            raise ValueError(
                f"{num_actors} actors cannot share {self.measure(mode)}:"
                " use RayParams(num_actors=...) with fewer"
            )

    def measure(self, mode: RayShardingMode) -> str:
        """Return what is divided, for errors."""
        groups = " (query groups stay together)" if "qid" in self.fields else ""
        return f"{self.counted()} rows{groups}"

    def check_mode(self, mode: RayShardingMode) -> None:
        """Refuse a way to divide that is impossible for this data.

        Raises:
            ValueError: it is.
        """
        if mode is RayShardingMode.INTERLEAVED and "qid" in self.fields:
            raise ValueError("query groups (qid) have to stay together: use RayShardingMode.BATCH")
