"""Importing this makes a process of Skate forget what it does; see ``bench.overhead``.

Drivers import it before ``init``, workers by ``preload``.
"""

from __future__ import annotations

from typing import Any

from skate.runtime.worker import objects
from skate.runtime.worker.events import Events


def _nothing(*_arguments: Any) -> None:
    """Do not write it down."""


for _owner, _name, _instead in (
    *((Events, name, _nothing) for name in ("add", "ran", "waited", "lost", "flush")),
    (objects, "call_site", str),
):
    setattr(_owner, _name, _instead)
