"""Tables in the object store: refs that the user has, or what a stream or an iterable yields."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import skate
from skate.xgboost.data import tables
from skate.xgboost.data._base import Piece, Place, Shard, Source
from skate.xgboost.data.batch import Batch, Columns, group_starts
from skate.xgboost.data.sharding import RayShardingMode, divide

if TYPE_CHECKING:
    import numpy.typing as npt

#: Small tables of a stream are put together until they have so many bytes: an object in the store
#: should be worth its bookkeeping, and not take long to send.
BLOCK_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """What is known of a block without looking at its values."""

    rows: int
    columns: int
    kind: str
    column_kinds: list[tables.ColumnKind] | None
    nbytes: int
    node: str
    #: The table without its rows.
    head: Any
    categories: dict[Any, list[Any]]
    #: Of ranking data: first rows of the query groups, and the id of each.
    groups: tuple[Any, Any] | None = None


def describe(block: Any, qid: str | None = None) -> BlockInfo:
    """Look at a block; runs as a task on the node where it lies.

    Raises:
        TypeError, ValueError: it is no table.
    """
    table = tables.normal(block)
    groups = None
    if qid is not None and qid in (tables.column_names(table) or ()):
        ids = tables.column(table, qid)
        starts = group_starts(ids)
        groups = (starts, ids[starts])
    return BlockInfo(
        tables.row_count(table),
        int(table.shape[1]),
        tables.kind(table),
        tables.column_kinds(table),
        tables.byte_count(table),
        skate.get_runtime_context().get_node_id(),
        tables.compact(tables.rows(table, slice(0, 0))),
        tables.categories(table),
        groups,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPiece(Piece):
    """Rows of a stored table.

    Attributes:
        ref: of the table.
        columns: what its columns are.
        field_refs: arrays for its rows, by field.
        chosen: which rows; None: all.
    """

    ref: Any
    columns: Columns
    field_refs: Mapping[str, Any] = field(default_factory=dict)
    chosen: slice | None = None

    def read(self) -> Batch:
        batch = self.columns.take(tables.normal(skate.get(self.ref)))
        for name, ref in self.field_refs.items():
            batch.fields[name] = field_array(name, skate.get(ref))
        return batch if self.chosen is None else batch.part(self.chosen)

    def _chosen(self, start: int, stop: int) -> dict[str, Any]:
        first = 0 if self.chosen is None else self.chosen.start
        return {"chosen": slice(first + start, first + stop)}

    def __str__(self) -> str:
        return f"block {self.place.index} ({self.ref})"


def field_array(name: str, value: Any) -> npt.NDArray[Any]:
    """Return the values of a field as an array with one entry per row.

    Raises:
        TypeError: they are no numbers.
    """
    import numpy as np

    if tables.kind(value) in ("polars", "arrow"):
        value = np.column_stack([np.asarray(each) for each in value.to_pandas().to_numpy().T])
    values = tables.numbers(value, name)
    if values.ndim == 0:
        raise TypeError(f"{name} must be an array or the name of a column, not {value!r}")
    if name != "base_margin" and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    return np.ascontiguousarray(values)


class BlockSource(Source):
    """Blocks in the object store.

    Args:
        refs: the blocks, in the order of the data.
        infos: what is known of them.
        columns: what their columns are.
        field_refs: for each field that is no column, arrays for the rows of each block.
        group_starts: first rows of the query groups if their ids are not in the blocks.

    Raises:
        ValueError: query groups are not sorted over the blocks.
    """

    def __init__(
        self,
        refs: Sequence[Any],
        infos: Sequence[BlockInfo],
        columns: Columns,
        field_refs: Mapping[str, Sequence[Any]],
        group_starts: npt.NDArray[Any] | None = None,
    ) -> None:
        self.rows: int = sum(info.rows for info in infos)
        self.columns = infos[0].columns if columns.features is None else len(columns.features)
        self.fields = frozenset([*columns.fields, *field_refs])
        self._group_starts = group_starts
        if group_starts is None:
            self._group_starts = joined_groups([info.groups for info in infos], infos)
        self.empty = columns.take(infos[0].head)
        for name, refs_of_arrays in field_refs.items():
            values = field_array(name, skate.get(refs_of_arrays[0]))
            self.empty.fields[name] = values[:0].copy()
        self.categories = tables.united([info.categories for info in infos], columns.features or ())
        several = {info.node for info in infos}
        self.nodes = frozenset(several) if len(several) > 1 else frozenset()
        self._pieces = [
            BlockPiece(
                place=Place(index, slice(end - info.rows, end, 1)),
                rows=info.rows,
                size=info.rows,
                nodes=(info.node,),
                ref=ref,
                columns=columns,
                field_refs={name: each[index] for name, each in field_refs.items()},
            )
            for index, (ref, info, end) in enumerate(
                zip(refs, infos, itertools.accumulate(info.rows for info in infos), strict=True)
            )
        ]

    def shards(
        self, num_actors: int, mode: RayShardingMode, nodes: Sequence[str] | None = None
    ) -> list[Shard]:
        pieces = [piece for piece in self._pieces if piece.rows]
        return divide(pieces, num_actors, mode, nodes, self._group_starts)


def joined_groups(groups: Sequence[Any], infos: Sequence[Any]) -> npt.NDArray[Any] | None:
    """Return the first rows of the groups of all parts together; None: there are none.

    Args:
        groups: of each part first rows and ids, or None.
        infos: the parts, with their ``rows``.

    Raises:
        ValueError: the ids of a part begin below those of the one before.
    """
    import numpy as np

    if any(each is None for each in groups):
        return None
    starts: list[Any] = []
    first, last_id = 0, None
    for (own, ids), info in zip(groups, infos, strict=True):
        if len(own):
            if last_id is not None and ids[0] < last_id:
                raise ValueError(
                    "qid has to be sorted over all parts of the data: one that ends with group"
                    f" {last_id} is followed by one that begins with group {ids[0]}"
                )
            # A group may go on in the next part.
            starts.append((own[1:] if ids[0] == last_id else own) + first)
            last_id = ids[-1]
        first += info.rows
    return np.concatenate(starts) if starts else np.zeros(0, dtype=np.intp)


def describe_refs(refs: Sequence[Any], qid: str | None) -> list[BlockInfo]:
    """Look at blocks where they lie.

    Raises:
        TypeError, ValueError: one is no table.
        Exception: what the task raised that was to make one.
    """
    task = skate.remote(describe).options(num_cpus=0)
    infos: list[BlockInfo] = skate.get([task.remote(ref, qid) for ref in refs])
    return infos


def lengths(refs: Sequence[Any]) -> list[int]:
    """Return how many values arrays have, looked at where they lie."""
    task = skate.remote(len).options(num_cpus=0)
    found: list[int] = skate.get([task.remote(ref) for ref in refs])
    return found


def check_alike(infos: Sequence[BlockInfo]) -> None:
    """Refuse blocks that cannot be parts of one table.

    Raises:
        ValueError: there are none, or they have other columns.
    """
    if not infos:
        raise ValueError("there are no blocks: the list of object refs, or the stream, is empty")
    names = [None if info.column_kinds is None else _names(info) for info in infos]
    for index, info in enumerate(infos):
        if info.kind != infos[0].kind:
            raise ValueError(
                f"block {index} is of another kind than the first: {info.kind}, not {infos[0].kind}"
            )
        if info.columns != infos[0].columns or set(names[index] or ()) != set(names[0] or ()):
            raise ValueError(
                f"block {index} has other columns than the first: {names[index] or info.columns},"
                f" not {names[0] or infos[0].columns}"
            )


def _names(info: BlockInfo) -> list[Any]:
    return [name for name, _, _ in info.column_kinds or ()]


def gathered(stream: Iterable[Any]) -> Iterator[Any]:
    """Yield the tables of a stream as blocks: small ones put together.

    Raises:
        TypeError: it yields something else.
    """
    held: list[Any] = []
    size = 0
    for item in stream:
        table = tables.normal(item)
        held.append(table)
        size += tables.byte_count(table)
        if size >= BLOCK_BYTES:
            yield tables.compact(tables.concatenate(held))
            held, size = [], 0
    if held:
        yield tables.compact(tables.concatenate(held))
