"""Which GPUs user code in a worker sees."""

from __future__ import annotations

from collections.abc import Sequence

#: CUDA reads it once, when a process first uses a GPU: it has to be right before user code runs.
GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(instances: Sequence[int], given: str | None) -> list[int | str]:
    """Return the ids of GPU instances of the node, as CUDA wants them.

    Args:
        instances: Numbers from 0 that the node's daemon counts its GPUs with.
        given: ``CUDA_VISIBLE_DEVICES`` of the node: the first instance is the first id there.  Ids
            may be numbers or names ("GPU-8932f937-..."); None: the instances are the ids.
    """
    if given is None:
        return list(instances)
    names = [name.strip() for name in given.split(",") if name.strip()]
    ids: list[int | str] = []
    for instance in instances:
        # Where more GPUs were promised to init() than there are, the rest is make-believe.
        name = names[instance] if instance < len(names) else str(instance)
        ids.append(int(name) if name.isdigit() else name)
    return ids
