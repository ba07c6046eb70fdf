"""From the shard of a rank to its rows in memory, and from these to the matrices of XGBoost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skate.exceptions import NotSupportedError
from skate.xgboost import library
from skate.xgboost.cache import CacheFolder
from skate.xgboost.data import tables
from skate.xgboost.data.batch import Batch, concatenate, whole_groups

if TYPE_CHECKING:
    import numpy.typing as npt
    from xgboost import Booster, DMatrix

    from skate.xgboost.data._base import Piece, Place

#: What makes a training unfit for ``QuantileDMatrix``, whose data is the bins of "hist".
_UNBINNED = {"tree_method": ("exact", "approx"), "booster": ("gblinear",)}
#: Bytes of a batch, as 32 bit numbers, of data that is not held in memory.
EXTERNAL_BATCH_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Common:
    """What is the same for all rows of a matrix.

    Attributes:
        of_matrix: arguments of ``QuantileDMatrix`` and its like.
        of_batches: arguments that go with the rows.
        empty: no rows, of the kind that there are.
        external: whether the rows stay where they are, and the bins go to files.
        cache_parent: a folder for these files; None: the usual one for temporary files.
        categories: that a column has in all shards together, by name; see ``tables.recoded``.
    """

    of_matrix: Mapping[str, Any]
    of_batches: Mapping[str, Any]
    empty: Batch
    external: bool = False
    cache_parent: str | None = None
    categories: Mapping[Any, list[Any]] = field(default_factory=dict)

    def recoded(self, batch: Batch) -> Batch:
        """Return a batch whose codes of categories are those of all shards."""
        return Batch(tables.recoded(batch.features, self.categories), batch.fields)


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """What one rank has to load of one matrix; small when pickled."""

    pieces: Sequence[Piece]
    common: Common


@dataclass(frozen=True, slots=True)
class LoadedShard:
    """The rows of one rank.

    Attributes:
        pieces: where they come from.
        batches: the rows of each piece; none if they are not to be in memory.
    """

    pieces: Sequence[Piece]
    batches: Sequence[Batch]
    common: Common

    @property
    def rows(self) -> int | None:
        """How many there are; None if that takes reading them."""
        counts = [piece.rows for piece in self.pieces]
        if self.batches:
            counts = [batch.rows for batch in self.batches]
        return None if None in counts else sum(count or 0 for count in counts)

    def of_piece(self, index: int) -> Iterator[Batch]:
        """Yield the rows of a piece, in batches."""
        if self.batches:
            yield self.batches[index]
            return
        width = self.common.empty.features.shape[1]
        for batch in self.pieces[index].stream(max(1024, EXTERNAL_BATCH_BYTES // (4 * width))):
            yield self.common.recoded(batch)

    def all(self) -> Iterator[Batch]:
        """Yield all rows, in batches that end where query groups do; at least one batch."""
        batches = (
            batch
            for index in range(len(self.pieces))
            for batch in self.of_piece(index)
            if batch.rows
        )
        ranked = "qid" in self.common.empty.fields
        count = 0
        for batch in whole_groups(batches) if ranked else batches:
            count += 1
            yield batch
        if not count:
            yield self.common.recoded(self.common.empty)


def load(spec: ShardSpec) -> LoadedShard:
    """Read the rows of one rank.

    Raises:
        Exception: what reading raises, with a note that says which piece it was.
    """
    batches: list[Batch] = []
    for piece in () if spec.common.external else spec.pieces:
        try:
            batches.append(spec.common.recoded(piece.read()))
        except Exception as error:
            error.add_note(f"while reading {piece}")
            raise
    return LoadedShard(spec.pieces, batches, spec.common)


def is_binned(params: Mapping[str, Any], *, continues: bool) -> bool:
    """Say whether ``QuantileDMatrix`` serves this training as well as ``DMatrix`` would.

    It gives the same model in less memory and time.  A model that was begun on other data
    (``continues``) has splits between the bins of this one, so it needs the values themselves.
    """
    if continues:
        return False
    return all(params.get(name) not in values for name, values in _UNBINNED.items())


def is_on_gpu(params: Mapping[str, Any]) -> bool:
    """Say whether a model with these parameters is trained on GPUs."""
    return str(params.get("device", "cpu")).startswith(("cuda", "gpu"))


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
        binned: whether to make a ``QuantileDMatrix`` if that has no disadvantage.
        reference: the training matrix, whose bins an evaluation matrix shares.
    """
    xgboost = library.xgboost()
    common = loaded.common
    options: dict[str, Any] = {**common.of_matrix, "nthread": threads}
    max_bin = options.pop("max_bin", params.get("max_bin"))
    on_gpu = is_on_gpu(params)
    if on_gpu and not (common.external and _shares_bins(reference)):
        # Of data in main memory a QuantileDMatrix would find the bins on the CPU, many times
        # slower than the training does from a DMatrix.
        binned = False
    if binned:
        options["ref"] = reference
        if max_bin is not None:
            options["max_bin"] = int(max_bin)
    matrix: DMatrix
    if common.external:
        cache = CacheFolder(common.cache_parent)
        kind = xgboost.ExtMemQuantileDMatrix if binned else xgboost.DMatrix
        try:
            batches = _iterator(loaded, f"{cache.path}/bins", on_gpu=on_gpu and binned)
            matrix = kind(batches, **options)
        except BaseException:
            cache.remove()
            raise
        cache.belongs_to(matrix)
    elif binned:
        matrix = xgboost.QuantileDMatrix(_iterator(loaded), **options)
    else:
        matrix = xgboost.DMatrix(**_arguments(concatenate(list(loaded.all())), common), **options)
    return matrix


def _shares_bins(reference: DMatrix | None) -> bool:
    """Whether the training matrix, if this is another one, has its bins on a GPU."""
    return reference is None or isinstance(reference, library.xgboost().ExtMemQuantileDMatrix)


def _iterator(loaded: LoadedShard, cache_prefix: str | None = None, *, on_gpu: bool = False) -> Any:
    # It imports xgboost, which is a matter of the actors.
    from skate.xgboost.iteration import BatchIterator

    arguments_of = _gpu_arguments if on_gpu else _arguments

    def batches() -> Iterator[dict[str, Any]]:
        return (arguments_of(batch, loaded.common) for batch in loaded.all())

    return BatchIterator(batches, cache_prefix, single=len(loaded.batches) == 1)


def _arguments(batch: Batch, common: Common, *, predict: bool = False) -> dict[str, Any]:
    arguments = {**batch.arguments(predict=predict), **common.of_batches}
    if "feature_names" in arguments:
        # XGBoost looks for columns of these names in an Arrow table.
        arguments["data"] = tables.renamed(arguments["data"], arguments["feature_names"])
    return arguments


def _gpu_arguments(batch: Batch, common: Common) -> dict[str, Any]:
    """Return arguments whose data is in the memory of a GPU.

    XGBoost finds the bins of data that is not held in memory where the data is, and trains there.
    """
    cupy = library.cupy("external_memory with device='cuda'")
    arguments = _arguments(batch, common)
    table = arguments["data"]
    if tables.categories(table):
        raise NotSupportedError(
            "external_memory with device='cuda' takes no categories: make them numbers, or train"
            " on CPUs or without external_memory"
        )
    names = tables.column_names(table)
    if names is not None:
        arguments.setdefault("feature_names", [str(name) for name in names])
    return {**arguments, "data": cupy.asarray(tables.dense(table))}


def predictions(
    loaded: LoadedShard, booster: Booster, *, threads: int, arguments: Mapping[str, Any]
) -> list[tuple[Place, npt.NDArray[Any]]]:
    """Return what a model says about the rows, as ``sharding.merge`` wants it.

    Args:
        loaded: the actor's rows.
        booster: the model.
        threads: how many to use.
        arguments: of ``Booster.predict``.
    """
    import numpy as np

    xgboost = library.xgboost()
    common = loaded.common
    options = {name: value for name, value in common.of_matrix.items() if name != "max_bin"}
    results: list[tuple[Place, npt.NDArray[Any]]] = []
    for index, piece in enumerate(loaded.pieces):
        predicted = [
            booster.predict(
                xgboost.DMatrix(
                    **_arguments(batch, common, predict=True), **options, nthread=threads
                ),
                **arguments,
            )
            for batch in loaded.of_piece(index)
        ]
        results.append((piece.place, np.concatenate(predicted)))
    return results
