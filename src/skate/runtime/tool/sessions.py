"""Finding the sessions of this user that run on this machine."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass

from skate.exceptions import SessionError
from skate.runtime.node import session_dir, standing
from skate.runtime.node.config import Paths

#: Names the session to attach to: its directory, or the name of that ("s-1a2b3c4d").
ADDRESS_VARIABLE = "SKATE_ADDRESS"

HOW_TO_START = (
    "start a program that calls skate.init(), or set --address or"
    f" {ADDRESS_VARIABLE} to the directory of a session"
)


@dataclass(slots=True, frozen=True)
class RunningSession:
    """A session whose daemon runs."""

    directory: str
    #: Unix time.
    started: float

    @property
    def name(self) -> str:
        """The last part of the directory."""
        return os.path.basename(self.directory)


def running_sessions() -> list[RunningSession]:
    """Return the sessions of this user that run, the newest first.

    Those of our own temporary directory (``TMPDIR``) come before those of ``/tmp``.
    """
    found: dict[str, RunningSession] = {}
    for parent in session_dir.parents():
        with contextlib.suppress(OSError):
            status = os.lstat(parent)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            running = [_running(os.path.join(parent, name)) for name in os.listdir(parent)]
            sessions = [session for session in running if session is not None]
            sessions.sort(key=lambda session: -session.started)
            found.update({session.directory: session for session in sessions})
    return list(found.values())


def find(address: str | None) -> RunningSession:
    """Return the session that ``address`` names; None: ``SKATE_ADDRESS``, else the newest.

    An address is the directory of a session, the last part of that, or, of a cluster,
    ``host:port`` with or without ``skate://``.

    Raises:
        SessionError: There is none.
    """
    wanted = address or os.environ.get(ADDRESS_VARIABLE) or ""
    if wanted and wanted not in ("auto", "local"):
        return _find_named(wanted)
    sessions = running_sessions()
    if not sessions:
        raise SessionError(f"no session of this user is running on this machine: {HOW_TO_START}")
    return sessions[0]


def _find_named(wanted: str) -> RunningSession:
    if wanted.startswith(standing.SCHEME) or (":" in wanted and os.sep not in wanted):
        node = standing.find(wanted)
        return RunningSession(node.paths.directory, node.joined)
    if os.sep in wanted:
        directory = wanted.rstrip(os.sep)
        if os.path.basename(directory) == "node.sock":
            directory = os.path.dirname(directory)
        session = _running(directory)
        if session is not None:
            return session
    for session in running_sessions():
        if session.name == wanted:
            return session
    others = ", ".join(session.directory for session in running_sessions())
    raise SessionError(
        f"no session runs at {wanted!r}: "
        + (f"those that run are {others}" if others else HOW_TO_START)
    )


def _running(directory: str) -> RunningSession | None:
    paths = Paths(directory)
    try:
        started = os.stat(paths.lock).st_mtime
        if not stat.S_ISSOCK(os.stat(paths.node_socket).st_mode):
            return None
    except OSError:
        return None
    return RunningSession(directory, started) if session_dir.is_locked(paths) else None
