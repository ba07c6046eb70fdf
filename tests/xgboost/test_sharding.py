"""Every row goes to exactly one actor, and results come back in the order of the rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.xgboost import RayShardingMode
from skate.xgboost.data._base import Piece, Place
from skate.xgboost.data.batch import Batch, group_starts, whole_groups
from skate.xgboost.data.sharding import TOLERANCE, bounds, divide, merge

BATCH, INTERLEAVED, FIXED = (
    RayShardingMode.BATCH,
    RayShardingMode.INTERLEAVED,
    RayShardingMode.FIXED,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Piece):
    """A piece that is nothing but numbers of rows."""

    def read(self) -> Batch:
        raise NotImplementedError

    def _chosen(self, start: int, stop: int) -> dict[str, Any]:
        return {}

    def __str__(self) -> str:
        return f"part {self.place.index}"


def make_pieces(
    sizes: list[int], nodes: list[str] | None = None, *, known: bool = True
) -> list[Piece]:
    ends = list(itertools.accumulate(sizes))
    return [
        Rows(
            place=Place(index, slice(end - size, end, 1) if known else None),
            rows=size if known else None,
            size=size,
            nodes=() if nodes is None else (nodes[index],),
        )
        for index, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]


def rows_of(shard: list[Piece]) -> list[int]:
    found: list[int] = []
    for piece in shard:
        place = piece.place.rows
        assert place is not None
        found.extend(range(place.start, place.stop, place.step))
        assert len(range(place.start, place.stop, place.step)) == piece.rows
    return found


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 8), st.sampled_from([BATCH, INTERLEAVED, FIXED]))
def test_each_row_has_one_actor(sizes: list[int], actors: int, mode: RayShardingMode) -> None:
    shards = divide(make_pieces(sizes), actors, mode)
    assert len(shards) == actors
    taken = [row for shard in shards for row in rows_of(shard)]
    assert sorted(taken) == list(range(sum(sizes)))


@given(SIZES, st.integers(1, 8))
def test_batches_are_even(sizes: list[int], actors: int) -> None:
    counts = [len(rows_of(shard)) for shard in divide(make_pieces(sizes), actors, BATCH)]
    even = sum(sizes) / actors
    assert max(counts) - min(counts) <= 2 * TOLERANCE * even + 1


@given(SIZES, st.integers(1, 8), st.sampled_from([BATCH, INTERLEAVED, FIXED]))
def test_results_are_merged_in_the_order_of_the_rows(
    sizes: list[int], actors: int, mode: RayShardingMode
) -> None:
    total = sum(sizes)
    values = np.arange(total * 3).reshape(total, 3)
    shards = divide(make_pieces(sizes), actors, mode)
    results = [(piece.place, values[piece.place.rows]) for shard in shards for piece in shard]
    assert (merge(results[::-1], total) == values).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), SIZES, st.integers(1, 10))
def test_query_groups_stay_together(groups: list[int], sizes: list[int], actors: int) -> None:
    qid = np.repeat(np.arange(len(groups)), groups)
    starts = group_starts(qid)
    assert list(np.diff([*starts, len(qid)])) == groups
    # Parts of the data end in the middle of groups.
    ends = sorted({*(min(end, len(qid)) for end in itertools.accumulate(sizes)), len(qid)})
    pieces = make_pieces(list(np.diff([0, *ends])))
    shards = divide(pieces, actors, BATCH, None, starts)
    rows = [rows_of(shard) for shard in shards]
    assert sorted(itertools.chain(*rows)) == list(range(len(qid)))
    assert sum(len({qid[row] for row in each}) for each in rows) == len(groups)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), SIZES)
def test_batches_end_where_groups_do(groups: list[int], sizes: list[int]) -> None:
    qid = np.repeat(np.arange(len(groups)), groups)
    ends = [0, *itertools.accumulate(sizes)]
    values = np.arange(len(qid)).reshape(-1, 1)
    batches = [
        Batch(values[start:stop], {"qid": qid[start:stop]})
        for start, stop in itertools.pairwise([*ends, max(len(qid), ends[-1])])
    ]
    whole = list(whole_groups(batches))
    assert (np.concatenate([batch.features for batch in whole]) == values).all()
    assert sum(len(set(batch.fields["qid"])) for batch in whole) == len(groups)


def test_parts_of_unknown_length_stay_whole() -> None:
    shards = divide(make_pieces([5, 1, 1, 1, 5, 2], known=False), 2, BATCH)
    assert [[piece.place.index for piece in shard] for shard in shards] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="3 actors cannot share 2 parts"):
        divide(make_pieces([1, 1], known=False), 3, BATCH)


@pytest.mark.parametrize("mode", [BATCH, FIXED])
def test_parts_go_to_the_actor_on_their_node(mode: RayShardingMode) -> None:
    pieces = make_pieces([10] * 8, ["a", "b"] * 4)
    shards = divide(pieces, 4, mode, ["b", "a", "b", "a"])
    for shard, node in zip(shards, ["b", "a", "b", "a"], strict=True):
        assert [piece.nodes for piece in shard] == [(node,)] * 2


def test_bounds_of_no_rows() -> None:
    assert bounds(0, 3) == [0, 0, 0, 0]


def test_scattered_query_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="qid has to be sorted"):
        group_starts(np.array([1, 2, 1]))
