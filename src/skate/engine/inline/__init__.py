"""The engine that runs everything in the calling process, at once and in order.

For debuggers, doctests and tests of libraries.  Values, arguments and functions are still pickled,
so what would fail or be a copy on other processes fails or is a copy here.
"""

from skate.engine.base import SessionConfig
from skate.engine.inline.engine import InlineEngine


def start(config: SessionConfig) -> InlineEngine:
    """Start a session in this process."""
    return InlineEngine(config)
