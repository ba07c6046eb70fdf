"""Who holds the memory of a full store: a table for the error that the user gets.

Who looks at an object is known to the processes alone, so these are asked; it happens only when
somebody has waited for memory in vain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from skate.runtime.node.looking import Looking
from skate.runtime.node.workers import Workers
from skate.runtime.store.entries import Entry
from skate.runtime.store.server import SegmentTable
from skate.runtime.wire.state import OBJECTS, Inspection, ObjectRow

#: Rows of the table.
MOST_ROWS = 10
#: Objects that each process is asked for, and how long it has for the answer, in seconds.
MOST_OBJECTS = 100_000
ANSWER_SECONDS = 3.0

_rows_decoder = msgspec.msgpack.Decoder(list[ObjectRow])


class Holders:
    """Explains why there is no room."""

    def __init__(
        self,
        node_id: bytes,
        table: SegmentTable,
        looking: Looking,
        workers: Workers,
        work_of: Callable[[bytes], str],
    ) -> None:
        """``work_of(worker_id)``: the name of the actor or of the tasks that a worker runs."""
        self._node_id = node_id
        self._table = table
        self._looking = looking
        self._workers = workers
        self._work_of = work_of

    def explain(self, error: str, done: Callable[[str], None]) -> None:
        """Call ``done`` with the error and the table of the largest objects."""

        def answered(inspection: Inspection) -> None:
            names: dict[bytes, str] = {}
            readers: dict[bytes, list[str]] = {}
            for page in inspection.pages:
                name = self._name(page.process_id, page.kind, page.pid)
                names[page.process_id] = name
                for row in _rows_decoder.decode(page.rows):
                    if row.views:
                        readers.setdefault(row.object_id, []).append(name)
            for process in inspection.missing:
                names[process.process_id] = self._name(
                    process.process_id, process.kind, process.pid
                )
            title = (
                f"The largest objects of node {self._node_id.hex()}, which has"
                f" {mb(self._table.used_bytes)} of {mb(self._table.limit_bytes)} MB in use:"
            )
            in_memory = [entry for entry in self._table.entries() if entry.segment is not None]
            rows = table_of(in_memory, names, readers)
            done(f"{error}. {title}\n{rows}\n" if in_memory else f"{error}.")

        self._looking.ask_for_us(OBJECTS, MOST_OBJECTS, ANSWER_SECONDS, answered)

    def _name(self, process_id: bytes, kind: str, pid: int) -> str:
        work = self._work_of(process_id) if process_id in self._workers.by_id else ""
        return f"{work or kind} (pid {pid})"


def mb(size: int) -> str:
    """Return a number of bytes in MB."""
    return f"{size / 1e6:.1f}"


def table_of(
    entries: Iterable[Entry], names: Mapping[bytes, str], readers: Mapping[bytes, Sequence[str]]
) -> str:
    """Return the largest objects as text: how large, where, whose, who looks, who made it.

    ``names``: of processes; ``readers``: names of those that look at an object.
    """
    in_memory = [entry for entry in entries if entry.segment is not None]
    largest = sorted(in_memory, key=lambda entry: -entry.size)[:MOST_ROWS]
    rows = [("size (MB)", "where", "owner", "looked at by", "created")]
    for entry in largest:
        where = "memory and disk" if entry.file is not None else "memory"
        owner = names.get(entry.owner) or f"process {entry.owner.hex()}"
        looking = ", ".join(readers.get(entry.object_id, ())) or "-"
        rows.append((mb(entry.size), where, owner, looking, entry.created or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [row[0].rjust(widths[0])]
        cells += [cell.ljust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append("  ".join([*cells, row[-1]]))
    if len(in_memory) > len(largest):
        rest = sum(entry.size for entry in in_memory) - sum(entry.size for entry in largest)
        lines.append(f"and {len(in_memory) - len(largest)} more of {mb(rest)} MB together")
    return "\n".join(lines)
