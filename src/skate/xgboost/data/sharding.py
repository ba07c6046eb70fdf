"""Which rows go to which training actor.  Plain arithmetic, no data."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from skate.xgboost.data._base import Piece, Place, Shard

#: Pieces are not cut if shards differ by no more than this share of one without it.
TOLERANCE = 0.02


class RayShardingMode(Enum):
    """How the rows are divided among the actors.

    The trees do not depend on who holds which row, since the histograms of all actors are added up.

    ``BATCH`` (the default) gives each actor consecutive rows, equally many; files and blocks are
    cut where that is necessary.

    ``INTERLEAVED`` gives actor ``r`` of ``n`` the rows (files, blocks) ``r, r + n, r + 2n, ...``.

    ``FIXED`` cuts nothing: files, blocks and partitions stay whole, and go to an actor on the node
    where they are, if there is one.  It is for data that comes in such parts.
    """

    INTERLEAVED = 1
    BATCH = 2
    FIXED = 3


def bounds(
    rows: int, num_actors: int, group_starts: Sequence[int] | npt.NDArray[Any] | None = None
) -> list[int]:
    """Return where the shards of consecutive rows begin, and at last ``rows``.

    Args:
        rows: how many there are.
        num_actors: among how many actors.
        group_starts: first rows of the query groups, ascending, beginning with 0.  A group is not
            divided.
    """
    even = [rows * rank // num_actors for rank in range(num_actors + 1)]
    if group_starts is None or not rows:
        return even
    starts = [*map(int, group_starts), rows]
    return [_nearest(starts, bound) for bound in even]


def _nearest(starts: Sequence[int], bound: int) -> int:
    index = bisect.bisect_left(starts, bound)
    if index == 0:
        return starts[0]
    after, before = starts[min(index, len(starts) - 1)], starts[index - 1]
    return after if after - bound <= bound - before else before


def divide(
    pieces: Sequence[Piece],
    num_actors: int,
    mode: RayShardingMode,
    nodes: Sequence[str] | None = None,
    group_starts: Sequence[int] | npt.NDArray[Any] | None = None,
) -> list[Shard]:
    """Divide data that comes in pieces.

    Args:
        pieces: in the order of the data.
        num_actors: among how many actors.
        mode: in which way.
        nodes: the node of each rank.
        group_starts: as in ``bounds``, of all the data.

    Raises:
        ValueError: there are fewer pieces than actors, and they cannot be cut.
    """
    if mode is RayShardingMode.FIXED:
        if group_starts is not None:
            _check_whole_groups(pieces, group_starts)
        return _fixed(pieces, num_actors, nodes)
    if mode is RayShardingMode.INTERLEAVED:
        if len(pieces) < num_actors:
            pieces = [part for piece in pieces for part in _equal_parts(piece, num_actors)]
        return _beside([list(pieces[rank::num_actors]) for rank in range(num_actors)], nodes)
    if group_starts is None:
        pieces = _by_node(pieces)
    if any(piece.rows is None for piece in pieces):
        return _beside(_uncut(pieces, num_actors), nodes)
    return _beside(_consecutive(pieces, num_actors, group_starts), nodes)


def _check_whole_groups(
    pieces: Sequence[Piece], group_starts: Sequence[int] | npt.NDArray[Any]
) -> None:
    starts = set(map(int, group_starts))
    for piece in pieces:
        assert piece.place.rows is not None
        if piece.place.rows.start not in starts:
            number = bisect.bisect_right(sorted(starts), piece.place.rows.start) - 1
            raise ValueError(
                f"query group {number} goes on in {piece}, and RayShardingMode.FIXED may give the"
                " parts of it to different actors: use RayShardingMode.BATCH"
            )


def _equal_parts(piece: Piece, number: int) -> list[Piece]:
    if piece.rows is None:
        raise ValueError(f"{piece} cannot be divided without reading it")
    cuts = bounds(piece.rows, number)
    return [piece.cut(start, stop) for start, stop in itertools.pairwise(cuts) if stop > start]


def _by_node(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """Put pieces of a node together, so that a range of them lies on one node."""
    order: dict[tuple[str, ...], int] = {}
    for piece in pieces:
        order.setdefault(piece.nodes, len(order))
    return sorted(pieces, key=lambda piece: order[piece.nodes])


def _consecutive(
    pieces: Sequence[Piece],
    num_actors: int,
    group_starts: Sequence[int] | npt.NDArray[Any] | None,
) -> list[Shard]:
    sizes = [piece.rows or 0 for piece in pieces]
    ends = list(itertools.accumulate(sizes))
    total = ends[-1] if ends else 0
    cuts = bounds(total, num_actors, group_starts)
    if group_starts is None:
        allowed = TOLERANCE * total / num_actors
        whole = [_nearest([0, *ends], cut) for cut in cuts]
        cuts = [
            near if abs(near - cut) <= allowed else cut
            for near, cut in zip(whole, cuts, strict=True)
        ]
    shards: list[Shard] = []
    for first, last in itertools.pairwise(cuts):
        shard: Shard = []
        for piece, size, end in zip(pieces, sizes, ends, strict=True):
            begin = end - size
            start, stop = max(first, begin) - begin, min(last, end) - begin
            if start >= stop:
                continue
            shard.append(piece if stop - start == size else piece.cut(start, stop))
        shards.append(shard)
    return shards


def _uncut(pieces: Sequence[Piece], num_actors: int) -> list[Shard]:
    """Divide by size, as evenly as whole pieces allow; every shard gets one at least."""
    if len(pieces) < num_actors:
        raise ValueError(f"{num_actors} actors cannot share {len(pieces)} parts without cutting")
    ends = list(itertools.accumulate(piece.size for piece in pieces))
    cuts = [0]
    for rank in range(1, num_actors):
        least, most = cuts[-1] + 1, len(pieces) - (num_actors - rank)
        wanted = ends[-1] * rank / num_actors
        cuts.append(min(range(least, most + 1), key=lambda cut: abs(ends[cut - 1] - wanted)))
    cuts.append(len(pieces))
    return [list(pieces[start:stop]) for start, stop in itertools.pairwise(cuts)]


def _fixed(pieces: Sequence[Piece], num_actors: int, nodes: Sequence[str] | None) -> list[Shard]:
    shards: list[Shard] = [[] for _ in range(num_actors)]
    load = [0.0] * num_actors
    for piece in pieces:
        ranks = list(range(num_actors))
        if nodes is not None:
            ranks = [rank for rank in ranks if nodes[rank] in piece.nodes] or ranks
        rank = min(ranks, key=lambda each: load[each])
        shards[rank].append(piece)
        load[rank] += piece.size
    return shards


def _beside(shards: list[Shard], nodes: Sequence[str] | None) -> list[Shard]:
    """Give each shard to a rank on the node where most of it lies, as far as that is possible."""
    if nodes is None or len(set(nodes)) < 2:
        return shards
    gains: list[tuple[float, int, int]] = []
    for index, shard in enumerate(shards):
        for rank, node in enumerate(nodes):
            local = sum(piece.size for piece in shard if node in piece.nodes)
            # Of equally good ranks the one that would have the shard anyway.
            gains.append((-local, abs(rank - index), index * len(nodes) + rank))
    by_rank: list[Shard | None] = [None] * len(shards)
    placed: set[int] = set()
    for _, _, pair in sorted(gains):
        index, rank = divmod(pair, len(nodes))
        if index not in placed and by_rank[rank] is None:
            by_rank[rank] = shards[index]
            placed.add(index)
    return [shard if shard is not None else [] for shard in by_rank]


def merge(results: Sequence[tuple[Place, npt.NDArray[Any]]], rows: int | None) -> npt.NDArray[Any]:
    """Put results for pieces into the order of the data.

    Args:
        results: in any order.
        rows: how many rows there are in all, if that is known.
    """
    import numpy as np

    if len(results) == 1:
        return results[0][1]
    if rows is None or any(place.rows is None for place, _ in results):
        ordered = sorted(results, key=lambda result: result[0].index)
        return np.concatenate([array for _, array in ordered])
    first = results[0][1]
    merged: npt.NDArray[Any] = np.empty((rows, *first.shape[1:]), dtype=first.dtype)
    for place, array in results:
        merged[place.rows] = array
    return merged
