"""``RayParams``: how many actors train, with what, and what happens when some die."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import skate
from skate.xgboost.amounts import not_negative, real, whole
from skate.xgboost.callback import DistributedCallback

#: Amounts of resources are multiples of this.
_STEP = 10_000
#: What to say where there is less of something than needed: who asks for it here, and who gives it.
_OF_RESOURCES = {
    "CPU": ("cpus_per_actor", "num_cpus"),
    "GPU": ("gpus_per_actor", "num_gpus"),
}
_OF_OTHER_RESOURCES = ("resources_per_actor", "resources")


@dataclass
class RayParams:
    """How a training or prediction is distributed.

    Attributes:
        num_actors: how many actors share the data; 0: one.
        cpus_per_actor: CPUs, and so threads, of each actor; 0: an equal share of the cluster's
            CPUs, or (inside a Tune trial) one.
        gpus_per_actor: GPUs of each actor; -1: one if the model's ``device`` is CUDA, else none.
        resources_per_actor: further resources of each actor by name.
        max_actor_restarts: how often actors that died are replaced; -1: always.  Several that
            die together count once.
        checkpoint_frequency: rounds from one checkpoint to the next; 0: none.
        elastic_training: whether the others go on at once when actors die, from the last
            checkpoint and without the rows of the dead ones.  Those that replace them load
            meanwhile and join after the next round.
        max_failed_actors: how many actors may be missing in elastic training; if more are, the
            training waits for those that replace them.
        distributed_callbacks: ``skate.xgboost.callback.DistributedCallback`` objects that every
            actor calls.
        verbose: whether to print how far loading and training are; None: if standard output is a
            terminal.
        placement_options: options of the placement group of the actors, such as
            ``{"strategy": "SPREAD"}``; for ``get_tune_resources``, too.

    Raises:
        TypeError, ValueError: a value that cannot be.
    """

    num_actors: int = 0
    cpus_per_actor: float = 0
    gpus_per_actor: float = -1
    resources_per_actor: Mapping[str, float] | None = None
    max_actor_restarts: int = 3
    checkpoint_frequency: int = 5
    elastic_training: bool = False
    max_failed_actors: int = 0
    distributed_callbacks: Sequence[DistributedCallback] | None = None
    verbose: bool | None = None
    placement_options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("num_actors", 0),
            ("max_actor_restarts", -1),
            ("checkpoint_frequency", 0),
            ("max_failed_actors", 0),
        ):
            setattr(self, name, whole(getattr(self, name), f"RayParams: {name}", least))
        if real(self.gpus_per_actor, "RayParams: gpus_per_actor") != -1:
            not_negative(self.gpus_per_actor, "RayParams: gpus_per_actor")
        not_negative(self.cpus_per_actor, "RayParams: cpus_per_actor")
        for name, kind, what in (
            ("elastic_training", bool, "a bool"),
            ("distributed_callbacks", Sequence | None, "a list"),
            ("resources_per_actor", Mapping | None, "a dict"),
            ("placement_options", Mapping | None, "a dict"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"RayParams: {name} must be {what}, not {value!r}")
        for resource, each in (self.resources_per_actor or {}).items():
            not_negative(each, f"RayParams: resources_per_actor[{resource!r}]")
        for callback in self.distributed_callbacks or ():
            if not isinstance(callback, DistributedCallback):
                raise TypeError(
                    "RayParams: distributed_callbacks must be"
                    f" skate.xgboost.callback.DistributedCallback objects, not {callback!r}"
                )
        if self.elastic_training and not (self.max_failed_actors and self.max_actor_restarts):
            raise ValueError(
                "RayParams: elastic_training needs max_failed_actors (how many actors may be"
                " missing) and max_actor_restarts (how often they are replaced), and one of them"
                " is 0"
            )

    def get_tune_resources(self) -> Any:
        """Return what ``tune.run(resources_per_trial=...)`` wants for trials that train with this.

        The trial itself only waits and takes nothing, so that all CPUs are there for training.

        Returns:
            A ``tune.PlacementGroupFactory``.
        """
        from skate import tune

        actor = resolve(self, {}, in_trial=True)
        bundles = [{}, *[actor.amounts] * actor.num_actors]
        return tune.PlacementGroupFactory(bundles, **(self.placement_options or {}))


def ray_params(given: RayParams | Mapping[str, Any] | None) -> RayParams:
    """Return ``RayParams`` from what users pass: an instance, a dict or nothing.

    Raises:
        TypeError: something else, or a dict with unknown names.
    """
    if given is None:
        return RayParams()
    if isinstance(given, RayParams):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"ray_params must be RayParams or a dict, not {given!r}")
    known = [field.name for field in fields(RayParams)]
    for name in given:
        if name not in known:
            raise TypeError(f"RayParams has no {name!r}; there are: {', '.join(known)}")
    return RayParams(**given)


@dataclass(frozen=True, slots=True)
class ActorPlan:
    """What the actors of one training ask for, with all defaults filled in."""

    num_actors: int
    cpus: float
    gpus: float
    custom: Mapping[str, float]

    @property
    def threads(self) -> int:
        """How many threads an actor trains with."""
        return max(1, int(self.cpus))

    @property
    def amounts(self) -> dict[str, float]:
        """Resources of one actor by name, without zeros."""
        named = {"CPU": self.cpus, "GPU": self.gpus, **self.custom}
        return {name: float(amount) for name, amount in named.items() if amount}

    def total(self) -> dict[str, float]:
        """Resources of all actors by name."""
        return {name: amount * self.num_actors for name, amount in self.amounts.items()}

    def check_fits(self) -> None:
        """Refuse what the cluster can never serve.

        Raises:
            ValueError: more is needed than there is in all.
        """
        there = skate.cluster_resources()
        for name, amount in self.total().items():
            if amount > there.get(name, 0.0) + 1e-9:
                wish, option = _OF_RESOURCES.get(name, _OF_OTHER_RESOURCES)
                raise ValueError(
                    f"{self.num_actors} training actors with {self.amounts[name]:g} {name} each"
                    f" need {amount:g}, but there is {there.get(name, 0.0):g} in all: use less"
                    f" (RayParams num_actors, {wish}), or start with more"
                    f" (skate.init({option}=...))"
                )


def resolve(params: RayParams, booster: Mapping[str, Any], *, in_trial: bool) -> ActorPlan:
    """Fill in what was left to be decided.

    Args:
        params: the user's wishes.
        booster: parameters of the model, for its ``device``.
        in_trial: whether other trials want CPUs at the same time.

    Raises:
        ValueError: actors were to share a GPU, or to use one that is not theirs.
    """
    num_actors = params.num_actors or 1
    cpus = params.cpus_per_actor
    if not cpus:
        share = skate.cluster_resources().get("CPU", 1.0) / num_actors
        if share >= 1:
            cpus = 1 if in_trial else math.floor(share)
        else:
            # More actors than CPUs: each has a part of one, so that all can run.
            cpus = math.floor(share * _STEP) / _STEP
    gpus = params.gpus_per_actor
    device, _, ordinal = str(booster.get("device", "cpu")).partition(":")
    on_gpu = device in ("cuda", "gpu")
    if gpus < 0:
        gpus = 1 if on_gpu else 0
    if on_gpu and gpus and ordinal.isdecimal() and int(ordinal) >= math.ceil(gpus):
        raise ValueError(
            f"device={booster['device']!r}: an actor sees no GPUs but its own, numbered from 0, and"
            f" gpus_per_actor is {gpus:g}: use device='cuda'"
        )
    if on_gpu and num_actors > 1 and gpus < 1:
        raise ValueError(
            f"each of {num_actors} actors that train one model on GPUs needs one of its own, as"
            f" NCCL does not let members of a group share one, but gpus_per_actor is {gpus:g}"
        )
    return ActorPlan(num_actors, cpus, gpus, dict(params.resources_per_actor or {}))


def actor_options(amounts: Mapping[str, float]) -> dict[str, Any]:
    """Return the ``.options`` of an actor that holds these resources, by name."""
    custom = {name: n for name, n in amounts.items() if name not in ("CPU", "GPU", "memory")}
    options: dict[str, Any] = {"num_cpus": amounts.get("CPU", 0)}
    if amounts.get("GPU"):
        options["num_gpus"] = amounts["GPU"]
    if amounts.get("memory"):
        options["memory"] = amounts["memory"]
    if custom:
        options["resources"] = custom
    return options
