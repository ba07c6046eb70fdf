"""Interruptions that meet an import.

Python takes a module whose import was interrupted out of ``sys.modules``, but not the extension
modules that it had loaded by then.  Some of these refuse to be loaded twice (NumPy's: "cannot load
module more than once per process"), so nothing that needs the module can run in that process any
more.  Calls of actors are interrupted when the import is over; after a task the worker retires.
"""

from __future__ import annotations

from types import CodeType, FrameType

#: Seconds until it is looked again whether an actor still imports.
AGAIN_SECONDS = 0.01


def is_part(code: CodeType) -> bool:
    """Whether a frame of this code is one of Python's that import."""
    return code.co_filename.startswith("<frozen importlib._bootstrap")


def is_inside(frame: FrameType | None) -> bool:
    """Whether something is being imported in this frame or around it."""
    while frame is not None:
        if is_part(frame.f_code):
            return True
        frame = frame.f_back
    return False
