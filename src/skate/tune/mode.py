"""The direction of a metric."""

from __future__ import annotations


def check_mode(mode: object) -> None:
    """Check a mode.

    Raises:
        ValueError: it is neither None nor "min" nor "max".
    """
    if mode not in (None, "min", "max"):
        raise ValueError(f"mode has to be 'min' or 'max', got {mode!r}")


def badness(value: float, mode: str) -> tuple[bool, float]:
    """Return what to sort by, so that the best comes first and NaN last."""
    return (value != value, value if mode == "min" else -value)
