"""The direction of a metric."""

from __future__ import annotations


def check_mode(mode: object) -> None:
    """Check a mode.

    Raises:
        ValueError: it is neither None nor "min" nor "max".
    """
    if mode not in (None, "min", "max"):
        raise ValueError(f"mode has to be 'min' or 'max', got {mode!r}")
