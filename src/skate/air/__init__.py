"""Where Ray has loggers of Tune: ``skate.air.integrations``."""
