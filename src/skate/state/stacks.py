"""``get_stacks``: where the threads of a session's processes are now."""

from __future__ import annotations

import dataclasses

from skate.state.listing import DEFAULT_TIMEOUT
from skate.state.objects import holder_names
from skate.state.rows import Row
from skate.state.source import opened, pages_of

#: Threads of one process that are shown.
MOST_THREADS = 1_000


@dataclasses.dataclass
class ThreadStack(Row):
    """Where one thread is."""

    thread: str
    #: As Python prints tracebacks, the innermost call last.
    stack: str
    #: What it runs, if that is a task or actor call.
    task_name: str
    task_id: str | None


@dataclasses.dataclass
class ProcessStack(Row):
    """Where the threads of one process are."""

    pid: int
    #: "DRIVER" or "WORKER".
    type: str
    #: What it is: "driver", "worker", "actor Counter".
    holder: str
    worker_id: str
    node_id: str
    threads: list[ThreadStack]


def get_stacks(
    pids: list[int] | None = None,
    address: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    raise_on_missing_output: bool = False,
) -> list[ProcessStack]:
    """Return where the threads of processes are; None: of all processes of the session.

    A thread of the process itself answers, no signal is sent.  It cannot while other code of that
    process keeps Python's lock: such a process is missing, and ``py-spy dump`` sees it.

    Raises:
        SessionError: There is no such session.
        ValueError: It has no process with one of these pids.
        StateError, NotSupportedError: As ``list_tasks``.
    """
    from skate.runtime.wire.state import STACKS, Stack

    with opened(address) as source:
        holders = holder_names(source)
        wanted: list[bytes] = []
        if pids is not None:
            known = {
                int(row["pid"]): bytes.fromhex(str(row["worker_id"]))
                for row in [*source.state("drivers"), *source.state("workers")]
            }
            for pid in pids:
                if pid not in known:
                    raise ValueError(f"the session has no process with pid {pid}")
                wanted.append(known[pid])
        pages, _ = pages_of(
            source,
            STACKS,
            Stack,
            limit=MOST_THREADS,
            timeout=timeout,
            strict=raise_on_missing_output,
            processes=wanted,
        )
    return [
        ProcessStack(
            pid=page.pid,
            type=page.kind.upper(),
            holder=holders.get(page.process_id.hex(), page.kind),
            worker_id=page.process_id.hex(),
            node_id=page.node_id.hex(),
            threads=[
                ThreadStack(row.thread, row.text, row.task_name, row.task_id.hex() or None)
                for row in rows
            ],
        )
        for page, rows in sorted(pages, key=lambda found: found[0].pid)
    ]
