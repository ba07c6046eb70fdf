"""What all checks of user input share."""

from __future__ import annotations

from collections.abc import Collection


def nearest(name: str, known: Collection[str]) -> str:
    """Return " Did you mean ...?" if ``name`` looks like a misspelling of a known name, else ""."""
    import difflib

    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {found[0]!r}?" if found else ""
