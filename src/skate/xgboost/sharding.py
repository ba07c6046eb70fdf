"""Which rows go to which training actor.  Plain arithmetic, no data."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class RayShardingMode(Enum):
    """How central data is divided.

    ``BATCH`` (the default) gives each actor a range of consecutive rows.  A range is a view of
    the data in shared memory, so no copy is made.  The trees do not depend on who holds which
    row, since the histograms of all actors are added up.

    ``INTERLEAVED`` gives actor ``r`` of ``n`` the rows ``r, r + n, r + 2n, ...``, which copies
    each shard once, in its actor.
    """

    INTERLEAVED = 1
    BATCH = 2


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The division of ``rows`` among the actors.

    Attributes:
        parts: the rows of each actor, by rank.
    """

    rows: int
    parts: tuple[slice, ...]

    @classmethod
    def make(
        cls,
        rows: int,
        num_actors: int,
        mode: RayShardingMode,
        group_starts: Sequence[int] | npt.NDArray[Any] | None = None,
    ) -> ShardPlan:
        """Divide the rows evenly.

        Args:
            rows: how many there are.
            num_actors: among how many actors.
            mode: in which way.
            group_starts: first rows of the query groups, ascending, beginning with 0.  A group
                is not divided.

        Raises:
            ValueError: groups cannot be interleaved.
        """
        if mode is RayShardingMode.INTERLEAVED:
            if group_starts is not None:
                raise ValueError(
                    "query groups (qid) have to stay together: use RayShardingMode.BATCH"
                )
            return cls(rows, tuple(slice(rank, rows, num_actors) for rank in range(num_actors)))
        bounds = [rows * rank // num_actors for rank in range(num_actors + 1)]
        if group_starts is not None:
            starts = [*map(int, group_starts), rows]
            bounds = [_nearest(starts, bound) for bound in bounds]
        pairs = itertools.pairwise(bounds)
        return cls(rows, tuple(slice(start, stop) for start, stop in pairs))

    def count(self, rank: int) -> int:
        """Return how many rows an actor has."""
        return len(range(*self.parts[rank].indices(self.rows)))

    def empty_ranks(self) -> list[int]:
        """Return the actors without any row."""
        return [rank for rank in range(len(self.parts)) if self.count(rank) == 0]

    def merge(self, results: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Put the results of all actors, by rank, into the order of the rows."""
        import numpy as np

        if len(results) == 1:
            return results[0]
        first = results[0]
        merged: npt.NDArray[Any] = np.empty((self.rows, *first.shape[1:]), dtype=first.dtype)
        for part, result in zip(self.parts, results, strict=True):
            merged[part] = result
        return merged


def _nearest(starts: Sequence[int], bound: int) -> int:
    index = bisect.bisect_left(starts, bound)
    if index == 0:
        return starts[0]
    after, before = starts[min(index, len(starts) - 1)], starts[index - 1]
    return after if after - bound <= bound - before else before


def group_starts(qid: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.intp]:
    """Return the first rows of the groups of consecutive equal ids.

    Raises:
        ValueError: the ids do not ascend, so that groups are scattered.
    """
    import numpy as np

    steps = np.diff(qid)
    if len(steps) and steps.min() < 0:
        raise ValueError("qid has to be sorted: rows of a query group have to be consecutive")
    starts: npt.NDArray[np.intp] = np.concatenate(([0], np.flatnonzero(steps) + 1))
    return starts
