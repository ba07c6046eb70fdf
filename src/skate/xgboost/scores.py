"""What the driver does with the scores of each round: keep, print and report them, each once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

from skate.xgboost.messages import Checkpoint, History, Scores

#: Called with the number of rounds done, the scores, and the checkpoint made after this round.
Report: TypeAlias = "Callable[[int, Scores, Checkpoint | None], None]"


class ScoreLog:
    """Receives rounds in their order; rounds that a restart repeats are passed on only once.

    Args:
        period: print every so many rounds; 0: never.
        report: called for each new round.
    """

    def __init__(self, period: int, report: Report | None) -> None:
        self.history: History = {}
        #: Rounds of which the scores are known.
        self.rounds = 0
        self._period = period
        self._report = report
        #: Rounds that were printed and reported.
        self._announced = 0
        self._unprinted: str | None = None

    def rewind(self, rounds: int) -> None:
        """Forget everything after the first ``rounds`` rounds: they are trained again."""
        self.rounds = rounds
        for metrics in self.history.values():
            for scores in metrics.values():
                del scores[rounds:]

    def restore(self, checkpoint: Checkpoint) -> None:
        """Begin with what another training has done and announced."""
        self.history = copy.deepcopy(checkpoint.history)
        self.rounds = self._announced = checkpoint.rounds_done

    def add(self, index: int, scores: Scores, checkpoint: Checkpoint | None = None) -> None:
        """Take the scores of round ``index`` (from 0), and a checkpoint of this round."""
        for data, metrics in scores.items():
            for metric, score in metrics.items():
                self.history.setdefault(data, {}).setdefault(metric, []).append(score)
        self.rounds = index + 1
        if self.rounds <= self._announced:
            return
        self._announced = self.rounds
        self._print(index, scores)
        if self._report is not None:
            self._report(self.rounds, scores, checkpoint)

    def finish(self) -> None:
        """Print the last round if its turn had not come."""
        if self._unprinted is not None:
            print(self._unprinted, flush=True)
            self._unprinted = None

    def _print(self, index: int, scores: Scores) -> None:
        if not self._period or not scores:
            return
        line = f"[{index}]" + "".join(
            f"\t{data}-{metric}:{score:.5f}"
            for data, metrics in scores.items()
            for metric, score in metrics.items()
        )
        if index % self._period == 0:
            print(line, flush=True)
            self._unprinted = None
        else:
            self._unprinted = line
