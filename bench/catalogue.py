"""The workloads, and what is wanted of each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

#: ``plain`` is the same work without either system: a memory copy, a training in one process;
#: ``dask`` is that of XGBoost with Dask.
System = Literal["skate", "ray", "plain", "dask"]
Bound = Literal["at most", "at least", "times Ray", "of plain", "times plain"]


@dataclass(frozen=True)
class Wanted:
    """A goal: a figure in the unit of the workload, or a factor.

    ``times Ray``: so many times better than Ray; ``of plain`` and ``times plain``: at least, and at
    most so many times the figure of the plain way.
    """

    bound: Bound
    value: float
    #: What may come on top of a factor, in the unit of the workload.
    plus: float = 0.0


@dataclass(frozen=True)
class Workload:
    """One row of the table: a function of a script in ``bench/workloads``, and how to read it."""

    name: str
    title: str
    unit: str
    wanted: Wanted
    more_is_better: bool = False
    systems: Sequence[System] = ("skate", "ray")
    #: Seconds after which one process is given up.
    timeout: float = 120.0
    #: Runs that do not count, so that files and bytecode are cached for everybody.
    discarded: int = 0
    #: At most so many repetitions with Ray: for what takes it a minute.
    ray_repetitions: int = sys.maxsize

    @property
    def script(self) -> str:
        """The file in ``bench/workloads``."""
        return self.name.split(".")[0] + ".py"

    @property
    def function(self) -> str:
        """The function in it."""
        return self.name.split(".")[1]

    def met(self, skate: float | None, ray: float | None, plain: float | None) -> bool | None:
        """Return whether ``skate`` is good enough; None if a figure for that is missing."""
        bound, value = self.wanted.bound, self.wanted.value
        if bound == "times Ray":
            ratio = self.ratio(skate, ray)
            return None if ratio is None else ratio >= value
        other = plain if "plain" in bound else 1.0
        if skate is None or other is None:
            return None
        if bound in ("at most", "times plain"):
            return skate <= value * other + self.wanted.plus
        return skate >= value * other

    def ratio(self, skate: float | None, ray: float | None) -> float | None:
        """How many times better Skate is than Ray."""
        if not skate or not ray:
            return None
        return skate / ray if self.more_is_better else ray / skate


def _rate(name: str, title: str, factor: float) -> Workload:
    return Workload(name, title, "/s", Wanted("times Ray", factor), more_is_better=True)


WORKLOADS = [
    Workload(
        "session.start", "import + init + first result", "s", Wanted("at most", 0.4), discarded=1
    ),
    _rate("calls.tasks_one_by_one", "tasks, one at a time", 12),
    _rate("calls.tasks_at_once", "tasks, 1,000 at once", 25),
    _rate("calls.actor_one_by_one", "actor calls, one at a time", 6),
    _rate("calls.actor_at_once", "actor calls, 1,000 at once", 10),
    _rate("calls.async_actor_one_by_one", "calls of an async actor, one at a time", 5),
    _rate("calls.async_actor_at_once", "calls of an async actor, 1,000 at once", 10),
    _rate("calls.generator", "items of a generator of 10,000", 10),
    _rate("objects.put_small", "put of small objects", 50),
    _rate("objects.get_small", "get of small objects", 20),
    _rate("objects.refs_inside", "put and get of 1,000 refs in one object", 5),
    _rate("objects.wait_tasks", "wait, one by one over 500 tasks", 15),
    _rate("objects.wait_objects", "wait, one by one over 500 objects", 15),
    _rate("groups.created_and_removed", "placement groups, made and removed", 5),
    Workload(
        "objects.put_large",
        "put of a 100 MB array (plain: memcpy)",
        "GB/s",
        # Memory speed varies by a few percent from run to run.
        Wanted("of plain", 0.95),
        more_is_better=True,
        systems=("skate", "ray", "plain"),
    ),
    Workload("objects.get_large", "get of a 100 MB array", "us", Wanted("at most", 50)),
    Workload("session.start_actors", "20 actors to first reply", "s", Wanted("at most", 0.3)),
    Workload("session.memory_idle", "memory beside the driver, idle", "MB", Wanted("at most", 100)),
    Workload("session.memory_actors", "the same, 20 idle actors", "MB", Wanted("at most", 250)),
    Workload("session.shutdown", "shutdown", "s", Wanted("at most", 0.2)),
    Workload(
        "tuning.empty_trials",
        "Tune, 50 trials x 10 reports",
        "s",
        # 60 trials per second.
        Wanted("at most", 0.83),
        timeout=180.0,
        ray_repetitions=2,
    ),
    Workload(
        "tuning.flatness",
        "Tune, a trial of 1,000 : one of 50",
        "x",
        # Runs of a fifth of a second vary by that much.
        Wanted("at most", 1.1),
        systems=("skate",),
    ),
    Workload(
        "tuning.driver_memory",
        "Tune, driver at 1,000 trials",
        "MB",
        Wanted("at most", 300),
        systems=("skate",),
    ),
    Workload(
        "tuning.reports",
        "Tune, reports of 4 trials",
        "/s",
        Wanted("at least", 5000),
        more_is_better=True,
        systems=("skate",),
    ),
    Workload(
        "tuning.clone",
        "Tune, PBT's exploit step with 10 MB",
        "ms",
        Wanted("at most", 50),
        systems=("skate",),
    ),
    Workload(
        "models.asha_time",
        "Tune, ASHA, 64 MLPs on digits",
        "s",
        Wanted("times Ray", 2),
        timeout=300.0,
        ray_repetitions=2,
    ),
    Workload(
        "models.asha_accuracy",
        "the same, best accuracy held out",
        "%",
        # Which trials reach the last rung depends on their order: half an image of 540.
        Wanted("times Ray", 0.999),
        more_is_better=True,
        timeout=900.0,
        ray_repetitions=1,
    ),
    Workload(
        "boosting.train",
        "XGBoost, 1M x 28, 50 rounds, 2 actors",
        "s",
        Wanted("times plain", 1.15),
        systems=("skate", "ray", "plain", "dask"),
        timeout=180.0,
    ),
    Workload(
        "boosting.parquet",
        "the same from 8 Parquet files",
        "s",
        Wanted("times plain", 1.0),
        systems=("skate", "ray", "plain"),
        timeout=180.0,
        ray_repetitions=2,
    ),
    Workload(
        "boosting.memory",
        "the same from arrays, memory beside these",
        "MB",
        # One copy of the arrays (112 MB) lies in the object store.
        Wanted("times plain", 1.3, plus=112.0),
        systems=("skate", "ray", "plain"),
        timeout=180.0,
        ray_repetitions=1,
    ),
    Workload(
        "boosting.elastic",
        "4 actors, one killed, elastic : undisturbed",
        "x",
        Wanted("at most", 1.15),
        systems=("skate",),
        timeout=180.0,
    ),
    Workload(
        "boosting.warm_restart",
        "the same, warm : undisturbed + what is lost",
        "x",
        Wanted("at most", 1.0),
        systems=("skate",),
        timeout=180.0,
    ),
]


def selected(only: str) -> list[Workload]:
    """Return the workloads whose name or title contains one of the words of ``only`` (or all).

    Raises:
        ValueError: no workload is called like that.
    """
    words = only.replace(",", " ").split()
    chosen = [w for w in WORKLOADS if not words or any(x in f"{w.name} {w.title}" for x in words)]
    if not chosen:
        names = ", ".join(w.name for w in WORKLOADS)
        raise ValueError(f"no workload matches {only!r}; there are {names}")
    return chosen
