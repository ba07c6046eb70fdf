"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failure: pytest's timeout ends what hangs.
settings.register_profile("skate", deadline=None, print_blob=True)
settings.load_profile("skate")
