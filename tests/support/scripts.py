"""Scripts run as a user runs them, and a count of everything that they leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

#: Set in the environment of scripts, to find every process that descends from them.
MARK = "SKATE_TEST_MARK"


class Script:
    """A Python script in a process group, a temporary directory and under a mark of its own."""

    def __init__(self, directory: Path, code: str) -> None:
        self.mark = uuid.uuid4().hex
        self.tmp = directory / "t"
        self.tmp.mkdir()
        path = directory / "script.py"
        path.write_text(textwrap.dedent(code))
        environment = {**os.environ, MARK: self.mark, "TMPDIR": str(self.tmp)}
        environment.pop("SKATE_ENGINE", None)
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def wait_for_line(self, text: str) -> str:
        """Read stdout up to the first line with ``text``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return line
        raise AssertionError(f"no {text!r} before the end; stderr: {self.finish()[1]}")

    def finish(self, timeout: float = 30) -> tuple[str, str]:
        """Wait for the end; return the rest of stdout, and stderr."""
        return self.process.communicate(timeout=timeout)

    def descendants(self) -> list[int]:
        """Processes, dead parents or not, that have inherited the mark."""
        found = []
        wanted = f"{MARK}={self.mark}".encode()
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    environment = file.read()
                with open(f"/proc/{entry}/stat") as file:
                    state = file.read().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if wanted in environment.split(b"\0") and state != "Z":
                found.append(int(entry))
        return found

    def assert_nothing_left(self, seconds: float = 5.0) -> None:
        """Fail unless all processes and files are gone within some seconds."""
        deadline = time.monotonic() + seconds
        while True:
            processes = self.descendants()
            # Logs of crashed workers are kept on purpose, beside the session directories.
            # ``os.walk`` does not mind that directories vanish meanwhile.
            files = [
                os.path.join(folder, name)
                for folder, _, names in os.walk(self.tmp)
                for name in names
                if "skate-logs" not in folder
            ]
            if not processes and not files:
                return
            if time.monotonic() > deadline:
                for pid in processes:
                    os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"left behind: processes {processes}, files {files}")
            time.sleep(0.02)

    def close(self) -> None:
        """Kill whatever still runs."""
        for pid in [*self.descendants()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.communicate(timeout=10)
