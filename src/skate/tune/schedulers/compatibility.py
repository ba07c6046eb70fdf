"""Which schedulers and searchers go together."""

from __future__ import annotations

from skate.tune.schedulers.trial_scheduler import TrialScheduler
from skate.tune.search import BasicVariantGenerator, Searcher
from skate.tune.search.wrapper import Wrapper


def check_together(scheduler: TrialScheduler, searcher: Searcher) -> None:
    """Check that a scheduler can do its work with the configurations of a searcher.

    Raises:
        ValueError: it cannot; the message says what to use instead.
    """
    inner = searcher
    while isinstance(inner, Wrapper):
        inner = inner.searcher
    if isinstance(inner, BasicVariantGenerator):
        return
    kind, proposes = type(scheduler).__name__, type(inner).__name__
    if not scheduler.works_with_searchers:
        raise ValueError(
            f"{kind} changes configurations while trials run, so a search algorithm cannot learn"
            f" from their results: leave search_alg={proposes} out (the population starts from"
            " random draws of the space; num_samples is its size), or use a scheduler that only"
            " stops trials, such as ASHAScheduler, with it"
        )
    only = scheduler.only_searchers
    if only and not any(base.__name__ in only for base in type(inner).__mro__):
        raise ValueError(
            f"{kind} goes with {' or '.join(only)} only, and with random search; use"
            f" HyperBandScheduler or ASHAScheduler with {proposes}"
        )
