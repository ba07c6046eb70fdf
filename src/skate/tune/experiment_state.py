"""The state of a run as bytes, and back: what ``Tuner.restore`` goes on from.

One pickle holds all of it, so that trials, searcher and scheduler are always those of one moment;
trials that have ended are encoded once.  Two things are kept elsewhere: what trials reported
(``result.json`` of each) and the files of checkpoints, which are named here.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from skate.tune.callback import States
from skate.tune.error import TuneError, describe
from skate.tune.objective import Objective
from skate.tune.orchestrator import Orchestrator
from skate.tune.readable import as_json
from skate.tune.schedulers.trial_scheduler import Exploit
from skate.tune.trial import Trial, TrialCheckpoint

#: The state, a readable summary of it, and what the run was started with.
STATE_FILE = "experiment_state.pkl"
SUMMARY_FILE = "experiment_state.json"
TUNER_FILE = "tuner.pkl"

VERSION = 1


@dataclass(slots=True)
class Encoded:
    """The state of a run at one moment.

    Attributes:
        state: goes into ``STATE_FILE``.
        summary: goes into ``SUMMARY_FILE``.
        named: the checkpoints that it needs, by name.
    """

    state: bytes
    summary: bytes
    named: frozenset[str]


@dataclass(slots=True)
class SavedTrial:
    """A trial of a saved run.

    Attributes:
        trial: without its history.
        reports: how many reports it had made.
        kept: its checkpoints, oldest first; without their paths.
    """

    trial: Trial
    reports: int
    kept: list[TrialCheckpoint]


@dataclass(slots=True)
class SavedRun:
    """What ``decode`` returns.

    Attributes:
        name: of the run.
        id_prefix: what its trial ids begin with.
        objective: what it optimizes.
        informed: whether searcher and scheduler have been told.
        searcher, scheduler, stopper: their states.
        exploits: what paused trials start with when they run next; checkpoints without their paths.
        callbacks: the states of those that have one.
        unclaimed: checkpoints on the storage that belong to none of the trials, by folder.
    """

    name: str
    id_prefix: str
    objective: Objective
    informed: bool
    trials: list[SavedTrial]
    searcher: dict[str, Any]
    scheduler: dict[str, Any]
    stopper: dict[str, Any]
    exploits: dict[str, tuple[Exploit, TrialCheckpoint | None]]
    callbacks: States = field(default_factory=list)
    unclaimed: dict[str, set[str]] = field(default_factory=dict)


class Encoder:
    """Encodes the state of one run again and again."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._created = time.time()
        #: Trials that have ended: what they looked like, and how they are encoded.
        self._ended: dict[str, tuple[object, tuple[bytes, str, frozenset[str]]]] = {}

    def encode(
        self,
        orchestrator: Orchestrator,
        kept: dict[str, list[TrialCheckpoint]],
        callbacks: States,
    ) -> Encoded:
        """Return the state.

        Args:
            orchestrator: of the run.
            kept: the checkpoints of each trial, by trial id.
            callbacks: the states of those that have one.

        Raises:
            Exception: something in it cannot be pickled.
        """
        trials = [self._trial(t, kept.get(t.trial_id, [])) for t in orchestrator.trials]
        objective = orchestrator.objective
        exploits = orchestrator.exploits
        parts = {
            "searcher": orchestrator.searcher.get_state(),
            "scheduler": orchestrator.scheduler.get_state(),
            "stopper": orchestrator.stopper.get_state(),
            "callbacks": callbacks,
            "exploits": {
                key: (exploit.source, exploit.config, held)
                for key, (exploit, held) in exploits.items()
            },
        }
        state = {
            "version": VERSION,
            "name": self._name,
            "id_prefix": orchestrator.id_prefix,
            "objective": (objective.metric, objective.mode, objective.assumed),
            "informed": orchestrator.informed,
            "trials": [encoded for encoded, _, _ in trials],
            "parts": _dumps(parts),
        }
        head = {
            "version": VERSION,
            "name": self._name,
            "created": self._created,
            "updated": time.time(),
            "end_reason": orchestrator.end_reason,
            "metric": objective.metric,
            "mode": objective.mode,
            "total": orchestrator.total,
        }
        listed = ",\n".join(summary for _, summary, _ in trials)
        summary = f'{json.dumps(head)[:-1]}, "trials": [\n{listed}\n]}}\n'
        return Encoded(
            pickle.dumps(state, protocol=5),
            summary.encode(),
            frozenset(held.name for _, held in exploits.values() if held is not None).union(
                *(named for _, _, named in trials)
            ),
        )

    def _trial(
        self, trial: Trial, kept: Sequence[TrialCheckpoint]
    ) -> tuple[bytes, str, frozenset[str]]:
        if not trial.is_finished:
            return _encode_trial(trial, kept)
        looks = (trial.status, [each.name for each in kept])
        known = self._ended.get(trial.trial_id)
        if known is None or known[0] != looks:
            known = self._ended[trial.trial_id] = (looks, _encode_trial(trial, kept))
        return known[1]


def _encode_trial(
    trial: Trial, kept: Sequence[TrialCheckpoint]
) -> tuple[bytes, str, frozenset[str]]:
    # One that could not be written is not on the storage, and will not be.
    written = [each for each in kept if not each.failed]
    newest = trial.checkpoint
    if newest is not None and (newest.failed or not newest.name):
        # Nor is one that came a moment ago.
        newest = written[-1] if written else None
    fields = {
        "trial_id": trial.trial_id,
        "config": trial.config,
        "evaluated_params": trial.evaluated_params,
        "status": trial.status,
        "stop_reason": trial.stop_reason,
        "last_result": trial.last_result,
        "error": _portable(trial.error),
        "failures": trial.failures,
        "resources": trial.resources,
        "reports": trial.iterations,
        "searcher_done": trial.searcher_done,
        "names": (trial.name, trial.folder, trial.trainable_name),
        "kept": [_fields(each) for each in written],
        "checkpoint": None if newest is None else _fields(newest),
    }
    names = [each.name for each in written]
    summary = {
        "trial_id": trial.trial_id,
        "status": trial.status,
        "stop_reason": trial.stop_reason,
        "config": trial.config,
        "reports": trial.iterations,
        "last_result": {k: v for k, v in trial.last_result.items() if k != "config"},
        "failures": trial.failures,
        "error": describe(trial.error),
        # How many reports had been made by each: the last of them is the one that it came with.
        "checkpoints": {each.name: each.reports for each in written},
    }
    named = frozenset(names if newest is None else [*names, newest.name])
    return cloudpickle.dumps(fields, protocol=5), as_json(summary), named


def decode(state: bytes) -> SavedRun:
    """Return the state of a run.

    Raises:
        TuneError: another version of Skate has written it, in another way.
    """
    fields = pickle.loads(state)
    if fields["version"] != VERSION:
        raise TuneError(
            f"the state of the run has version {fields['version']}, this Skate reads {VERSION};"
            " resume it with the Skate that it was started with"
        )
    trials = [_decode_trial(encoded) for encoded in fields["trials"]]
    parts = _loads(fields["parts"], {saved.trial.trial_id: saved.trial for saved in trials})
    return SavedRun(
        fields["name"],
        fields["id_prefix"],
        Objective(*fields["objective"]),
        fields["informed"],
        trials,
        parts["searcher"],
        parts["scheduler"],
        parts["stopper"],
        {
            key: (Exploit(source, config), held)
            for key, (source, config, held) in parts["exploits"].items()
        },
        parts.get("callbacks", []),  # older states have none
    )


def _decode_trial(encoded: bytes) -> SavedTrial:
    fields = pickle.loads(encoded)
    trial = Trial(
        fields["trial_id"], fields["config"], fields["evaluated_params"], fields["resources"]
    )
    for name in ("status", "stop_reason", "last_result", "error", "failures"):
        setattr(trial, name, fields[name])
    if "names" in fields:  # older states have none
        trial.name, trial.folder, trial.trainable_name = fields["names"]
    # Older states do not say; those that had ended then had been told of.
    trial.searcher_done = fields.get("searcher_done", trial.is_finished)
    kept = [TrialCheckpoint(**each) for each in fields["kept"]]
    newest = fields["checkpoint"]
    if newest is not None:
        # The same object if it is the trial's own.
        own = [each for each in kept if _fields(each) == newest]
        trial.checkpoint = own[0] if own else TrialCheckpoint(**newest)
    return SavedTrial(trial, fields["reports"], kept)


def _fields(checkpoint: TrialCheckpoint) -> dict[str, Any]:
    """Return what is remembered of a checkpoint: where it is depends on where the run is then."""
    fields = {field.name: getattr(checkpoint, field.name) for field in _CHECKPOINT_FIELDS}
    return {**fields, "ref": None, "path": None, "keep_ref": False}


_CHECKPOINT_FIELDS = dataclasses.fields(TrialCheckpoint)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no type information
    """Refers to trials by their ids: those inside schedulers are the same as those of the run."""

    def persistent_id(self, value: object) -> tuple[str, Any] | None:
        if isinstance(value, Trial):
            return "trial", value.trial_id
        if isinstance(value, TrialCheckpoint):
            return "checkpoint", _fields(value)
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, trials: dict[str, Trial]) -> None:
        super().__init__(io.BytesIO(content))
        self._trials = trials

    def persistent_load(self, what: tuple[str, Any]) -> Any:
        kind, value = what
        return self._trials[value] if kind == "trial" else TrialCheckpoint(**value)


def _dumps(value: object) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=5).dump(value)
    return buffer.getvalue()


def _loads(content: bytes, trials: dict[str, Trial]) -> Any:
    return _Unpickler(content, trials).load()


def _portable(error: BaseException | None) -> BaseException | None:
    """Return an error, or one that says the same if it cannot be pickled and read again."""
    if error is None:
        return None
    try:
        pickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(describe(error))
    return error
