"""What tasks and actors find around them: variables, files, modules, installed packages."""

from skate.api.runtime_env import RuntimeEnv, RuntimeEnvConfig

__all__ = ["RuntimeEnv", "RuntimeEnvConfig"]
