"""What a user's sessions share on disk: packages, and virtual environments with their locks.

``SKATE_CACHE_DIR``, else ``$XDG_CACHE_HOME/skate``, else ``~/.cache/skate``; mode 0700.  Several
daemons and builders of several sessions work in it at the same time.  A virtual environment
``environments/<key>`` goes with ``environments/<key>.lock``: exclusive for whoever builds or
removes it, shared for daemons that use it.  The kernel drops locks with their processes, however
these end.  An environment counts when its marker exists, which is written last.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

#: The file in a virtual environment that says that it is complete.
MARKER = "skate-complete.json"
#: Virtual environments that are kept at most, those in use apart.
MAX_ENVIRONMENTS = 32
#: Bytes that virtual environments may take before unused ones are removed.
MAX_ENVIRONMENT_BYTES = 20 << 30
#: Bytes of packages that are kept.
MAX_PACKAGE_BYTES = 10 << 30
_REMOVED = ".removed-"


def directory(kind: str) -> str:
    """Return the directory for "environments" or "packages"; make it if there is none.

    Raises:
        OSError: it cannot be made, or belongs to somebody else.
    """
    root = os.environ.get("SKATE_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "skate"
    )
    root = os.path.abspath(root)
    os.makedirs(os.path.dirname(root), exist_ok=True)
    path = os.path.join(root, kind)
    for name in (root, path):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700)
        found = os.stat(name)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise OSError(f"{name} is no directory of yours; remove it or set SKATE_CACHE_DIR")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(name, 0o700)
    return path


# --------------------------------------------------------------------------- locks


def lock_of(environment: str) -> str:
    """Return the path of the lock of a virtual environment."""
    return environment + ".lock"


def try_lock(path: str, operation: int) -> int | None:
    """Take a lock without waiting; return its descriptor, or None.

    ``operation``: ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        # It may have been removed while we took it: then others lock another file of that name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        os.close(fd)


def is_complete(environment: str) -> bool:
    """Whether a virtual environment was built to the end."""
    return os.path.exists(os.path.join(environment, MARKER))


def hold(environment: str) -> int | None:
    """Keep a virtual environment from being removed; return the descriptor to close later.

    None: it does not exist (any more).
    """
    try:
        fd = try_lock(lock_of(environment), fcntl.LOCK_SH)
    except OSError:
        return None
    if fd is None:
        return None
    if not is_complete(environment):
        os.close(fd)
        return None
    os.utime(lock_of(environment))
    return fd


def mark_complete(environment: str, details: dict[str, object]) -> None:
    """Say that a virtual environment was built to the end."""
    import json  # here and below: daemons, which are to start quickly, seldom need these

    marker = os.path.join(environment, MARKER)
    with open(marker + ".new", "w", encoding="utf-8") as file:
        json.dump({**details, "size": _size(environment)}, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(marker + ".new", marker)


def _size(path: str) -> int:
    total = 0
    for where, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


# --------------------------------------------------------------------------- removal


def collect_environments(
    limit: int = MAX_ENVIRONMENTS, limit_bytes: int = MAX_ENVIRONMENT_BYTES
) -> list[str]:
    """Remove virtual environments: broken ones, and the longest unused beyond the limits.

    Those that somebody builds or uses stay.  Returns the paths of what was removed.
    """
    import shutil

    root = directory("environments")
    complete: list[tuple[float, str, int]] = []
    removed = []
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if name.startswith(_REMOVED):
            shutil.rmtree(path, ignore_errors=True)
        elif os.path.isdir(path):
            if is_complete(path):
                complete.append((_last_use(path), path, _known_size(path)))
            elif remove_environment(path):
                removed.append(path)
    count, total = len(complete), sum(size for _, _, size in complete)
    for _, path, size in sorted(complete):
        if count <= limit and total <= limit_bytes:
            break
        if remove_environment(path):
            removed.append(path)
            count -= 1
            total -= size
    return removed


def remove_environment(path: str) -> bool:
    """Remove a virtual environment unless somebody builds or uses it; return whether it is gone."""
    lock = try_lock(lock_of(path), fcntl.LOCK_EX)
    if lock is None:
        return False
    try:
        discard(path)
        os.unlink(lock_of(path))
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def discard(path: str) -> None:
    """Remove a directory whose lock we have; under its name nobody ever sees half of it."""
    import shutil

    if not os.path.lexists(path):
        return
    where, name = os.path.split(path)
    aside = os.path.join(where, f"{_REMOVED}{name}-{os.urandom(4).hex()}")
    os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _last_use(path: str) -> float:
    try:
        return os.stat(lock_of(path)).st_mtime
    except OSError:
        return 0.0


def _known_size(path: str) -> int:
    import json

    try:
        with open(os.path.join(path, MARKER), encoding="utf-8") as file:
            return int(json.load(file)["size"])
    except (OSError, ValueError, KeyError):
        return 0


def collect_packages(limit_bytes: int = MAX_PACKAGE_BYTES) -> list[str]:
    """Remove the longest unused packages beyond the limit; those that a session holds stay."""
    root = directory("packages")
    found: list[tuple[float, str, int]] = []
    for entry in os.scandir(root):
        with contextlib.suppress(OSError):
            status = entry.stat()
            found.append((status.st_mtime, entry.path, status.st_size))
    total = sum(size for _, _, size in found)
    removed = []
    for _, path, size in sorted(found):
        if total <= limit_bytes:
            break
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        except OSError:
            continue
        finally:
            os.close(fd)
        removed.append(path)
        total -= size
    return removed
