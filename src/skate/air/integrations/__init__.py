"""Loggers of Tune, where Ray has them; they live in ``skate.tune.logger``."""
