"""Search spaces and the searchers that propose configurations from them."""

from __future__ import annotations

import difflib
from typing import Any

from skate.tune.search.basic_variant import BasicVariantGenerator
from skate.tune.search.searcher import FINISHED, ConcurrencyLimiter, Searcher

__all__ = [
    "FINISHED",
    "BasicVariantGenerator",
    "ConcurrencyLimiter",
    "Searcher",
    "create_searcher",
]

_NAMES = ("optuna", "random", "variant_generator")


def create_searcher(search_alg: str, seed: int | None = None, **kwargs: Any) -> Searcher:
    """Return the searcher called ``search_alg``: "optuna" or "random" (also "variant_generator").

    Raises:
        ValueError: there is none of that name.
        ImportError: its library is not installed.
    """
    name = search_alg.lower()
    if name == "optuna":
        from skate.tune.search.optuna import OptunaSearch

        return OptunaSearch(seed=seed, **kwargs)
    if name in ("random", "variant_generator"):
        return BasicVariantGenerator(random_state=seed, **kwargs)
    near = difflib.get_close_matches(name, _NAMES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "there are 'optuna' and 'random'"
    raise ValueError(f"there is no search algorithm called {search_alg!r}; {hint}")
