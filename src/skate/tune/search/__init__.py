"""Search spaces and the searchers that propose configurations from them."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

from skate.tune.search.basic_variant import BasicVariantGenerator
from skate.tune.search.concurrency_limiter import ConcurrencyLimiter
from skate.tune.search.repeater import Repeater
from skate.tune.search.sample import grid_search
from skate.tune.search.searcher import FINISHED, Searcher

__all__ = [
    "FINISHED",
    "BasicVariantGenerator",
    "ConcurrencyLimiter",
    "Repeater",
    "Searcher",
    "create_searcher",
    "grid_search",
]

_NAMES = ("optuna", "random", "variant_generator")
#: What some searchers take and others have no use for: it may be left in when one is exchanged for
#: another.
_COMMON = ("metric", "mode", "space", "points_to_evaluate", "evaluated_rewards", "max_concurrent")


def create_searcher(search_alg: str, seed: int | None = None, **kwargs: Any) -> Searcher:
    """Return the searcher called ``search_alg``: "optuna" or "random" (also "variant_generator").

    Args:
        seed: the same seed gives the same configurations.
        kwargs: for the searcher.  ``metric``, ``mode`` and others that only some searchers have a
            use for are left out for the rest.

    Raises:
        ValueError: there is none of that name.
        TypeError: no searcher takes such an argument.
        ImportError: its library is not installed.
    """
    name = search_alg.lower()
    if name == "optuna":
        from skate.tune.search.optuna import OptunaSearch

        return OptunaSearch(seed=seed, **_taken(OptunaSearch, kwargs))
    if name in ("random", "variant_generator"):
        kwargs.setdefault("random_state", seed)
        return BasicVariantGenerator(**_taken(BasicVariantGenerator, kwargs))
    near = difflib.get_close_matches(name, _NAMES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "there are 'optuna' and 'random'"
    raise ValueError(f"there is no search algorithm called {search_alg!r}; {hint}")


def _taken(made: type[Searcher], kwargs: dict[str, Any]) -> dict[str, Any]:
    taken = inspect.signature(made).parameters
    return {name: value for name, value in kwargs.items() if name in taken or name not in _COMMON}
