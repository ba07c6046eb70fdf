"""How a process ended, in words for the user."""

from __future__ import annotations

import os
import signal


def describe_status(status: int) -> str:
    """Return e.g. ``killed by SIGKILL`` or ``exited with code 3`` for a status from ``waitpid``."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal_name(os.WTERMSIG(status))}"
    return f"exited with code {os.waitstatus_to_exitcode(status)}"


def signal_name(number: int) -> str:
    """Return e.g. ``SIGSEGV``, or ``signal 40`` for numbers without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
