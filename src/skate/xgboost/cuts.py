"""The bins of a training, to be carried to an actor that joins later.

A ``QuantileDMatrix`` finds its bins in a collective operation, and XGBoost has no way to make one
with given bins.  It has one to share those of another matrix (``ref``), so a newcomer makes a
matrix of few rows whose bins are those: every boundary is a value in it, and values as few as bins
are boundaries, each of them.  Whether that has worked is checked, as it depends on how XGBoost
chooses boundaries; where it has not, all actors make their matrices anew, together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skate.xgboost.library import xgboost

if TYPE_CHECKING:
    import numpy.typing as npt
    from xgboost import QuantileDMatrix

#: What XGBoost adds to the largest value, and takes from the smallest one.
_MARGIN = 1e-5


@dataclass(frozen=True, slots=True)
class Cuts:
    """The bins of all features.

    Attributes:
        starts: where each feature begins in ``values``, and the end.
        values: of each feature a number below its smallest value, then the upper bounds of bins.
        feature_types: as in ``xgboost.DMatrix``.
        max_bin: how many bins a feature was allowed to have; None: as many as usual.
    """

    starts: npt.NDArray[Any]
    values: npt.NDArray[Any]
    feature_types: list[str] | None
    max_bin: int | None

    @classmethod
    def of(cls, matrix: QuantileDMatrix) -> Cuts:
        """Return those of a ``QuantileDMatrix``."""
        starts, values = matrix.get_quantile_cut()
        types = matrix.feature_types
        return cls(starts, values, None if types is None else list(types), matrix.max_bin)

    def same_as(self, other: Cuts) -> bool:
        """Say whether the bins are the same, bit by bit."""
        import numpy as np

        return np.array_equal(self.starts, other.starts) and np.array_equal(
            self.values, other.values
        )

    def reference(self, threads: int) -> QuantileDMatrix:
        """Return a small matrix with these bins, most likely."""
        import numpy as np

        columns = [
            self._column(index, self.values[start:stop])
            for index, (start, stop) in enumerate(
                zip(self.starts[:-1], self.starts[1:], strict=True)
            )
        ]
        table = np.full((max(map(len, columns), default=1) or 1, len(columns)), np.nan, np.float32)
        for index, column in enumerate(columns):
            table[: len(column), index] = column
        options: dict[str, Any] = {"nthread": threads}
        if self.max_bin is not None:
            options["max_bin"] = self.max_bin
        if self.feature_types is not None:
            options.update(feature_types=self.feature_types, enable_categorical=True)
        matrix: QuantileDMatrix = xgboost().QuantileDMatrix(table, **options)
        return matrix

    def _column(self, index: int, values: npt.NDArray[Any]) -> Sequence[Any]:
        """Return values of one feature that make its bins."""
        if len(values) < 2 or values[0] > 0:
            return ()  # only missing values
        if self.feature_types is not None and self.feature_types[index] == "c":
            return list(values[1:])
        below, inner, last = values[0], list(values[1:-1]), values[-1]
        smallest = _smallest(below)
        if not inner:
            return [_largest(last) if smallest is None else smallest]
        # A smallest value that is not negative leaves no trace.
        column = [0.0 if smallest is None else smallest, *inner]
        if _upper(inner[-1]) != last:
            column.append(_largest(last, inner[-1]))
        return column


def _upper(value: Any) -> float:
    """Return the upper bound of the last bin, given the largest value."""
    import numpy as np

    return float(np.float32(float(value) + (abs(float(value)) + _MARGIN)))


def _smallest(below: Any) -> Any:
    """Return the smallest value if it is negative, otherwise None."""
    import numpy as np

    guess = np.float32((float(below) + _MARGIN) / 2)
    if guess >= 0:
        return None
    for value in _around(guess):
        if np.float32(float(value) - (abs(float(value)) + _MARGIN)) == below:
            return value
    return guess


def _largest(last: Any, above: Any = None) -> Any:
    """Return the largest value; ``above`` is another one, which is smaller."""
    import numpy as np

    guess = np.float32((float(last) - _MARGIN) / 2)
    candidates = _around(guess)
    if above is not None and above < 0:
        # Of negative values only rounding tells anything, which depends on the power of two.
        candidates.append(np.nextafter(above, np.float32(np.inf)))
        powers = above * np.exp2(-np.arange(60, dtype=np.float32))
        candidates += list(powers[powers > above])
    for value in candidates:
        if _upper(value) == last and (above is None or value > above):
            return value
    return guess


def _around(guess: Any) -> list[Any]:
    import numpy as np

    found = [guess]
    down = up = guess
    for _ in range(4):
        down, up = np.nextafter(down, np.float32(-np.inf)), np.nextafter(up, np.float32(np.inf))
        found += [down, up]
    return found
