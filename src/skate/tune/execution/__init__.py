"""Where Ray Tune has what is in ``skate.tune`` itself."""
