"""What may stand in a search space in place of a value: domains, and the functions that make them.

A domain knows what values it stands for and draws one from a ``random.Random``.  Searchers that
model the space themselves read its fields instead.
"""

from __future__ import annotations

import inspect
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from statistics import NormalDist
from typing import Any, TypeGuard

_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL,)
_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    *_ANY_NUMBER,
)

#: Draws of the domains' own ``sample()`` when the caller brings no generator.
_default_rng = random.Random()


class Domain(ABC):
    """A set of values with a distribution over it."""

    @abstractmethod
    def sample(self, rng: random.Random | None = None) -> Any:
        """Draw one value."""

    @abstractmethod
    def is_valid(self, value: object) -> bool:
        """Say whether ``value`` is one of the set; steps (``q``) are not looked at."""


@dataclass(frozen=True, slots=True)
class Float(Domain):
    """Real numbers from ``lower`` to ``upper``, (log-)uniform, perhaps in steps of ``q``."""

    lower: float
    upper: float
    log: bool = False
    q: float | None = None

    def __post_init__(self) -> None:
        what = _name("uniform", self.log, self.q)
        _check_bounds(what, self.lower, self.upper, self.log)
        if self.q is not None:
            _check_step(what, self.lower, self.upper, self.q)

    def sample(self, rng: random.Random | None = None) -> float:
        """Draw one value."""
        rng = rng or _default_rng
        if self.log:
            drawn = math.exp(rng.uniform(math.log(self.lower), math.log(self.upper)))
            return self.round(drawn)
        if self.q is not None:
            # Every step is as likely as any other; rounding a uniform draw would halve both ends.
            steps = round((self.upper - self.lower) / self.q)
            return self.round(self.lower + rng.randint(0, steps) * self.q)
        return self.round(rng.uniform(self.lower, self.upper))

    def round(self, value: float) -> float:
        """Return the allowed value next to ``value``."""
        if self.q is not None:
            value = round_to_step(value, self.q)
        return min(max(value, self.lower), self.upper)

    def is_valid(self, value: object) -> bool:
        """Say whether ``value`` lies within the bounds."""
        return _is_real(value) and self.lower <= value <= self.upper


@dataclass(frozen=True, slots=True)
class Integer(Domain):
    """Integers from ``lower`` to ``last``, both included, perhaps multiples of ``q`` only.

    Bounds that are no multiples of ``q`` are moved inward to the next ones.
    """

    lower: int
    last: int
    log: bool = False
    q: int = 1

    def __post_init__(self) -> None:
        what = _name("randint", self.log, self.q if self.q != 1 else None)
        lower, last = _check_integer(what, self.lower), _check_integer(what, self.last)
        q = _check_integer(what, self.q)
        if q < 1:
            raise ValueError(f"{what} wants a step above 0, got {self.q!r}")
        if last < lower:
            raise ValueError(
                f"{what} has no value: the lower bound {self.lower} is not below the upper one"
            )
        _check_bounds(what, lower, last, self.log)
        inner = -(-lower // q) * q, last // q * q
        if inner[0] > inner[1]:
            raise ValueError(f"{what} has no value: no multiple of {q} is in {lower}..{last}")
        for name, bound in (("lower", inner[0]), ("last", inner[1]), ("q", q)):
            object.__setattr__(self, name, bound)  # the dataclass is frozen for everybody else

    def sample(self, rng: random.Random | None = None) -> int:
        """Draw one value."""
        rng = rng or _default_rng
        if self.log:
            return self.round(math.exp(rng.uniform(math.log(self.lower), math.log(self.last + 1))))
        return self.lower + self.q * rng.randint(0, (self.last - self.lower) // self.q)

    def round(self, value: float) -> int:
        """Return the allowed value at or, in steps of more than one, next to ``value``."""
        number = math.floor(value) if self.q == 1 else round(value / self.q) * self.q
        return int(min(max(number, self.lower), self.last))

    def is_valid(self, value: object) -> bool:
        """Say whether ``value`` is an integer within the bounds."""
        return _is_real(value) and value == int(value) and self.lower <= value <= self.last


@dataclass(frozen=True, slots=True)
class Normal(Domain):
    """Normally distributed numbers, perhaps rounded to multiples of ``q``."""

    mean: float = 0.0
    sd: float = 1.0
    q: float | None = None

    def __post_init__(self) -> None:
        what = _name("randn", False, self.q)
        for number in (self.mean, self.sd):
            _check_number(what, number)
        if self.sd <= 0:
            raise ValueError(f"{what} wants a standard deviation above 0, got {self.sd!r}")
        if self.q is not None:
            _check_number(what, self.q)
            if self.q <= 0:
                raise ValueError(f"{what} wants a step above 0, got {self.q!r}")

    def sample(self, rng: random.Random | None = None) -> float:
        """Draw one value."""
        return self.round((rng or _default_rng).gauss(self.mean, self.sd))

    def quantile(self, probability: float) -> float:
        """Return the value below which ``probability`` (between 0 and 1) of all draws lie."""
        return self.round(NormalDist(self.mean, self.sd).inv_cdf(probability))

    def round(self, value: float) -> float:
        """Return the multiple of ``q`` next to ``value``."""
        return value if self.q is None else round_to_step(value, self.q)

    def is_valid(self, value: object) -> bool:
        """Say whether ``value`` is a number."""
        return _is_real(value)


@dataclass(frozen=True, slots=True)
class Categorical(Domain):
    """One of several values of any type; a dict among them may hold domains of its own."""

    categories: tuple[Any, ...]

    def sample(self, rng: random.Random | None = None) -> Any:
        """Draw one value."""
        return (rng or _default_rng).choice(self.categories)

    def index(self, value: object) -> int:
        """Return the position of ``value``.

        Raises:
            ValueError: it is not among the categories.
        """
        for position, category in enumerate(self.categories):
            if category is value:
                return position
        for position, category in enumerate(self.categories):
            # Ask for the type as well: 1 == True, and arrays answer == with arrays.
            if type(category) is type(value) and bool(category == value):
                return position
        raise ValueError(f"{value!r} is none of {list(self.categories)!r}")

    def is_valid(self, value: object) -> bool:
        """Say whether ``value`` is among the categories."""
        try:
            self.index(value)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Function(Domain):
    """A value that a function of the user draws, perhaps from the rest of the configuration."""

    func: Callable[..., Any]
    wants_config: bool

    def sample(self, rng: random.Random | None = None) -> Any:
        """Draw one value; only for functions without an argument."""
        if self.wants_config:
            raise ValueError("this sample_from() needs the rest of the configuration")
        return self.func()

    def is_valid(self, value: object) -> bool:
        """Anything may be what the function could have returned."""
        return True


# --------------------------------------------------------------------------- constructors


def uniform(lower: float, upper: float) -> Float:
    """Real numbers between ``lower`` and ``upper``."""
    return Float(lower, upper)


def quniform(lower: float, upper: float, q: float) -> Float:
    """Multiples of ``q`` between ``lower`` and ``upper``, both included."""
    return Float(lower, upper, q=q)


def loguniform(lower: float, upper: float, base: float = 10) -> Float:
    """Real numbers whose logarithm is uniform; ``base`` makes no difference and is Ray's."""
    _check_number("loguniform()", base)
    return Float(lower, upper, log=True)


def qloguniform(lower: float, upper: float, q: float, base: float = 10) -> Float:
    """``loguniform`` rounded to multiples of ``q``."""
    _check_number("qloguniform()", base)
    return Float(lower, upper, log=True, q=q)


def randint(lower: int, upper: int) -> Integer:
    """Integers from ``lower`` (included) to ``upper`` (excluded)."""
    return Integer(lower, _minus_one("randint()", upper))


def qrandint(lower: int, upper: int, q: int = 1) -> Integer:
    """Multiples of ``q`` from ``lower`` to ``upper``, both included if they are multiples."""
    return Integer(lower, upper, q=q)


def lograndint(lower: int, upper: int, base: float = 10) -> Integer:
    """Integers from ``lower`` (included) to ``upper`` (excluded), log-uniform."""
    _check_number("lograndint()", base)
    return Integer(lower, _minus_one("lograndint()", upper), log=True)


def qlograndint(lower: int, upper: int, q: int, base: float = 10) -> Integer:
    """Multiples of ``q`` from ``lower`` to ``upper``, as in ``qrandint``, log-uniform."""
    _check_number("qlograndint()", base)
    return Integer(lower, upper, log=True, q=q)


def randn(mean: float = 0.0, sd: float = 1.0) -> Normal:
    """Normally distributed numbers."""
    return Normal(mean, sd)


def qrandn(mean: float, sd: float, q: float) -> Normal:
    """``randn`` rounded to multiples of ``q``."""
    return Normal(mean, sd, q)


def choice(categories: Iterable[Any]) -> Categorical:
    """One of ``categories``, each as likely as any other."""
    return Categorical(_values("choice", categories))


def grid_search(values: Iterable[Any]) -> dict[str, list[Any]]:
    """Try each of ``values``; several grids in one space make their product."""
    return {"grid_search": list(_values("grid_search", values))}


def sample_from(func: Callable[..., Any]) -> Function:
    """Call ``func()`` or ``func(config)`` for each trial.

    ``config`` gives the values drawn for the rest of the space: ``config["lr"]``, ``config.lr`` or,
    as older scripts write it, ``spec.config.lr``.  It is passed to functions with an argument that
    has no default, or whose first one is called ``config`` or ``spec``.  What a function returns
    may hold domains: they are drawn, which makes spaces whose bounds depend on other parameters.
    """
    if not callable(func):
        raise TypeError(f"sample_from() wants a function, got {func!r}")
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):  # some built-ins have no signature; they draw by themselves
        return Function(func, wants_config=False)
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    needed = [p for p in positional if p.default is p.empty and p.kind != p.VAR_POSITIONAL]
    if len(needed) > 1:
        raise TypeError(f"sample_from() wants a function of at most one argument, got {func!r}")
    first = positional[0] if positional else None
    named = first is not None and (first.name in ("config", "spec") or first.kind in _ANY_NUMBER)
    return Function(func, wants_config=bool(needed) or named)


# --------------------------------------------------------------------------- checks


def round_to_step(value: float, q: float) -> float:
    """Return the multiple of ``q`` next to ``value``, without binary noise (0.3, not 0.30...04)."""
    return float(Decimal(round(value / q)) * Decimal(repr(float(q))))


def _name(kind: str, log: bool, q: float | None) -> str:
    if log:
        kind = "loguniform" if kind == "uniform" else "lograndint"
    return f"{'q' if q is not None else ''}{kind}()"


def _check_number(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{what} wants numbers, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{what} wants finite numbers, got {value!r}")


def _check_bounds(what: str, lower: object, upper: object, log: bool) -> None:
    for bound in (lower, upper):
        _check_number(what, bound)
    assert isinstance(lower, Real)
    assert isinstance(upper, Real)
    if upper < lower:
        raise ValueError(f"{what} has its bounds exchanged: {lower!r} is above {upper!r}")
    if log and lower <= 0:
        raise ValueError(
            f"{what} wants a lower bound above 0, got {lower!r}: the logarithm of 0 does not exist"
        )


def _check_step(what: str, lower: float, upper: float, q: object) -> None:
    _check_number(what, q)
    assert isinstance(q, Real)
    if q <= 0:
        raise ValueError(f"{what} wants a step above 0, got {q!r}")
    for bound in (lower, upper):
        ratio = float(bound) / float(q)
        if not math.isclose(ratio, round(ratio), rel_tol=1e-9, abs_tol=1e-9):
            raise ValueError(
                f"{what} wants bounds that are multiples of the step {q!r}, got {bound!r}"
            )


def _check_integer(what: str, value: object) -> int:
    # 1e4 is what people write for ten thousand.
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise TypeError(f"{what} wants integers, got {value!r}")
    return int(value)  # type: ignore[call-overload,no-any-return]  # one of the two above


def _is_real(value: object) -> TypeGuard[float]:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def is_collection(values: object) -> TypeGuard[Collection[Any]]:
    """Say whether ``values`` has items in an order: a list, a tuple, a range, an array."""
    unordered = (str, bytes, Mapping, set, frozenset)
    return isinstance(values, Collection) and not isinstance(values, unordered)


def _minus_one(what: str, upper: object) -> int:
    return _check_integer(what, upper) - 1


def _values(what: str, values: object) -> tuple[Any, ...]:
    if isinstance(values, (str, bytes, Mapping, set, frozenset)) or not isinstance(
        values, Iterable
    ):
        hint = " (sets have no order to draw from)" if isinstance(values, (set, frozenset)) else ""
        raise TypeError(f"{what}() wants a list of values, got {values!r}{hint}")
    listed = tuple(values)
    if not listed:
        raise ValueError(f"{what}() wants at least one value")
    return listed
