"""The configurations of a space without a run: what random and grid search would propose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skate.tune.search.basic_variant import BasicVariantGenerator
from skate.tune.search.sample import grid_search
from skate.tune.search.space import varying

__all__ = ["generate_variants", "grid_search"]


def generate_variants(
    unresolved_spec: Mapping[str, Any],
    constant_grid_search: bool = False,
    random_state: Any = None,
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield one configuration for each combination of grid values.

    Args:
        unresolved_spec: the search space.
        constant_grid_search: draw what is no grid once for all of them.
        random_state: seed.

    Yields:
        The values that were drawn, by path, and the whole configuration.
    """
    searcher = BasicVariantGenerator(
        constant_grid_search=constant_grid_search, random_state=random_state
    )
    searcher.set_search_properties(None, None, unresolved_spec)
    while isinstance(config := searcher.suggest(""), dict):
        yield varying(unresolved_spec, config), config
