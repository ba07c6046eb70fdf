"""What travels between the driver of a training and its actors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

#: The scores of one round: ``{"eval": {"logloss": 0.1}}``, in the order of evaluation.
Scores: TypeAlias = dict[str, dict[str, float]]
#: The scores of all rounds: ``{"eval": {"logloss": [0.2, 0.1]}}``, as ``evals_result`` has them.
History: TypeAlias = dict[str, dict[str, list[float]]]


@dataclass(slots=True)
class TrainingSpec:
    """What is to be trained, the same for all actors and all attempts."""

    params: Mapping[str, Any]
    num_boost_round: int
    #: Evaluation sets: index among the matrices that the actor was given (0: ``dtrain``), and name.
    evals: Sequence[tuple[int, str]]
    objective: Any = None
    custom_metric: Any = None
    callbacks: Sequence[Any] = ()
    distributed_callbacks: Sequence[Any] = ()
    early_stopping_rounds: int | None = None
    maximize: bool | None = None
    #: A serialized model to continue; None to begin anew.
    initial_model: bytes | None = None
    #: Rounds from one checkpoint to the next; 0 for none.
    checkpoint_frequency: int = 5
    #: Whether the last round makes a checkpoint, too.
    checkpoint_at_end: bool = False
    threads: int = 1


@dataclass(slots=True)
class Checkpoint:
    """All that is needed to go on with a training."""

    #: Rounds of this training that ``model`` contains.
    rounds_done: int
    model: bytes
    history: History
    #: The pickled callbacks with their state; None if they cannot be pickled.
    callbacks: bytes | None


@dataclass(frozen=True, slots=True)
class World:
    """One collective, as one of its members is told of it."""

    #: Counts the worlds of a training.
    number: int
    #: Of the member in this world.  Ranks of actors stay, those of a world are without gaps.
    rank: int
    size: int
    #: How ``xgboost`` finds the tracker; None: there are no others.
    tracker: dict[str, Any] | None
    #: Whether somebody may join later, so that all have to be able to stop after the same round.
    pausable: bool = False
    #: Whether all members make their matrices anew.
    rebuild: bool = False


@dataclass(slots=True)
class Progress:
    """News of one actor.  Only that of rank 0 reports rounds; all report their end."""

    #: Rounds finished since the last news, and the scores of each.
    rounds: list[tuple[int, Scores]] = field(default_factory=list)
    #: The latest checkpoint since the last news.
    checkpoint: Checkpoint | None = None
    #: What user code has put into the queue.
    queue: list[Any] = field(default_factory=list)
    #: Whether the training has ended, or paused.
    done: bool = False
    #: Of rank 0, at the end of the training: the serialized model.
    model: bytes | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """An actor holds its shard and is ready to train."""

    pid: int
    node_id: str
    gpu_ids: list[int | str]
    #: Whether it has its matrices already, with the bins of the others.
    built: bool


@dataclass(frozen=True, slots=True)
class Left:
    """An actor was told to leave a world."""

    #: Whether it is out, so that it may join another.
    out: bool
    #: Whether it has its matrices.
    built: bool
