"""The directory of a session: made by the driver, locked by the daemon, removed at the end.

``<tempdir>/skate-<uid>/s-<random>`` has mode 0700 and holds sockets, the lock and the logs.  Logs
of crashed processes are kept in ``<tempdir>/skate-logs-<uid>/s-<random>``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time

from skate.exceptions import SessionError
from skate.runtime.node.config import Paths

#: Sessions whose crash logs are kept.
KEPT_SESSIONS = 20
#: Longest directory whose sockets fit into the 104 (macOS) to 108 bytes of a Unix address.
MAX_DIRECTORY = 80
#: A directory without lock is somebody's who is just starting, up to this age in seconds.
UNLOCKED_SECONDS = 60.0


def create() -> tuple[Paths, int]:
    """Make the directory of a new session; return its paths and the descriptor of its held lock.

    Raises:
        SessionError: the parent directory belongs to somebody else or cannot be made.
    """
    parent = _parent()
    remove_stale(parent)
    while True:
        paths = Paths(os.path.join(parent, f"s-{os.urandom(4).hex()}"))
        try:
            os.mkdir(paths.directory, 0o700)
            break
        except FileExistsError:
            continue
    os.mkdir(paths.log_dir, 0o700)
    # Renamed when it is locked: nobody ever sees a lock file that its session does not hold.
    fresh = paths.lock + ".new"
    fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(fresh, paths.lock)
    return paths, fd


def parents() -> list[str]:
    """Return where sessions of this user may lie: new ones lie in the first that is short enough.

    The second one is for temporary directories whose sockets would have too long names.
    """
    import tempfile  # here: daemon and zygote, which are to start quickly, do not need it

    name = f"skate-{os.getuid()}"
    # ``TMPDIR`` may be relative, and processes of a session have other directories than we.
    own = os.path.join(os.path.abspath(tempfile.gettempdir()), name)
    return list(dict.fromkeys([own, f"/tmp/{name}"]))


def _parent() -> str:
    uid = os.getuid()
    parent = parents()[0]
    if len(os.fsencode(parent)) + len("/s-00000000") > MAX_DIRECTORY:
        parent = parents()[-1]
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(parent, 0o700)
        found = os.lstat(parent)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid:
            raise SessionError(
                f"{parent} exists but is no directory of yours; remove it or set TMPDIR"
            )
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.chmod(parent, 0o700)
    except OSError as error:
        raise SessionError(f"cannot make the session directory: {error}") from error
    return parent


def remove_stale(parent: str) -> None:
    """Remove the directories of sessions that are dead, and old crash logs."""
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            paths = Paths(os.path.join(parent, name))
            if name.startswith("s-") and not _is_alive(paths):
                # All its processes were killed at once, and an error may have named the log.
                keep_log(paths, paths.node_log)
                remove(paths)
    _prune(os.path.dirname(Paths(os.path.join(parent, "s-")).kept_logs))


def _is_alive(paths: Paths) -> bool:
    if os.path.exists(paths.lock):
        return is_locked(paths)
    try:
        return time.time() - os.stat(paths.directory).st_mtime < UNLOCKED_SECONDS
    except OSError:
        return False


def is_locked(paths: Paths) -> bool:
    """Return whether the daemon or the zygote of the session lives."""
    fd = open_lock(paths)
    if fd is None:
        return False
    try:
        return not _lock(fd)
    finally:
        os.close(fd)


def open_lock(paths: Paths) -> int | None:
    """Return a descriptor of the lock file, None if there is none any more."""
    try:
        return os.open(paths.lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def wait_until_unlocked(fd: int, seconds: float) -> bool:
    """Wait until no daemon and no zygote of the session is left; return whether that is so.

    ``fd`` comes from ``open_lock``; the file may have been removed meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not (free := _lock(fd)) and time.monotonic() < deadline:
        time.sleep(0.002)
    return free


def _prune(kept: str) -> None:
    with contextlib.suppress(OSError):
        sessions = [os.path.join(kept, name) for name in os.listdir(kept)]
        sessions.sort(key=os.path.getmtime)
        for old in sessions[:-KEPT_SESSIONS]:
            _remove_tree(old)


def keep_log(paths: Paths, log: str) -> str:
    """Move a log to where it outlives the session; return its path then, "" if there is none."""
    try:
        if os.path.getsize(log) == 0:
            return ""
    except OSError:
        return ""
    kept = os.path.join(paths.kept_logs, os.path.basename(log))
    try:
        for directory in (os.path.dirname(paths.kept_logs), paths.kept_logs):
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        os.rename(log, kept)
    except OSError:
        return log
    return kept


def node_log(paths: Paths) -> str:
    """Return where the log of a daemon that has crashed is or will be; "" if it is empty.

    The zygote moves it when all workers have ended.
    """
    kept = os.path.join(paths.kept_logs, os.path.basename(paths.node_log))
    for path in (kept, paths.node_log):
        with contextlib.suppress(OSError):
            if os.path.getsize(path):
                return kept
    return ""


def describe_log(paths: Paths) -> str:
    """Say where the log of a daemon that has crashed is, for the end of an error."""
    log = node_log(paths)
    return f"; its log: {log}" if log else "; it has logged nothing"


def tail(path: str, size: int = 4096) -> str:
    """Return the last ``size`` bytes of a log as text, "" if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - size, 0))
            return file.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""


def remove(paths: Paths) -> None:
    """Remove the directory of a session, and what it has spilled elsewhere."""
    if os.path.islink(paths.spill):
        _remove_tree(os.readlink(paths.spill))
    _remove_tree(paths.directory)


def _remove_tree(directory: str) -> None:
    import shutil  # here: see ``_parent``

    shutil.rmtree(directory, ignore_errors=True)
