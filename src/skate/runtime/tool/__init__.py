"""Tools: a third kind of process beside drivers and workers, which looks and owns nothing."""
