"""``list_logs`` and ``get_log``: what the processes of a session have printed, on all nodes."""

from __future__ import annotations

import codecs
import dataclasses
import fnmatch
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from skate.exceptions import SessionError, SkateError
from skate.state.listing import get_actor, get_task, list_tasks, list_workers
from skate.state.rows import Row, TaskState, WorkerState
from skate.state.source import Source, StateError, opened

if TYPE_CHECKING:
    from skate.runtime.wire.logs import LogPiece

#: Seconds between two looks at a file that is followed.
FOLLOW_SECONDS = 0.1
#: Bytes of one read.
READ_SIZE = 256 * 1024
#: Seconds that the daemon of another node may take for one piece.
READ_SECONDS = 10.0

#: Reads part of a log: where it starts, and how many bytes.
Read = Callable[[int, int], "LogPiece"]


class LogNotFoundError(SkateError):
    """There is no such log, or nothing was printed."""


@dataclasses.dataclass
class LogFile(Row):
    """One file."""

    name: str
    #: The node that has it.
    node_id: str
    #: On that node.
    path: str
    #: Bytes.
    size: int
    #: "node", "worker", or "crashed": of a process that has died, kept after the session.
    kind: str


def list_logs(
    address: str | None = None, glob_filter: str = "*", node_id: str | None = None
) -> list[LogFile]:
    """Return the logs of a session's processes, those that have printed nothing left out.

    Args:
        address: As in ``list_tasks``.
        glob_filter: Of names, e.g. ``"worker-*"``.
        node_id: Only those of this node; the beginning of its id is enough.

    Raises:
        SessionError: There is no such session.
        LogNotFoundError: There is no such node.
    """
    with opened(address) as source:
        node = _node(source, node_id)
        rows = source.state("logs")
    return sorted(
        (
            LogFile(
                str(row["name"]),
                str(row["node_id"]),
                str(row["path"]),
                int(row["size"]),
                str(row["kind"]),
            )
            for row in rows
            if node in ("", row["node_id"]) and fnmatch.fnmatch(str(row["name"]), glob_filter)
        ),
        key=lambda log: (log.node_id, log.name),
    )


def get_log(
    filename: str | None = None,
    *,
    actor_id: str | None = None,
    task_id: str | None = None,
    worker_id: str | None = None,
    pid: int | None = None,
    node_id: str | None = None,
    tail: int | None = None,
    follow: bool = False,
    address: str | None = None,
) -> Iterator[str]:
    """Yield what was printed, in pieces of any length: of a file, or of something's process.

    A worker has one log for all tasks that it runs, standard output and error together.  Logs of
    other nodes come through their daemons.

    Args:
        filename: One of ``list_logs``.
        actor_id: The process that the actor lives in, or has died in.
        task_id: The process that the task runs or ran in.
        worker_id: That process.
        pid: That process.
        node_id: Where several nodes have such a file or pid: that one, or the beginning of its id.
        tail: Lines from the end; None: everything.
        follow: Go on until its process or the session has ended.
        address: As in ``list_tasks``.

    Raises:
        SessionError: There is no such session.
        LogNotFoundError: There is no such log.
        StateError: Its node does not answer.
    """
    log = _find(filename, actor_id, task_id, worker_id, pid, node_id, address)
    return read_log(log, tail, follow, address)


def find_log(what: str, address: str | None = None, node_id: str | None = None) -> LogFile:
    """Return the log that ``what`` names: a file, or the id or pid of something.

    Raises:
        LogNotFoundError: It names nothing, or several.
    """
    logs = list_logs(address, node_id=node_id)
    named = [log for log in logs if what in (log.name, log.path, log.name.removesuffix(".log"))]
    if named:
        return _only(named, what)
    if what.isdigit() and _workers_with(int(what), node_id, address):
        return _find(None, None, None, None, int(what), node_id, address)
    if list_workers(address, [("worker_id", "=", what)]) or any(
        log.name == f"worker-{what}.log" for log in logs
    ):
        return _of_worker(what, address)
    if get_actor(what, address) is not None:
        return _find(None, what, None, None, None, node_id, address)
    if get_task(what, address) is not None:
        return _find(None, None, what, None, None, node_id, address)
    raise LogNotFoundError(
        f"{what!r} is no log file, worker, actor, task or pid of the session that has printed"
        " something; `skate logs` lists the files"
    )


def _find(
    filename: str | None,
    actor_id: str | None,
    task_id: str | None,
    worker_id: str | None,
    pid: int | None,
    node_id: str | None,
    address: str | None,
) -> LogFile:
    given = [x for x in (filename, actor_id, task_id, worker_id, pid) if x is not None]
    if len(given) != 1:
        raise TypeError("name one of filename, actor_id, task_id, worker_id and pid")
    if filename is not None:
        logs = [
            log for log in list_logs(address, node_id=node_id) if filename in (log.name, log.path)
        ]
        if not logs:
            raise LogNotFoundError(f"there is no log {filename!r}, or nothing is in it")
        return _only(logs, filename)
    if pid is not None:
        workers = _workers_with(pid, node_id, address)
        if not workers:
            raise LogNotFoundError(f"the session has no process with pid {pid}")
        if len(workers) > 1:
            raise _ambiguous(str(pid), [worker.node_id for worker in workers])
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
        # Of several attempts the last one.
        if isinstance(task, list):
            task = max(task, key=lambda attempt: attempt.attempt_number)
        if not isinstance(task, TaskState):
            raise LogNotFoundError(f"the session knows no task {task_id}")
        worker_id = task.worker_id
    if worker_id is None:
        raise LogNotFoundError("it has not run in any process yet")
    return _of_worker(worker_id, address)


def _workers_with(pid: int, node_id: str | None, address: str | None) -> list[WorkerState]:
    with opened(address) as source:
        node = _node(source, node_id)
    workers = list_workers(address, [("pid", "=", pid)])
    return [worker for worker in workers if node in ("", worker.node_id)]


def _of_worker(worker_id: str, address: str | None) -> LogFile:
    name = f"worker-{worker_id}.log"
    for log in list_logs(address, name):
        return log
    known = list_workers(address, [("worker_id", "=", worker_id)])
    if known:
        if known[0].worker_type == "DRIVER":
            raise LogNotFoundError("a driver prints to its own terminal, Skate keeps no log of it")
        # It may print something yet.
        return LogFile(name, known[0].node_id, known[0].log_path, 0, "worker")
    raise LogNotFoundError(
        f"there is no log of the worker {worker_id}: it has printed nothing, or its node is gone"
    )


def _only(logs: list[LogFile], what: str) -> LogFile:
    if len(logs) > 1:
        raise _ambiguous(what, [log.node_id for log in logs])
    return logs[0]


def _ambiguous(what: str, node_ids: list[str]) -> LogNotFoundError:
    return LogNotFoundError(
        f"{len(node_ids)} nodes have a log {what!r}: choose one with node_id (skate logs"
        f" --node=...): {', '.join(node_ids)}"
    )


def _node(source: Source, beginning: str | None) -> str:
    """Return the id of the node whose id begins like that; "" for None: any."""
    if not beginning:
        return ""
    known = [str(row["NodeID"]) for row in source.state("nodes") if row["Alive"]]
    found = [node_id for node_id in known if node_id.startswith(beginning.lower())]
    if len(found) != 1:
        problem = "several living nodes have ids" if found else "no living node has an id"
        raise LogNotFoundError(
            f"{problem} beginning with {beginning!r}; there are {', '.join(known)}"
        )
    return found[0]


# --------------------------------------------------------------------------- reading


def read_log(
    log: LogFile, tail: int | None = None, follow: bool = False, address: str | None = None
) -> Iterator[str]:
    """Yield the text of a log file; for the arguments and errors see ``get_log``."""
    from skate.runtime.wire.logs import LOG, LogPiece, LogRange

    node_id = bytes.fromhex(log.node_id)
    with opened(address) as source:

        def read(start: int, length: int) -> LogPiece:
            import msgspec

            wanted = LogRange(node_id, log.name, start, length)
            inspection = source.inspect(LOG, 1, (), READ_SECONDS, (), wanted)
            for page in inspection.pages:
                return msgspec.msgpack.decode(page.rows, type=list[LogPiece])[0]
            reason = inspection.missing[0].reason if inspection.missing else "it is gone"
            raise StateError(f"node {log.node_id} has not sent its log {log.name}: {reason}")

        yield from text_of(read, tail, follow)


def text_of(read: Read, tail: int | None, follow: bool) -> Iterator[str]:
    """Yield the text of what ``read`` reads; for the other arguments see ``get_log``."""
    # A file that has become too large is renamed and begun anew: then this goes on with the new
    # one.
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    piece = read(0, 0)
    inode = piece.inode
    offset = _offset_of_tail(read, max(piece.size, 0), tail) if tail is not None else 0
    while True:
        try:
            piece = read(offset, READ_SIZE)
        except SessionError:
            # The end of the session is that of its logs.
            if follow:
                return
            raise
        if piece.size >= 0 and piece.inode != inode:
            started_anew = bool(inode) and offset > 0
            inode = piece.inode
            if started_anew:
                offset = 0
                continue
        if piece.data:
            offset += len(piece.data)
            yield decode(piece.data)
        elif not follow or not piece.live:
            return
        else:
            time.sleep(FOLLOW_SECONDS)


def _offset_of_tail(read: Read, end: int, lines: int) -> int:
    """Return where the last ``lines`` lines begin."""
    position = end
    found = 0
    while position > 0 and lines > 0:
        start = max(position - READ_SIZE, 0)
        block = read(start, position - start).data
        if not block:
            break
        for index in range(len(block) - 1, -1, -1):
            # The newline at the very end ends the last line, and begins none.
            if block[index] == 0x0A and start + index + 1 < end:
                found += 1
                if found == lines:
                    return start + index + 1
        position = start
    return end if lines <= 0 else 0
