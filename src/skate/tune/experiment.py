"""``Experiment``: what a run is to do, said beforehand."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from skate.tune.registry import resolve
from skate.tune.trainable import Function, check
from skate.tune.trial import Trial

__all__ = ["Experiment", "Trial"]

#: What an experiment may say, named as the arguments of ``tune.run``.
SETTINGS = (
    "stop",
    "time_budget_s",
    "config",
    "resources_per_trial",
    "num_samples",
    "storage_path",
    "local_dir",
    "sync_config",
    "checkpoint_config",
    "checkpoint_freq",
    "checkpoint_at_end",
    "keep_checkpoints_num",
    "checkpoint_score_attr",
    "trial_name_creator",
    "trial_dirname_creator",
    "log_to_file",
    "max_failures",
    "restore",
    "export_formats",
    "storage_filesystem",
)


class Experiment:
    """A trainable and what a run does with it, for ``tune.run`` and ``tune.run_experiments``.

    Args:
        name: of the run and its folder.
        run: a function, a ``Trainable`` class, or a name given to ``register_trainable``.
        settings: ``config``, ``num_samples``, ``stop`` and others, as ``tune.run`` has them.

    Raises:
        TypeError: the trainable is none, or there is no such setting.
        ValueError: nothing is registered under its name.
    """

    def __init__(self, name: str, run: Function | str, **settings: Any) -> None:
        unknown = sorted(set(settings) - set(SETTINGS))
        if unknown:
            near = difflib.get_close_matches(unknown[0], SETTINGS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"Experiment has no setting {unknown[0]!r}{hint}")
        if not isinstance(name, str):
            raise TypeError(f"the name of an experiment is text, got {name!r}")
        self.name = name
        self.run = resolve(run)
        check(self.run)
        self.settings = settings

    @classmethod
    def from_json(cls, name: str, spec: object) -> Experiment:
        """Return an experiment that a dict describes: ``{"run": train, "num_samples": 4, ...}``.

        Raises:
            TypeError: it has no "run", or something that is no setting.
        """
        if not isinstance(spec, Mapping) or "run" not in spec:
            raise TypeError(f'experiment {name!r} wants a dict with "run" in it, got {spec!r:.100}')
        return cls(name, **spec)

    def joined(self, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of ``tune.run``: those of a call, and what is said here.

        Args:
            given: those of the call.
            defaults: what stands for "not given".

        Raises:
            ValueError: the call says what belongs here.
        """
        for name in ("name", *SETTINGS):
            if given[name] is not defaults[name]:
                raise ValueError(
                    f"{name} belongs to the experiment: Experiment({self.name!r}, ..., {name}=...)"
                )
        return {**given, "name": self.name, **self.settings}

    def __repr__(self) -> str:
        return f"Experiment({self.name!r})"


def as_experiments(
    experiments: Experiment | Mapping[str, Any] | Iterable[Experiment | Mapping[str, Any]],
) -> list[Experiment]:
    """Return what ``tune.run_experiments`` is given as a list.

    Raises:
        TypeError: something in it is none.
        ValueError: two have the same name, and so the same folder.
    """
    if isinstance(experiments, Experiment):
        found = [experiments]
    elif isinstance(experiments, Mapping):
        found = [Experiment.from_json(name, spec) for name, spec in experiments.items()]
    elif isinstance(experiments, Sequence) and not isinstance(experiments, str):
        found = [one for each in experiments for one in as_experiments(each)]
    else:
        raise TypeError(
            "run_experiments wants an Experiment, a dict from names to their settings, or a list of"
            f" these, got {experiments!r:.100}"
        )
    names = [experiment.name for experiment in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two experiments are called {name!r}; each has a folder of its own")
    return found
