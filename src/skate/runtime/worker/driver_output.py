"""Output of workers as the driver shows it: prefixed, and said once when many say the same."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from skate.runtime.wire.messages import LogLines

#: Seconds during which equal lines of other processes are counted instead of printed.
WINDOW_SECONDS = 5.0
#: Lines remembered at most.
MEMORY = 1000


class Deduplicator:
    """Decides which lines to print.  No clock: callers pass ``now``, in seconds.

    A line is printed when it first comes.  The same text from *another* process within the window
    is counted and reported once when the window ends; one process may repeat itself.
    """

    def __init__(self, window: float = WINDOW_SECONDS) -> None:
        self._window = window
        # Text -> time first printed, pid that printed it, repetitions by others, last prefix.
        self._seen: OrderedDict[str, tuple[float, int, int, str]] = OrderedDict()

    def feed(self, prefix: str, pid: int, line: str, now: float) -> list[str]:
        """Return the lines to print now that ``line`` has come."""
        printed = self.expire(now)
        known = self._seen.get(line)
        if known is not None and known[1] != pid:
            first, first_pid, count, _ = known
            self._seen[line] = (first, first_pid, count + 1, prefix)
            return printed
        if known is None and line.strip():
            self._seen[line] = (now, pid, 0, prefix)
            if len(self._seen) > MEMORY:
                printed += self._report(*self._seen.popitem(last=False))
        printed.append(f"{prefix} {line}")
        return printed

    def expire(self, now: float) -> list[str]:
        """Return what is to be said of lines whose window has ended."""
        printed: list[str] = []
        while self._seen:
            line, entry = next(iter(self._seen.items()))
            if now - entry[0] < self._window:
                break
            del self._seen[line]
            printed += self._report(line, entry)
        return printed

    def finish(self) -> list[str]:
        """Return what is still to be said at the end."""
        return self.expire(float("inf"))

    @property
    def holds_back(self) -> bool:
        """Whether there are repetitions still to be told of."""
        return any(count for _, _, count, _ in self._seen.values())

    @staticmethod
    def _report(line: str, entry: tuple[float, int, int, str]) -> list[str]:
        _, _, count, prefix = entry
        if not count:
            return []
        times = "once more" if count == 1 else f"{count} times more"
        return [f"{prefix} {line} [repeated {times} by other processes]"]


class DriverOutput:
    """Prints workers' lines to the driver's stdout and stderr."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], None]) -> None:
        """Prepare; ``call_later(seconds, function)`` is how repetitions get reported in time."""
        self._call_later = call_later
        self._waiting = False
        self._lock = threading.Lock()
        self._streams = {1: Deduplicator(), 2: Deduplicator()}

    def on_lines(self, message: LogLines) -> None:
        """Print what one worker has written to one stream."""
        prefix = f"({message.name or 'worker'} pid={message.pid})"
        now = time.monotonic()
        with self._lock:
            deduplicator = self._streams[2 if message.stream == 2 else 1]
            lines = [
                shown
                for line in message.lines
                for shown in deduplicator.feed(prefix, message.pid, line, now)
            ]
            _print(message.stream, lines)
            if deduplicator.holds_back and not self._waiting:
                self._waiting = True
                self._call_later(WINDOW_SECONDS, self._report)

    def _report(self) -> None:
        now = time.monotonic()
        with self._lock:
            self._waiting = False
            for stream, deduplicator in self._streams.items():
                _print(stream, deduplicator.expire(now))
                if deduplicator.holds_back and not self._waiting:
                    self._waiting = True
                    self._call_later(WINDOW_SECONDS, self._report)

    def close(self) -> None:
        """Print what was held back."""
        with self._lock:
            for stream, deduplicator in self._streams.items():
                _print(stream, deduplicator.finish())


def _print(stream: int, lines: list[str]) -> None:
    if not lines:
        return
    # Looked up each time: pytest, notebooks and the user exchange them.
    target = sys.stderr if stream == 2 else sys.stdout
    try:
        target.write("\n".join(lines) + "\n")
        target.flush()
    except (OSError, ValueError, AttributeError):  # closed, or None under pythonw
        return
