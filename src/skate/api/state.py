"""What the session consists of: nodes and resources."""

from __future__ import annotations

from typing import Any

from skate.api.session import current


def nodes() -> list[dict[str, Any]]:
    """Return one row per node: "NodeID", "Alive", "NodeManagerHostname", "Resources", ..."""
    return current().state("nodes")


def cluster_resources() -> dict[str, float]:
    """Return all resources by name; memory in bytes."""
    return _amounts("cluster_resources")


def available_resources() -> dict[str, float]:
    """Return the resources that nobody holds now, by name; what is used up is left out."""
    return {name: number for name, number in _amounts("available_resources").items() if number > 0}


def get_gpu_ids() -> list[int | str]:
    """Return the ids of the GPUs that the current task or actor may use; [] in the driver.

    They are those of ``CUDA_VISIBLE_DEVICES`` where the session was started: numbers, or names as
    "GPU-8932f937" if that has names.
    """
    return list(current().context().gpu_ids)


def _amounts(what: str) -> dict[str, float]:
    rows = current().state(what)
    return dict(rows[0]) if rows else {}
