"""Placement groups: reserved, awaited and removed."""

from __future__ import annotations

import importlib

from _system import SYSTEM, check, load, main, rate

#: As in Ray's own benchmark.
GROUPS = 100

api = load()


def created_and_removed() -> float:
    """Groups per second: 100 of one bundle are made, then awaited, then removed."""
    util = importlib.import_module(f"{SYSTEM}.util.placement_group")

    def work() -> None:
        groups = [util.placement_group([{"custom": 0.001}]) for _ in range(GROUPS)]
        check(all(group.wait(timeout_seconds=30) for group in groups))
        for group in groups:
            util.remove_placement_group(group)

    return rate(work, GROUPS)


if __name__ == "__main__":
    api.init(num_cpus=2, resources={"custom": 100})
    main(created_and_removed)
    api.shutdown()
