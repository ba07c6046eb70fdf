"""What Linux says of memory: of the machine, of control groups (v1 and v2), of processes."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping

import msgspec

from skate.runtime.node.memory_guard import Reading

#: Processes in the table for the user.
TABLE_ROWS = 10
#: A limit of this size means that there is none.
NO_LIMIT = 1 << 60
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: In ``/proc/zoneinfo``: pages on the free list of one processor.
_FREE_LIST = re.compile(r"^\s+count:\s+(\d+)$", re.MULTILINE)


class MemoryReader:
    """Reads the memory of the machine and of the control groups that this process is in."""

    def __init__(self, proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> None:
        self._proc = proc
        self._v2 = list(_ancestors(groups, self._group_path("")))
        self._v1 = list(_ancestors(os.path.join(groups, "memory"), self._group_path("memory")))

    def read(self, threshold: float = 0.0) -> list[Reading]:
        """Return one reading for each limit that there is.

        Args:
            threshold: a share of the machine's memory; what is in use below it may be read as too
                much, since what is needed to know better takes longer to read.
        """
        readings = []
        machine = self._machine(threshold)
        if machine is not None:
            readings.append(machine)
        most = machine.total if machine is not None else NO_LIMIT
        for folder in self._v2:
            found = _group(folder, "memory.max", "memory.current", "inactive_file", most)
            if found is not None:
                readings.append(found)
        for folder in self._v1:
            found = _group(
                folder,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
                most,
            )
            if found is not None:
                readings.append(found)
        return readings

    def _machine(self, threshold: float) -> Reading | None:
        amounts = _fields(os.path.join(self._proc, "meminfo"))
        total, available = amounts.get("MemTotal:"), amounts.get("MemAvailable:")
        if not total or available is None:
            return None
        machine = Reading((total - available) * 1024, total * 1024, "this machine")
        if machine.share <= threshold:
            return machine
        return msgspec.structs.replace(machine, used=max(machine.used - self._on_free_lists(), 0))

    def _on_free_lists(self) -> int:
        """Return the bytes that are free, but on lists that processors keep for themselves.

        The kernel counts them as in use.  Since Linux 6.7 that may be an eighth of the memory for
        some time after large processes have ended; when memory is short it takes them back.
        """
        zones = _text(os.path.join(self._proc, "zoneinfo"))
        return sum(map(int, _FREE_LIST.findall(zones))) * _PAGE

    def _group_path(self, controller: str) -> str:
        """Return the path of our control group; "" names the one hierarchy of version 2."""
        for line in _text(os.path.join(self._proc, "self", "cgroup")).splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                return path
        return "/"


def _ancestors(root: str, path: str) -> Iterator[str]:
    """Yield the folders of a control group and those above it that exist here.

    Inside a container the path may be that of the host while only the container's own group is
    mounted: that one is always among them.
    """
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        folder = os.path.join(root, *parts[:length])
        if os.path.isdir(folder):
            yield folder


def _group(folder: str, limit: str, usage: str, cache: str, most: int) -> Reading | None:
    """Return what a control group uses of its limit, files that can be dropped left out."""
    total, used = _text(os.path.join(folder, limit)), _text(os.path.join(folder, usage))
    if not total.strip().isdigit() or not used.strip().isdigit() or int(total) > most:
        return None
    dropped = _fields(os.path.join(folder, "memory.stat")).get(cache, 0)
    return Reading(max(int(used) - dropped, 0), int(total), f"the control group {folder}")


def _fields(path: str) -> dict[str, int]:
    """Read lines of a name and a number."""
    fields: dict[str, int] = {}
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            fields[words[0]] = int(words[1])
    return fields


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


# --------------------------------------------------------------------------- processes


class ProcessMemory(msgspec.Struct, frozen=True):
    """The memory of one process, in bytes."""

    pid: int
    #: Resident pages, shared ones too.
    rss: int
    #: Resident pages, of shared ones its part; -1 where we may not look.
    pss: int
    name: str


def largest_processes(names: Mapping[int, str], count: int = TABLE_ROWS) -> list[ProcessMemory]:
    """Return the processes of this machine with the most resident memory, the largest first.

    Args:
        names: What the processes of the session do, by pid.
        count: How many.
    """
    sizes: list[tuple[int, int]] = []
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            words = _text(f"/proc/{entry}/statm").split()
            if len(words) > 1 and words[1] != "0":
                sizes.append((int(words[1]) * _PAGE, int(entry)))
    sizes.sort(reverse=True)
    return [
        ProcessMemory(pid, rss, _pss(pid), names.get(pid) or _command(pid))
        for rss, pid in sizes[:count]
    ]


def private_bytes(pid: int) -> int:
    """Return what the end of a process would give back; 0 where we may not look."""
    fields = _fields(f"/proc/{pid}/smaps_rollup")
    return (fields.get("Private_Clean:", 0) + fields.get("Private_Dirty:", 0)) * 1024


def _pss(pid: int) -> int:
    kib = _fields(f"/proc/{pid}/smaps_rollup").get("Pss:")
    return -1 if kib is None else kib * 1024


def _command(pid: int) -> str:
    words = _text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    return words[:60] or _text(f"/proc/{pid}/comm").strip()


def table(processes: list[ProcessMemory]) -> str:
    """Return the processes as lines of text."""
    lines = [f"{'pid':>9} {'RSS MiB':>9} {'PSS MiB':>9}  what"]
    for process in processes:
        pss = "-" if process.pss < 0 else f"{process.pss / (1 << 20):.0f}"
        rss = f"{process.rss / (1 << 20):.0f}"
        lines.append(f"{process.pid:>9} {rss:>9} {pss:>9}  {process.name}")
    return "\n".join(lines)
