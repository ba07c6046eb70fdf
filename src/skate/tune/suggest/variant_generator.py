"""Where ``grid_search`` was found in 2022."""

from skate.tune.search.variant_generator import generate_variants, grid_search

__all__ = ["generate_variants", "grid_search"]
