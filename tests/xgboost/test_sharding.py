"""Every row goes to exactly one actor, and results come back in the order of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skate.xgboost import RayShardingMode
from skate.xgboost.sharding import ShardPlan, group_starts

MODES = st.sampled_from(list(RayShardingMode))


@given(st.integers(0, 200), st.integers(1, 20), MODES)
def test_each_row_has_one_actor(rows: int, actors: int, mode: RayShardingMode) -> None:
    plan = ShardPlan.make(rows, actors, mode)
    taken = [row for part in plan.parts for row in range(rows)[part]]
    assert sorted(taken) == list(range(rows))
    sizes = [plan.count(rank) for rank in range(actors)]
    assert sum(sizes) == rows
    assert max(sizes) - min(sizes) <= 1
    assert plan.empty_ranks() == [rank for rank, size in enumerate(sizes) if size == 0]


@given(st.integers(1, 200), st.integers(1, 20), MODES)
def test_results_are_merged_in_the_order_of_the_rows(
    rows: int, actors: int, mode: RayShardingMode
) -> None:
    plan = ShardPlan.make(rows, actors, mode)
    values = np.arange(rows * 3).reshape(rows, 3)
    assert (plan.merge([values[part] for part in plan.parts]) == values).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 10))
def test_query_groups_stay_together(sizes: list[int], actors: int) -> None:
    qid = np.repeat(np.arange(len(sizes)), sizes)
    starts = group_starts(qid)
    assert list(np.diff([*starts, len(qid)])) == sizes
    plan = ShardPlan.make(len(qid), actors, RayShardingMode.BATCH, starts)
    shards = [set(qid[part]) for part in plan.parts]
    assert set.union(*shards) == set(qid)
    assert sum(map(len, shards)) == len(sizes)
    assert sum(plan.count(rank) for rank in range(actors)) == len(qid)


def test_a_batch_is_a_view_of_the_data() -> None:
    values = np.zeros((10, 2))
    part = ShardPlan.make(10, 3, RayShardingMode.BATCH).parts[1]
    assert np.shares_memory(values[part], values)


def test_query_groups_cannot_be_interleaved() -> None:
    with pytest.raises(ValueError, match="BATCH"):
        ShardPlan.make(4, 2, RayShardingMode.INTERLEAVED, [0, 2])


def test_scattered_query_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="qid has to be sorted"):
        group_starts(np.array([1, 2, 1]))
