"""Names of fields in results that mean something to Tune."""

from __future__ import annotations

#: A ``Trainable`` whose result has this, and true, is asked for a checkpoint.
SHOULD_CHECKPOINT = "should_checkpoint"
