"""Where the state comes from: the session of this process, or a running one that is attached to."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from skate.api.session import running as session_of_this_process
from skate.exceptions import SkateError

if TYPE_CHECKING:
    from skate.runtime.wire.logs import LogRange
    from skate.runtime.wire.state import Filter, Inspection, Page

R = TypeVar("R")


class StateError(SkateError):
    """The state of the session could not be found out, or not all of it."""


class MissingStateWarning(UserWarning):
    """Processes have not answered: their rows are missing."""


class Source(Protocol):
    """A session to look into."""

    def state(self, what: str) -> list[dict[str, Any]]:
        """Return rows that the daemon has itself."""

    def inspect(
        self,
        what: str,
        limit: int,
        filters: Sequence[Filter],
        timeout: float,
        processes: Sequence[bytes],
        log: LogRange | None = None,
    ) -> Inspection:
        """Ask the processes, or a daemon for part of a log."""


@contextlib.contextmanager
def opened(address: str | None) -> Iterator[Source]:
    """Open the session that ``address`` names, None: that of this process, else the newest one.

    Raises:
        SessionError: There is no such session.
    """
    engine = session_of_this_process()
    if engine is not None and address in (None, "", "auto", "local", engine.session_dir):
        yield engine
        return
    from skate.runtime.tool.attach import attach

    with attach(address) as attached:
        yield attached


def pages_of(
    source: Source,
    what: str,
    row: type[R],
    *,
    limit: int,
    timeout: float,
    strict: bool,
    filters: Sequence[Filter] = (),
    processes: Sequence[bytes] = (),
) -> tuple[list[tuple[Page, list[R]]], list[Page]]:
    """Ask processes; return the decoded pages of drivers and workers, and those of daemons.

    Raises:
        StateError: ``strict``, and a process has not answered.
    """
    import msgspec

    inspection = source.inspect(what, limit, filters, timeout, processes)
    if inspection.missing:
        text = "; ".join(
            f"{missing.kind} {missing.process_id.hex()}"
            + (f" (pid {missing.pid})" if missing.pid else "")
            + f": {missing.reason}"
            for missing in inspection.missing
        )
        text = f"the {what} of {len(inspection.missing)} process(es) are missing: {text}"
        if strict:
            raise StateError(text)
        warnings.warn(text, MissingStateWarning, stacklevel=4)
    decoder = msgspec.msgpack.Decoder(list[row])  # type: ignore[valid-type]  # a class, at run time
    pages: list[tuple[Page, list[R]]] = []
    own: list[Page] = []
    for page in inspection.pages:
        if page.kind == "node":
            own.append(page)
        else:
            pages.append((page, decoder.decode(page.rows)))
    return pages, own


class Jobs:
    """Which job what belongs to: known if there is one only, or if a driver has made it itself."""

    def __init__(self, source: Source) -> None:
        jobs = source.state("jobs")
        self._by_driver = {str(job["driver_id"]): str(job["job_id"]) for job in jobs}
        self._only = str(jobs[0]["job_id"]) if len(jobs) == 1 else ""

    def of(self, owner_id: str) -> str:
        """Return the job of what this process has made; "" if that is not known."""
        return self._only or self._by_driver.get(owner_id, "")
