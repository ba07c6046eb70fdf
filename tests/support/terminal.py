"""A program on a terminal of its own, for tests that type and read."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time


class Terminal:
    """A command whose standard streams are a pseudo-terminal."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "dumb", **environment},
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        #: Everything that it has written.
        self.output = ""
        self._seen = 0

    def sees(self, text: str, seconds: float) -> bool:
        """Return whether ``text`` appears within some seconds; see ``expect``."""
        try:
            self.expect(text, seconds)
        except AssertionError:
            return False
        return True

    def expect(self, text: str, seconds: float = 50) -> str:
        """Read until ``text`` appears behind what earlier calls have found; return all new text."""
        deadline = time.monotonic() + seconds
        while text not in self.output[self._seen :]:
            left = deadline - time.monotonic()
            assert left > 0, f"no {text!r} in {self.output[self._seen :]!r}"
            if select.select([self._master], [], [], left)[0]:
                try:
                    data = os.read(self._master, 65536)
                except OSError:  # the other side is closed
                    data = b""
                assert data, f"ended without {text!r}: {self.output[self._seen :]!r}"
                self.output += data.decode()
        end = self.output.index(text, self._seen) + len(text)
        new, self._seen = self.output[self._seen : end], end
        return new

    def type(self, text: str) -> None:
        """Type this; control characters have their usual effect."""
        os.write(self._master, text.encode())

    def wait(self, seconds: float = 50) -> int:
        """Return the exit status."""
        return self.process.wait(seconds)

    def close(self) -> None:
        """Kill it if it runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self._master)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
