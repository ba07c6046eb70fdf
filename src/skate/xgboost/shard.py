"""From central data to the matrix of one actor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skate.xgboost import tables
from skate.xgboost.library import xgboost

if TYPE_CHECKING:
    from xgboost import DMatrix

    from skate.xgboost.matrix import CentralData

#: What makes a training unfit for ``QuantileDMatrix``, whose data is the bins of "hist".
_UNBINNED = {"tree_method": ("exact", "approx"), "booster": ("gblinear",)}


def arguments(data: CentralData, part: slice) -> dict[str, Any]:
    """Return the arguments of ``xgboost.DMatrix`` for some rows."""
    chosen: dict[str, Any] = {"data": tables.rows(data.features, part), **data.common}
    for name, values in data.fields.items():
        if name == "weight" and data.group_starts is not None:
            chosen[name] = values[_groups(data, part)]
        else:
            chosen[name] = values[part]
    return chosen


def _groups(data: CentralData, part: slice) -> slice:
    import numpy as np

    assert data.group_starts is not None
    first, last = np.searchsorted(data.group_starts, [part.start, part.stop])
    return slice(int(first), int(last))


def is_binned(params: Mapping[str, Any], *, continues: bool) -> bool:
    """Say whether ``QuantileDMatrix`` serves this training as well as ``DMatrix`` would.

    It gives the same model in less memory and time.  A model that was begun on other data
    (``continues``) has splits between the bins of this one, so it needs the values themselves.
    """
    if continues:
        return False
    return all(params.get(name) not in values for name, values in _UNBINNED.items())


def build(
    data: CentralData,
    part: slice,
    params: Mapping[str, Any],
    *,
    threads: int,
    binned: bool,
    reference: DMatrix | None = None,
) -> DMatrix:
    """Make the matrix of an actor.  Collective if ``binned``: all actors have to take part.

    Args:
        data: of all rows.
        part: the actor's rows.
        params: the model's parameters.
        threads: how many to use.
        binned: whether to make a ``QuantileDMatrix``.
        reference: the training matrix, whose bins an evaluation matrix shares.
    """
    library = xgboost()
    chosen = arguments(data, part)
    if not binned:
        matrix: DMatrix = library.DMatrix(**chosen, nthread=threads)
        return matrix
    if "max_bin" in params:
        chosen["max_bin"] = int(params["max_bin"])
    quantile: DMatrix = library.QuantileDMatrix(**chosen, nthread=threads, ref=reference)
    return quantile
