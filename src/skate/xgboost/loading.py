"""From the shard of a rank to its rows in memory, and from these to the matrices of XGBoost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skate.xgboost.data.batch import Batch, concatenate
from skate.xgboost.library import xgboost

if TYPE_CHECKING:
    import numpy.typing as npt
    from xgboost import DMatrix

    from skate.xgboost.data._base import Piece, Place

#: What makes a training unfit for ``QuantileDMatrix``, whose data is the bins of "hist".
_UNBINNED = {"tree_method": ("exact", "approx"), "booster": ("gblinear",)}


@dataclass(frozen=True, slots=True)
class Common:
    """What is the same for all rows of a matrix.

    Attributes:
        arguments: of ``xgboost.DMatrix``.
        empty: no rows, of the kind that there are.
    """

    arguments: Mapping[str, Any]
    empty: Batch


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """What one rank has to load of one matrix; small when pickled."""

    pieces: Sequence[Piece]
    common: Common


@dataclass(frozen=True, slots=True)
class LoadedShard:
    """The rows of one rank.

    Attributes:
        places: where the rows of each batch belong.
        batches: at least one.
    """

    places: Sequence[Place]
    batches: Sequence[Batch]
    common: Common

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(batch.rows for batch in self.batches)

    def split(self, predicted: npt.NDArray[Any]) -> list[tuple[Place, npt.NDArray[Any]]]:
        """Return what ``sharding.merge`` wants of results for all rows."""
        parts: list[tuple[Place, npt.NDArray[Any]]] = []
        first = 0
        for place, batch in zip(self.places, self.batches, strict=False):
            parts.append((place, predicted[first : first + batch.rows]))
            first += batch.rows
        return parts


def load(spec: ShardSpec) -> LoadedShard:
    """Read the rows of one rank.

    Raises:
        Exception: what reading raises, with a note that says which piece it was.
    """
    batches: list[Batch] = []
    for piece in spec.pieces:
        try:
            batches.append(piece.read())
        except Exception as error:
            error.add_note(f"while reading {piece}")
            raise
    places = [piece.place for piece in spec.pieces]
    return LoadedShard(places, batches or [spec.common.empty], spec.common)


def is_binned(params: Mapping[str, Any], *, continues: bool) -> bool:
    """Say whether ``QuantileDMatrix`` serves this training as well as ``DMatrix`` would.

    It gives the same model in less memory and time.  A model that was begun on other data
    (``continues``) has splits between the bins of this one, so it needs the values themselves.
    """
    if continues:
        return False
    return all(params.get(name) not in values for name, values in _UNBINNED.items())


def build(
    loaded: LoadedShard,
    params: Mapping[str, Any],
    *,
    threads: int,
    binned: bool,
    reference: DMatrix | None = None,
) -> DMatrix:
    """Make the matrix of an actor.  Collective if ``binned``: all actors have to take part.

    Args:
        loaded: the actor's rows.
        params: the model's parameters.
        threads: how many to use.
        binned: whether to make a ``QuantileDMatrix``.
        reference: the training matrix, whose bins an evaluation matrix shares.
    """
    library = xgboost()
    batch = concatenate(loaded.batches)
    chosen = {**batch.arguments(), **loaded.common.arguments}
    if not binned:
        matrix: DMatrix = library.DMatrix(**chosen, nthread=threads)
        return matrix
    if "max_bin" in params:
        chosen["max_bin"] = int(params["max_bin"])
    quantile: DMatrix = library.QuantileDMatrix(**chosen, nthread=threads, ref=reference)
    return quantile


def prediction_matrix(loaded: LoadedShard, *, threads: int) -> DMatrix:
    """Make a matrix to predict for."""
    batch = concatenate(loaded.batches)
    chosen = {**batch.arguments(predict=True), **loaded.common.arguments}
    matrix: DMatrix = xgboost().DMatrix(**chosen, nthread=threads)
    return matrix
