"""Where ``BasicVariantGenerator`` was found in 2022."""

from skate.tune.search.basic_variant import BasicVariantGenerator

__all__ = ["BasicVariantGenerator"]
