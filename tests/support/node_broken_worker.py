"""A worker that fails before it has registered."""

from __future__ import annotations


def main(config: object) -> None:
    """Fail."""
    raise ZeroDivisionError(f"cannot start with {type(config).__name__}")
