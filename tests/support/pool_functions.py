"""What pools of processes call in tests: in a module that any child process can import."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

#: Set by ``initialize``.
state: list[object] = []


def square(x: int) -> int:
    return x * x


def add(x: int, y: int = 10) -> int:
    return x + y


def fail(x: object) -> None:
    raise ValueError(f"no {x}")


def fail_on_three(x: int) -> int:
    if x == 3:
        raise KeyError(x)
    return x


def initialize(value: object) -> None:
    state[:] = [value]


def get_state(_x: object = None) -> object:
    return state[0] if state else None


def pid(_x: object = None) -> int:
    return os.getpid()


def wait_for(path: str) -> str:
    """Return when the file exists."""
    deadline = time.monotonic() + 50
    while not Path(path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return path


def mark_and_wait_for(mark: str, path: str) -> str:
    """Create the file ``mark``, then wait for ``path``."""
    Path(mark).touch()
    return wait_for(path)


def unpicklable(_x: object = None) -> object:
    return threading.Lock()


def leave() -> None:
    raise SystemExit(3)


def die(_x: object = None) -> None:
    os.kill(os.getpid(), 9)
