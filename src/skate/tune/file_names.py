"""What can be the name of a file or folder: told when it is given, not when it is first used."""

from __future__ import annotations

import os

#: No file system in use has longer names; in bytes.
_LONGEST = 255


def trouble_with(name: str) -> str:
    """Say why a path, relative to a folder, can name nothing below it; "" if it can."""
    if not name:
        return "is empty"
    if "\0" in name:
        return "has a null character in it"
    parts = name.split("/")
    if name.startswith("/") or {".", ".."} & set(parts):
        return "leads to another place"
    try:
        longest = max(len(os.fsencode(part)) for part in parts)
    except UnicodeEncodeError:
        return "has characters that names of files cannot have"
    return f"is longer than {_LONGEST} bytes" if longest > _LONGEST else ""
