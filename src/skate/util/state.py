"""``ray.util.state`` by its own name: everything of ``skate.state``."""

from skate.state import *  # noqa: F403  # the same names, wherever they are looked for
from skate.state import __all__ as __all__
