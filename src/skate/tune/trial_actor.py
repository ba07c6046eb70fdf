"""The actor that runs trials, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skate.tune.session import Batch, Session, TrialContext


class TrialActor:
    """Runs the user's function in a thread and answers with what it reports.

    Each call waits until there is something to say, so that one call is always under way for a
    running trial and nobody polls.
    """

    def __init__(self, function: Callable[[dict[str, Any]], Any]) -> None:
        self._function = function
        self._session: Session | None = None

    def run(
        self,
        config: dict[str, Any],
        trial_id: str,
        trial_dir: str | None,
        experiment: str,
        gate: Mapping[str, float] | None,
    ) -> Batch:
        """Start the function with ``config`` and return its first reports."""
        context = TrialContext(trial_id, trial_dir, experiment)
        self._session = Session(self._function, config, context, gate)
        self._session.start()
        return self._session.collect()

    def proceed(self, gate: Mapping[str, float] | None) -> Batch:
        """Let the function go on up to the next gate and return its next reports."""
        session = self._running()
        session.proceed(gate)
        return session.collect()

    def stop(self, grace: float) -> bool:
        """End the function; say whether it ended within ``grace`` seconds."""
        session = self._running()
        session.stop()
        return session.join(grace)

    def fail(self) -> None:
        """Raise what the function raised."""
        error = self._running().error
        assert error is not None
        if isinstance(error, Exception):
            raise error
        # SystemExit and its like would end this process instead of reaching the driver.
        raise RuntimeError(f"the trial's function raised {error!r}") from error

    def _running(self) -> Session:
        assert self._session is not None
        return self._session

    def __del__(self) -> None:
        # Where an actor is killed without its process (the inline engine), the thread learns so.
        session = getattr(self, "_session", None)
        if session is not None:
            session.stop()
