"""Which code is Skate's own, and which the user's."""

from __future__ import annotations

import os

#: Paths of our own code begin with this.
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
