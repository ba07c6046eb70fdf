"""Where this session spills objects to, if the user has not said, and how that is found again.

Whatever is outside of the session's directory has a link in it, so that whoever removes the one
removes the other: the daemon itself, the zygote after the daemon was killed, the next session after
both were.
"""

from __future__ import annotations

import contextlib
import os

from skate.runtime.node.config import Paths

#: Kinds of filesystems that are memory themselves.
_IN_MEMORY = frozenset(("tmpfs", "ramfs"))
#: For when the temporary directory is in memory.
_ON_DISK = "/var/tmp"


def spill_place(uri: str, paths: Paths) -> str:
    """Return a directory of this session's own below ``uri``, or by default on some disk.

    URLs of anything else than local files are returned as they are.
    """
    scheme, separator, rest = uri.partition("://")
    if separator and scheme not in ("file", "local"):
        return uri
    parent = rest if separator else uri
    if not parent:
        if not _is_in_memory(paths.directory) or _is_in_memory(_ON_DISK):
            return paths.spill
        parent = os.path.join(_ON_DISK, f"skate-{os.getuid()}")
    session = os.path.basename(paths.directory)
    place = os.path.join(os.path.abspath(os.path.expanduser(parent)), f"skate-{session}")
    with contextlib.suppress(OSError):
        os.symlink(place, paths.spill)
    return place


def _is_in_memory(path: str) -> bool:
    """Return whether a directory is on a filesystem in memory."""
    path = os.path.realpath(path)
    kind, longest = "", -1
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, mount, found, *_ = line.split(" ")
                inside = path == mount or path.startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= longest:
                    kind, longest = found, len(mount)
    except (OSError, ValueError):
        return False
    return kind in _IN_MEMORY
