"""The bandit of PB2: a Gaussian process whose past fades, and its upper confidence bound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

#: At most so many of the newest observations are used: older ones have faded, and the work grows
#: with the cube of their number.
WINDOW = 200
#: How many settings of the process, and how many configurations, are tried at random; then so many
#: times the best one is moved a little.
DRAWS = 48
CANDIDATES = 400
REFINEMENTS = 4
#: Added to the diagonal, so that equal observations do no harm.
JITTER = 1e-8


@dataclass(frozen=True, slots=True)
class Kernel:
    """Squared exponential over all but the first column, times ``(1 - fading) ** (|dt| / 2)``.

    The first column is the time.  Source: Bogunovic et al., "Time-varying Gaussian process bandit
    optimization", AISTATS 2016.
    """

    length: float
    fading: float
    noise: float

    def __call__(self, a: Array, b: Array) -> Array:
        """Return the covariances of rows of ``a`` with rows of ``b``."""
        distance: Array = ((a[:, None, 1:] - b[None, :, 1:]) ** 2).sum(axis=2)
        time: Array = np.abs(a[:, None, 0] - b[None, :, 0])
        covariance: Array = np.exp(-distance / (2 * self.length**2))
        return covariance * (1 - self.fading) ** (time / 2)


class Process:
    """A Gaussian process with mean 0 and variance 1, after observations ``(x, y)``."""

    def __init__(self, kernel: Kernel, x: Array, y: Array) -> None:
        self.kernel = kernel
        self._x = x
        self._y = y
        covariance = kernel(x, x) + (kernel.noise + JITTER) * np.eye(len(x))
        self._factor: Array = np.linalg.cholesky(covariance)
        half: Array = np.linalg.solve(self._factor, y)
        self._weights: Array = np.linalg.solve(self._factor.T, half)
        log_determinant = 2 * float(np.log(np.diag(self._factor)).sum())
        #: Logarithm of how likely the observations are, up to a constant.
        self.likelihood = -0.5 * float(half @ half) - 0.5 * log_determinant

    def mean(self, x: Array) -> Array:
        """Return what is expected at each row of ``x``."""
        expected: Array = self.kernel(x, self._x) @ self._weights
        return expected

    def deviation(self, x: Array) -> Array:
        """Return the standard deviation at each row of ``x``."""
        half: Array = np.linalg.solve(self._factor, self.kernel(self._x, x))
        variance: Array = 1 - (half**2).sum(axis=0)
        return np.sqrt(np.clip(variance, 1e-12, None))


def fit(x: Array, y: Array, rng: np.random.Generator) -> Process:
    """Return the process whose settings make the observations most likely, of those tried."""
    kernels = [Kernel(0.3, 0.1, 0.1)]
    for _ in range(DRAWS):
        length = math.exp(rng.uniform(math.log(0.05), math.log(2.0)))
        noise = math.exp(rng.uniform(math.log(1e-3), math.log(1.0)))
        kernels.append(Kernel(length, rng.uniform(0.0, 0.9), noise))
    return max((Process(kernel, x, y) for kernel in kernels), key=lambda p: p.likelihood)


def propose(
    observed: Array,
    rates: Array,
    running: Array,
    now: Array,
    bounds: Array,
    rng: np.random.Generator,
) -> Array:
    """Return the configuration with the largest upper confidence bound.

    Args:
        observed: one row for each stretch of training: the time and the score where it began, then
            the configuration; (n, 2 + d), n > 0.
        rates: how much the score grew per unit of time, (n,).
        running: configurations that others try now; what they will show is not to be found out
            twice.  (m, d).
        now: the time and the score where the configuration will be used, (2,).
        bounds: the least and the largest value of each parameter, (2, d).
        rng: draws.

    Returns:
        One value for each parameter, within its bounds; (d,).
    """
    observed, rates = observed[-WINDOW:], rates[-WINDOW:]
    context = observed[:, :2]
    low = np.concatenate([np.minimum(context.min(axis=0), now), bounds[0]])
    high = np.concatenate([np.maximum(context.max(axis=0), now), bounds[1]])
    width = np.where(high > low, high - low, 1.0)
    x = (observed - low) / width
    spread = float(rates.std())
    y = (rates - rates.mean()) / (spread if spread > 0 else 1.0)
    here = (now - low[:2]) / width[:2]

    process = fit(x, y, rng)
    known = np.vstack([x, _beside(here, (running - low[2:]) / width[2:])])
    # What is tried now narrows the uncertainty, whatever comes of it.
    informed = Process(process.kernel, known, np.zeros(len(known)))
    # The confidence of Parker-Holder et al.: it grows slowly with what is known.
    confidence = math.sqrt(0.2 + max(0.0, math.log(0.4 * len(x))))

    def bound(candidates: Array) -> Array:
        points = _beside(here, candidates)
        return process.mean(points) + confidence * informed.deviation(points)

    candidates = rng.uniform(size=(CANDIDATES, bounds.shape[1]))
    best = candidates[int(np.argmax(bound(candidates)))]
    for step in range(REFINEMENTS):
        near = best + rng.normal(scale=0.1 / 2**step, size=(CANDIDATES // 4, len(best)))
        candidates = np.vstack([best[None], np.clip(near, 0.0, 1.0)])
        best = candidates[int(np.argmax(bound(candidates)))]
    result: Array = bounds[0] + best * (bounds[1] - bounds[0])
    return result


def _beside(context: Array, configurations: Array) -> Array:
    return np.hstack([np.tile(context, (len(configurations), 1)), configurations])
