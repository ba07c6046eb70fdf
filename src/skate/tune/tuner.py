"""``Tuner``: today's entrance."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from skate.tune.callback import Callback
from skate.tune.config import RunConfig, TuneConfig, refuse_filesystem
from skate.tune.execute import carry_out
from skate.tune.plan import plan
from skate.tune.registry import resolve
from skate.tune.result_grid import ResultGrid
from skate.tune.resume import (
    Resume,
    ResumeConfig,
    Settings,
    can_restore,
    load_tuner,
    resume_config,
)
from skate.tune.storage import open_storage
from skate.tune.trainable import Function, check


class Tuner:
    """Evaluates a function on configurations from a search space.

    Args:
        trainable: a function of one configuration that calls ``tune.report``, or returns or yields
            results; a ``Trainable`` class; or a name given to ``register_trainable``.
        param_space: a dict, perhaps nested, with domains such as ``tune.uniform(0, 1)`` in it.
        tune_config: how to search.
        run_config: where results go and what is shown.

    Raises:
        TypeError: the trainable is no function of one configuration.
        ValueError: nothing is registered under its name.
    """

    def __init__(
        self,
        trainable: Function | str,
        *,
        param_space: Mapping[str, Any] | None = None,
        tune_config: TuneConfig | None = None,
        run_config: RunConfig | None = None,
    ) -> None:
        trainable = resolve(trainable)
        check(trainable)
        if tune_config is not None and not isinstance(tune_config, TuneConfig):
            raise TypeError(f"tune_config wants a TuneConfig, got {tune_config!r}")
        if run_config is not None and not isinstance(run_config, RunConfig):
            raise TypeError(f"run_config wants a RunConfig, got {run_config!r}")
        self._trainable = trainable
        self._settings = Settings(
            {} if param_space is None else param_space,
            tune_config or TuneConfig(),
            run_config or RunConfig(),
        )
        self._resume: Resume | None = None
        self._results: ResultGrid | None = None

    @classmethod
    def restore(
        cls,
        path: str | os.PathLike[str],
        trainable: Function | str,
        resume_unfinished: bool = True,
        resume_errored: bool = False,
        restart_errored: bool = False,
        param_space: Mapping[str, Any] | None = None,
        storage_filesystem: object = None,
        callbacks: Sequence[Callback] = (),
        _resume_config: ResumeConfig | None = None,
    ) -> Tuner:
        """Return a tuner whose ``fit`` goes on with a run that was cut short.

        Trials that have ended stay as they are.  Those that ran go on from their last whole
        checkpoint, or begin anew if they have none.  Searcher and scheduler go on with what they
        had learned, random generators included.

        Args:
            path: the folder of the run, or its URL.
            trainable: what the trials run, as at first; tie parameters to it again.
            resume_unfinished: whether trials go on that ran, were paused or had not started.
            resume_errored: whether trials that failed go on, from their last checkpoint.
            restart_errored: whether trials that failed start anew.
            param_space: the search space, if what is in it cannot be saved (refs of objects).
            storage_filesystem: for scripts of Ray Tune; the storage is found by its URL.
            callbacks: hooks into the run; they are not saved, but what their ``get_state`` returned
                is, and they are given it.
            _resume_config: which trials go on, in the place of the arguments above (so Ray calls
                it).

        Raises:
            NotSupportedError: there is a ``storage_filesystem``.
            TypeError: the trainable is no function of one configuration.
            TuneError: there is no run that could be resumed, or it is damaged.
            StorageError: the storage cannot be read.
        """
        refuse_filesystem(storage_filesystem)
        settings = load_tuner(path)
        settings.run_config.callbacks = callbacks
        if param_space is not None:
            settings = dataclasses.replace(settings, space=param_space)
        tuner = cls(trainable)
        tuner._settings = settings
        tuner._resume = Resume(
            _resume_config or resume_config(resume_unfinished, resume_errored, restart_errored)
        )
        return tuner

    @staticmethod
    def can_restore(path: str | os.PathLike[str], storage_filesystem: object = None) -> bool:
        """Say whether there is a run at a path or URL that ``restore`` can go on with.

        Raises:
            NotSupportedError: there is a ``storage_filesystem``.
            StorageError: the storage cannot be read.
        """
        refuse_filesystem(storage_filesystem)
        return can_restore(open_storage(path))

    def fit(self) -> ResultGrid:
        """Run all trials.  Trials that fail are in the result; Ctrl-C ends the run early.

        Raises:
            TypeError, ValueError: a setting makes no sense; no trial has started.
            MetricError: trials do not report what the run is about.
            StorageError: the storage cannot be written; no trial has started.
        """
        self._results = ResultGrid(carry_out(plan(self._trainable, self._settings, self._resume)))
        return self._results

    def get_results(self) -> ResultGrid:
        """Return once more what ``fit`` returned.

        Raises:
            RuntimeError: it has not been called, or has raised.
        """
        if self._results is None:
            raise RuntimeError("there are no results yet: call fit() first")
        return self._results
