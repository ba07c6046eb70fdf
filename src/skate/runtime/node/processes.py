"""What the kernel offers to keep processes together: death signals, sub-reapers, groups, children.

Linux has all of it.  Elsewhere each function does what is possible, and says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

#: Begins the paths of what a process has open that uses a GPU.
GPU_DEVICES = "/dev/nvidia"
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, argument: int | bytes) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    value = ctypes.c_char_p(argument) if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    zero = ctypes.c_ulong(0)
    return bool(ctypes.CDLL(None).prctl(option, value, zero, zero, zero) == 0)


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; exit if it has ended already."""
    if _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) and os.getppid() != parent_pid:
        os._exit(1)


def outlive_parent() -> None:
    """Undo ``die_with_parent``."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents end, so that they can be found and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Set the name that ``ps`` and ``top`` show, at most 15 characters."""
    _prctl(_PR_SET_NAME, name.encode()[:15])


def kill_group(pid: int, number: int) -> None:
    """Signal a process and its group; harmless if they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def has_open(pid: int, prefix: str) -> bool:
    """Return whether a process has a file open whose path begins so; False where one cannot see."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.readlink(f"{folder}/{name}").startswith(prefix):
                return True
    return False


def end_children(seconds: float) -> None:
    """Kill and reap our children until none is left, so many seconds at most.

    Once is not enough: a process closes its sockets, by which others learn of its end, before its
    children come to whoever adopts them.  They have come when it can be reaped.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        if time.monotonic() > deadline:
            return
        for pid in children():
            kill_group(pid, signal.SIGKILL)
        time.sleep(0.0005)


def children() -> list[int]:
    """Return the pids of our children, zombies included; none where there is no ``/proc``."""
    pids: list[int] = []
    own = os.getpid()
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                # pid (name) state parent ...; the name may hold spaces and parentheses
                if int(file.read().rpartition(b")")[2].split()[1]) == own:
                    pids.append(int(entry))
    return pids


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal or a debugger; False where that cannot be seen."""
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    return False


def usage(pid: int) -> tuple[int, float] | None:
    """Return resident memory in bytes and CPU seconds of a process, None where they are unknown."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # Counted from the state, which is the third field of the whole line.
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), cpu
