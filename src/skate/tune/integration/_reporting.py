"""Reports that bring a model along."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skate.tune.checkpoint import Checkpoint
from skate.tune.session import report


def report_with_file(
    result: dict[str, Any], filename: str, save: Callable[[str], object] | None
) -> None:
    """Report, with a checkpoint of the one file that ``save`` writes to a path; None for none."""
    if save is None:
        report(result)
        return
    with tempfile.TemporaryDirectory(prefix="model_") as folder:
        save(str(Path(folder, filename)))
        report(result, checkpoint=Checkpoint.from_directory(folder))
