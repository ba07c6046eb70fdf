"""What a trial asks of the cluster, and how many trials that makes at a time."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

#: How many trials run at a time when they ask for nothing, unless the run says otherwise.
UNBOUNDED_CONCURRENCY = 64

_CANONICAL = {"cpu": "CPU", "gpu": "GPU", "num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


class PlacementGroupFactory:
    """Resources of a trial whose function starts actors of its own.

    The first bundle is for the process that runs the user's function, the others for what that
    function starts.  With several bundles, each trial has a placement group of its own, and what
    the function starts runs in it: no trial starts before there is room for everything it will
    need.

    Args:
        bundles: for example ``[{"CPU": 0}, {"CPU": 1}, {"CPU": 1}]``.
        strategy: how bundles are spread over nodes: "PACK", "SPREAD", "STRICT_PACK" or
            "STRICT_SPREAD".
    """

    def __init__(self, bundles: Sequence[Mapping[str, float]], strategy: str = "PACK") -> None:
        if not bundles:
            raise ValueError("PlacementGroupFactory wants at least one bundle")
        self.bundles = [normalize(bundle) for bundle in bundles]
        self.strategy = strategy

    @property
    def head(self) -> dict[str, float]:
        """Resources of the process that runs the user's function."""
        return self.bundles[0]

    @property
    def head_cpus(self) -> float:
        """CPUs of that process."""
        return self.head.get("CPU", 0.0)

    @property
    def placed_bundles(self) -> list[dict[str, float]]:
        """What a placement group reserves: a process that needs nothing needs no bundle."""
        filled = [{n: a for n, a in bundle.items() if a > 0} for bundle in self.bundles]
        return [bundle for bundle in filled if bundle]

    @property
    def wants_group(self) -> bool:
        """Whether a placement group has to hold more than the process itself uses."""
        return len(self.bundles) > 1 and bool(self.placed_bundles)

    @property
    def shape(self) -> Hashable:
        """What is equal for factories that ask for the same."""
        return self.strategy, tuple(tuple(sorted(bundle.items())) for bundle in self.bundles)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroupFactory) and self.shape == other.shape

    def __hash__(self) -> int:
        return hash(self.shape)

    @property
    def required_resources(self) -> dict[str, float]:
        """The sum over all bundles."""
        total: dict[str, float] = {}
        for bundle in self.bundles:
            for name, amount in bundle.items():
                total[name] = total.get(name, 0.0) + amount
        return total

    def __repr__(self) -> str:
        return f"PlacementGroupFactory({self.bundles}, strategy={self.strategy!r})"


#: What ``resources_per_trial`` and ``with_resources`` accept.
Resources = Mapping[str, Any] | PlacementGroupFactory


def normalize(resources: Mapping[str, Any]) -> dict[str, float]:
    """Return amounts by the names of the cluster: ``{"cpu": 1}`` becomes ``{"CPU": 1.0}``.

    Raises:
        TypeError: an amount is no number.
        ValueError: an amount is negative.
    """
    amounts: dict[str, float] = {}
    for name, amount in resources.items():
        if name in ("custom_resources", "resources") and isinstance(amount, Mapping):
            amounts.update(normalize(amount))
            continue
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"resources per trial: {name!r} wants a number, got {amount!r}")
        if not math.isfinite(amount) or amount < 0:
            raise ValueError(f"resources per trial: {name!r} cannot be {amount!r}")
        amounts[_CANONICAL.get(name.lower(), name)] = float(amount)
    return amounts


def as_factory(resources: Resources | None) -> PlacementGroupFactory:
    """Return any form of resources as bundles; one CPU if nothing was said.

    Raises:
        TypeError: not a form of resources.
    """
    if resources is None:
        return PlacementGroupFactory([{"CPU": 1.0}])
    if isinstance(resources, PlacementGroupFactory):
        return resources
    if isinstance(resources, Mapping):
        # Resources that do not mention CPUs mean one, as everywhere.
        return PlacementGroupFactory([{"CPU": 1.0, **normalize(resources)}])
    raise TypeError(
        "resources_per_trial wants a dict such as {'cpu': 2, 'gpu': 0.5}, or a"
        f" PlacementGroupFactory, got {resources!r}"
    )


def actor_options(bundle: Mapping[str, float]) -> dict[str, Any]:
    """Return the ``.options`` of an actor that holds one bundle."""
    others = {n: amount for n, amount in bundle.items() if n not in ("CPU", "GPU", "memory")}
    options: dict[str, Any] = {"num_cpus": bundle.get("CPU", 0.0)}
    if bundle.get("GPU"):
        options["num_gpus"] = bundle["GPU"]
    if bundle.get("memory"):
        options["memory"] = int(bundle["memory"])
    if others:
        options["resources"] = others
    return options


def concurrency(required: Mapping[str, float], available: Mapping[str, float]) -> int:
    """Return how many trials that need ``required`` fit into ``available`` at a time.

    Raises:
        ValueError: not even one fits.
    """
    slots: float = math.inf
    for name, amount in required.items():
        if amount <= 0:
            continue
        there = available.get(name, 0.0)
        # A hair more than the quotient: three thirds make one.
        fits = math.floor(there / amount + 1e-9)
        if fits < 1:
            raise ValueError(
                f"each trial asks for {amount:g} {name}, but there is {there:g} in all; ask for"
                " less with resources_per_trial, or have more: skate.init(num_cpus=...)"
            )
        slots = min(slots, fits)
    return UNBOUNDED_CONCURRENCY if math.isinf(slots) else int(slots)


class Room:
    """What trials hold of what there is.

    Args:
        total: amounts by name; None for no limit.
    """

    #: Sums of floats are off by less than that: three thirds make one.
    TOLERANCE = 1e-6

    def __init__(self, total: Mapping[str, float] | None) -> None:
        self._total = total
        self._used: dict[str, float] = {}
        self._held: dict[str, Mapping[str, float]] = {}

    def fits(self, required: Mapping[str, float]) -> bool:
        """Say whether ``required`` is free."""
        return self._total is None or not self._lacking(required, self._used)

    def refusal(self, required: Mapping[str, float]) -> str:
        """Return why ``required`` would not even fit if nothing were held."""
        assert self._total is not None
        name = next(iter(self._lacking(required, {})))
        return (
            f"the trial asks for {required[name]:g} {name}, but there is"
            f" {self._total.get(name, 0.0):g} in all"
        )

    def take(self, holder: str, required: Mapping[str, float]) -> None:
        """Have ``holder`` hold ``required``."""
        self._held[holder] = required
        for name, amount in required.items():
            self._used[name] = self._used.get(name, 0.0) + amount

    def give(self, holder: str) -> None:
        """Have free again what ``holder`` held."""
        for name, amount in self._held.pop(holder).items():
            self._used[name] -= amount

    def _lacking(self, required: Mapping[str, float], used: Mapping[str, float]) -> list[str]:
        assert self._total is not None
        return [
            name
            for name, amount in required.items()
            if amount > 0
            and used.get(name, 0.0) + amount > self._total.get(name, 0.0) + self.TOLERANCE
        ]
