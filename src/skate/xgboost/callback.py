"""Hooks into the life of training and prediction actors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


class DistributedCallback:
    """Called in each actor; pass instances as ``RayParams(distributed_callbacks=[...])``.

    ``actor`` has the attribute ``rank``.  What a hook raises ends the training.
    """

    def on_init(self, actor: Any, *args: Any, **kwargs: Any) -> None:
        """The actor has started, or was replaced."""

    def on_stop(self, actor: Any, *args: Any, **kwargs: Any) -> None:
        """The actor is done: it has trained or predicted."""

    def before_data_loading(self, actor: Any, data: Any, *args: Any, **kwargs: Any) -> None:
        """The rows of the actor are going to be loaded."""

    def after_data_loading(self, actor: Any, data: Any, *args: Any, **kwargs: Any) -> None:
        """The rows of the actor have been loaded."""

    def before_train(self, actor: Any, *args: Any, **kwargs: Any) -> None:
        """The actor is going to train, for the first time or again after a failure."""

    def after_train(self, actor: Any, result_dict: Any, *args: Any, **kwargs: Any) -> None:
        """The training has ended; ``result_dict`` has ``bst`` (of rank 0) and ``evals_result``."""

    def before_predict(self, actor: Any, *args: Any, **kwargs: Any) -> None:
        """The actor is going to predict."""

    def after_predict(self, actor: Any, predictions: Any, *args: Any, **kwargs: Any) -> None:
        """The actor has predicted."""


class EnvironmentCallback(DistributedCallback):
    """Sets environment variables in each actor.

    Args:
        env_dict: the variables, by name.
    """

    def __init__(self, env_dict: Mapping[str, str]) -> None:
        self.env_dict = dict(env_dict)

    def on_init(self, actor: Any, *args: Any, **kwargs: Any) -> None:
        """Set them."""
        os.environ.update(self.env_dict)


class DistributedCallbackContainer:
    """Calls several of them, in their order."""

    def __init__(self, callbacks: Any = ()) -> None:
        self._callbacks = list(callbacks or ())

    def call(self, hook: str, actor: Any, *arguments: Any) -> None:
        """Call one hook of all."""
        for callback in self._callbacks:
            getattr(callback, hook)(actor, *arguments)
