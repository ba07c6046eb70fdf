"""What user code that runs in a training actor may ask and say."""

from __future__ import annotations

from typing import Any, Protocol


class _Actor(Protocol):
    rank: int

    def put(self, item: Any) -> None: ...


_actor: _Actor | None = None


def enter(actor: _Actor) -> None:
    """Say which actor this process is."""
    global _actor
    _actor = actor


def _current() -> _Actor:
    if _actor is None:
        raise RuntimeError(
            "skate.xgboost.session is for callbacks, objectives and metrics: it has something to"
            " say only where an actor trains"
        )
    return _actor


def get_actor_rank() -> int:
    """Return the rank of this training actor, from 0; it stays when others fail.

    Raises:
        RuntimeError: this process is no training actor.
    """
    return _current().rank


def get_rabit_rank() -> int:
    """Return the rank in XGBoost's collective, which has no gaps when actors are missing.

    Raises:
        RuntimeError: this process is no training actor.
    """
    from xgboost import collective

    _current()
    return int(collective.get_rank())


def put_queue(item: Any) -> None:
    """Send something to the caller of ``train``.

    It is found in ``additional_results["callback_returns"]``, a list for each rank; a function is
    called there instead, without arguments.

    Raises:
        RuntimeError: this process is no training actor.
    """
    _current().put(item)
