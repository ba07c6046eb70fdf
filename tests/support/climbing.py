"""A trainable for schedulers that clone trials."""

from __future__ import annotations

from typing import Any

from skate import tune


def climb(config: dict[str, Any]) -> None:
    """Its score grows by x each step; it goes on from where it was."""
    checkpoint = tune.get_checkpoint()
    state = checkpoint.to_dict() if checkpoint else {"step": 0, "score": 0.0}
    for step in range(state["step"] + 1, 100):
        state = {"step": step, "score": state["score"] + config["x"]}
        tune.report(
            {"score": state["score"], "x": config["x"]},
            checkpoint=tune.Checkpoint.from_dict(state),
        )
