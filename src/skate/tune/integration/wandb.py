"""Weights & Biases within trials; and ``WandbLoggerCallback``, where Ray Tune had it in 2022."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skate.tune.logger import WandbLoggerCallback
from skate.tune.session import get_context, is_session_enabled, when_trial_ends

if TYPE_CHECKING:
    import wandb

__all__ = ["WandbLoggerCallback", "setup_wandb"]


def setup_wandb(
    config: Mapping[str, Any] | None = None,
    api_key: str | None = None,
    api_key_file: str | os.PathLike[str] | None = None,
    rank_zero_only: bool = True,
    **kwargs: Any,
) -> wandb.Run:
    """Begin a run of Weights & Biases in the process of a trial, and return it.

        def train(config):
            run = setup_wandb(config, project="mine")
            run.log({"loss": 0.1})

    Its id and name are those of the trial, its group is the run of Tune.  A trial that goes on from
    a checkpoint goes on with its run.  The run ends with the function of the trial.

    Args:
        config: is logged as the configuration of the run.  What it has under "wandb" is taken out,
            and stands for arguments of this function.
        api_key: of the account, if nobody has logged in on this machine (``wandb login``).
        api_key_file: the file that has it in its first line.
        rank_zero_only: means nothing: trials are one process.
        kwargs: for ``wandb.init``: ``project``, ``mode``, ``entity``, ``tags``, ...

    Raises:
        ImportError: wandb is not installed; it comes with ``skate[wandb]``.
        ValueError: the key is given twice.
        OSError: the file with the key cannot be read.
    """
    try:
        import wandb
    except ImportError as error:
        raise ImportError("setup_wandb needs wandb: pip install 'skate[wandb]'") from error
    logged = dict(config or {})
    options = {**logged.pop("wandb", {}), **kwargs}
    api_key = options.pop("api_key", api_key)
    api_key_file = options.pop("api_key_file", api_key_file)
    if api_key_file is not None:
        if api_key is not None:
            raise ValueError("setup_wandb wants api_key or api_key_file, not both")
        api_key = Path(api_key_file).expanduser().read_text().partition("\n")[0].strip()
    if api_key:
        os.environ["WANDB_API_KEY"] = api_key
    for name in ("project", "group"):
        options.setdefault(name, os.environ.get(f"WANDB_{name.upper()}_NAME"))
    if is_session_enabled():
        context = get_context()
        options.setdefault("id", context.get_trial_id())
        options.setdefault("name", context.get_trial_name())
        options["group"] = options["group"] or context.get_experiment_name()
        options["project"] = options["project"] or context.get_experiment_name()
        options.setdefault("dir", context.get_trial_dir())
    if wandb.run is not None:  # that of another trial: on the inline engine they share a process
        options.setdefault("reinit", "create_new")
    run = wandb.init(**{"config": logged, "resume": "allow", **options})
    when_trial_ends(lambda error: run.finish(exit_code=0 if error is None else 1))
    return run
