"""What the callbacks for neural networks have in common: which metrics, and the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from skate.tune.integration._reporting import report_with_file
from skate.util._scores import Metrics, ScoreChoice


class TrainingReport:
    """Reports what a training has logged, with the model as a checkpoint or without.

    Args:
        metrics: what to report: a name, several, or a dict from the name in the report to that in
            the log.  None: all of it.
    """

    def __init__(self, metrics: Metrics | None) -> None:
        self._choice = ScoreChoice(metrics, "TuneReportCallback", "nothing")
        self._missed: set[str] = set()

    def send(
        self,
        logged: Mapping[str, Any],
        filename: str = "",
        save: Callable[[str], object] | None = None,
    ) -> None:
        """Report what is there; nothing, if none of it is.

        Some metrics come later than others, of the validation for example: what is not there is
        left out, with one warning for each name.

        Args:
            logged: the metrics.
            filename: the file in the checkpoint.
            save: writes the model to a path; None for no checkpoint.
        """
        result = self._chosen(logged)
        if result:
            report_with_file(result, filename, save)

    def _chosen(self, logged: Mapping[str, Any]) -> dict[str, Any]:
        for name in self._choice.missing(logged):
            if name not in self._missed:
                self._missed.add(name)
                warnings.warn(
                    f"{name!r} is not reported, it is not among what the training has logged:"
                    f" {', '.join(logged) or 'nothing'}",
                    RuntimeWarning,
                    stacklevel=4,
                )
        return self._choice.present(logged)


def hooks(on: str | Sequence[str], known: Iterable[str]) -> list[str]:
    """Return the hooks that a callback was asked to act on, without the ``on_`` before them.

    Raises:
        ValueError: the library has no such hook.
    """
    asked = [on] if isinstance(on, str) else list(on)
    names = sorted(name.removeprefix("on_") for name in known)
    for hook in asked:
        if hook not in names:
            raise ValueError(f"there is no hook {hook!r}, only: {', '.join(names)}")
    return asked
