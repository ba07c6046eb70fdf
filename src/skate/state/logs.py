"""``list_logs`` and ``get_log``: what the processes of a session have printed."""

from __future__ import annotations

import codecs
import dataclasses
import fnmatch
import os
import time
from collections.abc import Iterator

from skate.exceptions import SkateError
from skate.state.listing import get_actor, get_task, list_tasks, list_workers, nodes_of
from skate.state.rows import Row, TaskState
from skate.state.source import opened

#: Seconds between two looks at a file that is followed.
FOLLOW_SECONDS = 0.1
#: Bytes of one read.
READ_SIZE = 64 * 1024


class LogNotFoundError(SkateError):
    """There is no such log, or nothing was printed."""


@dataclasses.dataclass
class LogFile(Row):
    """One file."""

    name: str
    path: str
    #: Bytes.
    size: int
    #: "node", "worker", or "crashed": of a process that has died, kept after the session.
    kind: str


def list_logs(address: str | None = None, glob_filter: str = "*") -> list[LogFile]:
    """Return the logs of a session's processes, those that have printed nothing left out.

    Raises:
        SessionError: There is no such session.
    """
    directories: list[tuple[str, str]] = []
    with opened(address) as source:
        for row in source.state("own_node"):
            directories.append((str(row.get("log_dir", "")), "worker"))
            directories.append((str(row.get("kept_logs", "")), "crashed"))
    found: list[LogFile] = []
    for directory, kind in directories:
        for name in _entries(directory):
            path = os.path.join(directory, name)
            size = _size(path)
            if size and fnmatch.fnmatch(name, glob_filter):
                found.append(LogFile(name, path, size, "node" if name == "node.log" else kind))
    return sorted(found, key=lambda log: log.name)


def get_log(
    filename: str | None = None,
    *,
    actor_id: str | None = None,
    task_id: str | None = None,
    worker_id: str | None = None,
    pid: int | None = None,
    tail: int | None = None,
    follow: bool = False,
    address: str | None = None,
) -> Iterator[str]:
    """Yield what was printed, in pieces of any length: of a file, or of something's process.

    A worker has one log for all tasks that it runs, standard output and error together.

    Args:
        filename: One of ``list_logs``.
        actor_id: The process that the actor lives in, or has died in.
        task_id: The process that the task runs or ran in.
        worker_id: That process.
        pid: That process.
        tail: Lines from the end; None: everything.
        follow: Go on until the file is gone and its process has ended.
        address: As in ``list_tasks``.

    Raises:
        SessionError: There is no such session.
        LogNotFoundError: There is no such log.
    """
    path = _find(filename, actor_id, task_id, worker_id, pid, address)
    return read_log(path, tail, follow)


def find_log(what: str, address: str | None = None) -> str:
    """Return the path of the log that ``what`` names: a file, or the id or pid of something.

    Raises:
        LogNotFoundError: It names nothing.
    """
    for log in list_logs(address):
        if what in (log.name, log.path, log.name.removesuffix(".log")):
            return log.path
    if what.isdigit():
        workers = list_workers(address, [("pid", "=", what)])
        if workers:
            return _of_worker(workers[0].worker_id, address)
    if list_workers(address, [("worker_id", "=", what)]) or any(
        log.name == f"worker-{what}.log" for log in list_logs(address)
    ):
        return _of_worker(what, address)
    if get_actor(what, address) is not None:
        return _find(None, what, None, None, None, address)
    if get_task(what, address) is not None:
        return _find(None, None, what, None, None, address)
    raise LogNotFoundError(
        f"{what!r} is no log file, worker, actor, task or pid of the session that has printed"
        " something"
    )


def _find(
    filename: str | None,
    actor_id: str | None,
    task_id: str | None,
    worker_id: str | None,
    pid: int | None,
    address: str | None,
) -> str:
    given = [x for x in (filename, actor_id, task_id, worker_id, pid) if x is not None]
    if len(given) != 1:
        raise TypeError("name one of filename, actor_id, task_id, worker_id and pid")
    if filename is not None:
        for log in list_logs(address):
            if filename in (log.name, log.path):
                return log.path
        raise LogNotFoundError(f"there is no log {filename!r}, or nothing is in it")
    if pid is not None:
        workers = list_workers(address, [("pid", "=", pid)])
        if not workers:
            raise LogNotFoundError(f"the session has no process with pid {pid}")
        worker_id = workers[0].worker_id
    elif actor_id is not None:
        actor = get_actor(actor_id, address)
        if actor is None:
            raise LogNotFoundError(f"the session has no actor {actor_id}")
        # A dead one has no process any more; its constructor ran somewhere.
        worker_id = actor.worker_id or next(
            (
                task.worker_id
                for task in list_tasks(address, [("actor_id", "=", actor_id)])
                if task.worker_id
            ),
            None,
        )
    elif task_id is not None:
        task = get_task(task_id, address)
        task = task[0] if isinstance(task, list) else task
        if not isinstance(task, TaskState):
            raise LogNotFoundError(f"the session knows no task {task_id}")
        worker_id = task.worker_id
    if worker_id is None:
        raise LogNotFoundError("it has not run in any process yet")
    return _of_worker(worker_id, address)


def _of_worker(worker_id: str, address: str | None) -> str:
    name = f"worker-{worker_id}.log"
    for log in list_logs(address):
        if log.name == name:
            return log.path
    known = list_workers(address, [("worker_id", "=", worker_id)])
    if known:
        if known[0].worker_type == "DRIVER":
            raise LogNotFoundError("a driver prints to its own terminal, Skate keeps no log of it")
        # It may print something yet.
        with opened(address) as source:
            return os.path.join(nodes_of(source)[0].log_dir, name)
    raise LogNotFoundError(f"there is no log of the worker {worker_id}: it has printed nothing")


def read_log(path: str, tail: int | None = None, follow: bool = False) -> Iterator[str]:
    """Yield the text of a log file; for the arguments see ``get_log``."""
    # A file that has become too large is renamed and begun anew: then this goes on with the new
    # one.
    offset, inode = 0, 0
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    try:
        status = os.stat(path)
        inode = status.st_ino
        offset = _offset_of_tail(path, tail) if tail is not None else 0
    except OSError:
        if not follow:
            return
    session = os.path.dirname(os.path.dirname(path))
    while True:
        ended = not os.path.isdir(session)
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_ino != inode:
                    inode, offset = os.fstat(file.fileno()).st_ino, 0
                file.seek(offset)
                while data := file.read(READ_SIZE):
                    offset += len(data)
                    yield decode(data)
        except FileNotFoundError:
            # A crash moves the log to where it outlives the session.
            if inode:
                return
        if not follow or ended:
            return
        time.sleep(FOLLOW_SECONDS)


def _offset_of_tail(path: str, lines: int) -> int:
    """Return where the last ``lines`` lines begin."""
    with open(path, "rb") as file:
        end = position = file.seek(0, os.SEEK_END)
        found = 0
        while position > 0:
            start = max(position - READ_SIZE, 0)
            file.seek(start)
            block = file.read(position - start)
            for index in range(len(block) - 1, -1, -1):
                # The newline at the very end ends the last line, and begins none.
                if block[index] == 0x0A and start + index + 1 < end:
                    found += 1
                    if found == lines:
                        return start + index + 1
            position = start
        return end if lines <= 0 else 0


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory) if directory else []
    except OSError:
        return []


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
