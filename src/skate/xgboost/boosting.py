"""The boosting loop of one actor: rounds, scores, callbacks, checkpoints."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from skate.xgboost.library import xgboost
from skate.xgboost.messages import Checkpoint, History, Scores, TrainingSpec

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix
    from xgboost.callback import CallbackContainer

logger = logging.getLogger(__name__)


class Reporter(Protocol):
    """Who is told about the rounds, and may ask to pause."""

    def round_done(self, index: int, scores: Scores, checkpoint: Checkpoint | None) -> None:
        """A round has been finished; ``checkpoint`` if this was one after which to keep one."""

    def wants_pause(self) -> bool:
        """Say whether all members are to stop now, so that others can join."""


class PausedError(Exception):
    """The training was stopped between two rounds, for another world to go on with it."""


def boost(
    spec: TrainingSpec,
    matrices: Sequence[DMatrix],
    checkpoint: Checkpoint | None,
    reporter: Reporter | None,
    *,
    pausable: bool = False,
) -> Booster:
    """Train, from the start or from a checkpoint, and return the model.

    It is ``xgboost.train`` with a beginning in the middle: a training that is interrupted and goes
    on gives the model of one that was not (random sampling of rows and columns aside: XGBoost
    does not hand out the state of its generator).

    Args:
        spec: what to train.
        matrices: the training matrix, then others that ``spec.evals`` names by index.
        checkpoint: where to go on.
        reporter: of rank 0: who is told about rounds.
        pausable: whether all members look after each round if rank 0's reporter wants to pause.

    Raises:
        PausedError: it did.
    """
    library = xgboost()
    params = {**spec.params, "nthread": spec.threads}
    evals = [(matrices[index], name) for index, name in spec.evals]
    model = spec.initial_model if checkpoint is None else checkpoint.model
    booster: Booster = library.Booster(
        params, list(matrices), model_file=None if model is None else bytearray(model)
    )
    restored = _restored(checkpoint)
    container = _container(spec, restored)
    if checkpoint is not None:
        history: Any = container.history  # declared for what xgboost.cv writes, too
        history.update(checkpoint.history)
    if restored is None:
        booster = container.before_training(booster)
    dtrain = matrices[0]
    first = 0 if checkpoint is None else checkpoint.rounds_done
    updated = False
    for index in range(first, spec.num_boost_round):
        if container.before_iteration(booster, index, dtrain, evals):
            break
        booster.update(dtrain, iteration=index, fobj=spec.objective)
        updated = True
        stop = container.after_iteration(booster, index, dtrain, evals)
        last = stop or index + 1 == spec.num_boost_round
        pause = pausable and not last and _all_pause(reporter)
        if reporter is not None:
            frequency = spec.checkpoint_frequency
            due = frequency > 0 and (index + 1) % frequency == 0
            kept = None
            if pause or (spec.checkpoint_at_end if last else due):
                kept = _checkpoint(index + 1, booster, container)
            reporter.round_done(index, _latest(container.history), kept)
        if pause:
            raise PausedError
        if stop:
            break
    if not updated:
        # The intercept is still to be estimated, by all members together.
        booster.save_config()
    trained: Booster = container.after_training(booster)
    return trained


def _all_pause(reporter: Reporter | None) -> bool:
    """Return what rank 0 wants: all have to do the same, after the same round."""
    from xgboost import collective

    pause = None if reporter is None else reporter.wants_pause()
    if not collective.is_distributed():
        return bool(pause)
    return bool(collective.broadcast(pause, 0))


def _container(spec: TrainingSpec, restored: list[Any] | None) -> CallbackContainer:
    from xgboost.callback import CallbackContainer, EarlyStopping

    if restored is not None:
        callbacks = restored
    else:
        callbacks = list(spec.callbacks)
        if spec.early_stopping_rounds:
            callbacks.append(
                EarlyStopping(rounds=spec.early_stopping_rounds, maximize=spec.maximize)
            )
    return CallbackContainer(
        callbacks, metric=spec.custom_metric, output_margin=callable(spec.objective)
    )


def _restored(checkpoint: Checkpoint | None) -> list[Any] | None:
    if checkpoint is None or checkpoint.callbacks is None:
        return None
    callbacks: list[Any] = pickle.loads(checkpoint.callbacks)
    return callbacks


def _checkpoint(rounds_done: int, booster: Booster, container: CallbackContainer) -> Checkpoint:
    import cloudpickle

    callbacks: bytes | None = None
    try:
        callbacks = cloudpickle.dumps(container.callbacks)
    except Exception as error:
        # A callback may hold anything by now, an open file for instance.  It begins anew then.
        logger.warning("callbacks are not part of the checkpoint: %s", error)
    recorded: Any = container.history
    history: History = {
        data: {metric: [float(score) for score in scores] for metric, scores in metrics.items()}
        for data, metrics in recorded.items()
    }
    return Checkpoint(rounds_done, serialized(booster), history, callbacks)


def serialized(booster: Booster) -> bytes:
    """Return the model, with attributes and feature names, as bytes."""
    return bytes(booster.save_raw("ubj"))


def _latest(history: Any) -> Scores:
    return {
        data: {metric: float(scores[-1]) for metric, scores in metrics.items()}
        for data, metrics in history.items()
    }
