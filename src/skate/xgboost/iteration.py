"""Hands batches to XGBoost one after the other.  Imports ``xgboost``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from xgboost import DataIter


class BatchIterator(DataIter):
    """What ``QuantileDMatrix`` and its like iterate over, several times.

    Args:
        open_batches: begins anew; yields arguments of ``xgboost.DMatrix``.
        cache_prefix: of files for data that is not to be in memory.
        single: whether there is one batch only, the same each time: what XGBoost makes of it is
            kept from one time to the next.
    """

    def __init__(
        self,
        open_batches: Callable[[], Iterator[dict[str, Any]]],
        cache_prefix: str | None = None,
        *,
        single: bool = False,
    ) -> None:
        super().__init__(cache_prefix, release_data=not single)
        self._open = open_batches
        self._batches = open_batches()

    def reset(self) -> None:
        """Begin anew."""
        self._batches = self._open()

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand over a batch; return whether there was one."""
        arguments = next(self._batches, None)
        if arguments is None:
            return False
        input_data(**arguments)
        return True
