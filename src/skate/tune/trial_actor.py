"""The actor that runs trials, one after the other."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import skate
from skate.tune.session import Batch, Report, Session
from skate.tune.trial_context import TrialContext

if TYPE_CHECKING:
    from skate.tune.checkpoint import Checkpoint, PackedCheckpoint
    from skate.tune.class_runs import ClassRuns, Saving
    from skate.tune.resources import PlacementGroupFactory
    from skate.tune.trial_folder import FolderUse

#: What the answering methods return as two values.  The second one belongs to the driver, which
#: hands it on without looking at it.
Answer: TypeAlias = tuple[Batch | None, "PackedCheckpoint | None"]
#: What ``stop`` brings: whether the function ended in time, whether there is a checkpoint, the
#: reports before it that have not been brought yet, and where the trial ran (pid, host).
Ended: TypeAlias = tuple[bool, bool, list[Report], int, str]
#: Who runs: id, folder, experiment, name.
TrialFacts: TypeAlias = tuple[str, str | None, str, str]


class TrialActor:
    """Runs the user's trainable in a thread and answers with what it reports.

    Each call waits until there is something to say, so that one call is always under way for a
    running trial and nobody polls.

    Args:
        trainable: a function of a configuration, or a ``Trainable`` class.
        saving: when a class is asked for checkpoints; None for functions.
        resources: what its trials have.
        folder_use: what they do with their folders; nothing if None.
    """

    def __init__(
        self,
        trainable: Callable[..., Any],
        saving: Saving | None = None,
        resources: PlacementGroupFactory | None = None,
        folder_use: FolderUse | None = None,
    ) -> None:
        self._resources = resources
        self._folder_use = folder_use
        self._function: Callable[[dict[str, Any]], Any] = trainable
        self._session: Session | None = None
        self._runs: ClassRuns | None = None
        if saving is not None:
            from skate.tune.class_runs import ClassRuns

            self._runs = ClassRuns(trainable, saving)  # type: ignore[arg-type]  # it is a class

    @skate.method(num_returns=2)
    def run(
        self,
        config: dict[str, Any],
        facts: TrialFacts,
        gate: Mapping[str, float] | None,
        source: PackedCheckpoint | str | None = None,
        done: tuple[int, float] = (0, 0.0),
    ) -> Answer:
        """Start the function with ``config`` and return its first reports.

        Args:
            config: the configuration.
            facts: which trial it is.
            gate: where it has to wait first.
            source: the checkpoint to go on from, or the path of one.
            done: iterations and seconds that lie behind that checkpoint.
        """
        checkpoint = None if source is None else _open(source)
        context = TrialContext(*facts, resources=self._resources)
        session = Session(self._function, config, context, gate, checkpoint, done)
        if self._runs is not None:
            # The thread holds no reference to this actor: see __del__.
            session.function = functools.partial(self._runs.run, session)
        if self._folder_use is not None:
            session.output = self._folder_use.begin(context.get_trial_dir())
        self._session = session
        session.start()
        return session.collect()

    @skate.method(num_returns=2)
    def renew(
        self,
        grace: float,
        config: dict[str, Any],
        facts: TrialFacts,
        gate: Mapping[str, float] | None,
        source: PackedCheckpoint | str | None,
        done: tuple[int, float],
    ) -> Answer:
        """End the function, then do as ``run``; (None, None) if it does not end in time."""
        session = self._running()
        session.stop()
        if not session.join(grace):
            return None, None
        return self.run(config, facts, gate, source, done)

    @skate.method(num_returns=2)
    def proceed(self, gate: Mapping[str, float] | None) -> Answer:
        """Let the function go on up to the next gate and return its next reports."""
        session = self._running()
        session.proceed(gate)
        return session.collect()

    @skate.method(num_returns=2)
    def stop(
        self, grace: float, save: bool, export: bool = False
    ) -> tuple[Ended, PackedCheckpoint | None]:
        """End the function.

        Args:
            grace: seconds it may take.
            save: whether a class is to be saved before.
            export: whether a class is to export what it has trained, if it does that at all.

        Returns:
            How it ended; the checkpoint.

        Raises:
            Exception: it could not be saved.
        """
        session = self._running()
        runs = self._runs
        if runs is not None:
            runs.save_at_stop, runs.export_at_stop = save, export
        session.stop(keep=save and runs is not None)
        ended = session.join(grace)
        if ended and save and session.error is not None:
            self.fail()
        saved = runs.saved if runs is not None and ended else None
        rest = [] if saved is None else session.rest()
        return (ended, saved is not None, rest, os.getpid(), socket.gethostname()), saved

    def fail(self) -> None:
        """Raise what the function raised."""
        error = self._running().error
        assert error is not None
        if self._folder_use is not None:
            self._folder_use.explain(error)
        if isinstance(error, Exception):
            raise error
        # SystemExit and its like would end this process instead of reaching the driver.
        raise RuntimeError(f"the trial's function raised {error!r}") from error

    def close(self) -> None:
        """Clean up: nothing will run here any more."""
        if self._runs is not None:
            self._runs.close()

    def _running(self) -> Session:
        assert self._session is not None
        return self._session

    def __del__(self) -> None:
        # Where an actor is killed without its process (the inline engine), the thread learns so.
        session = getattr(self, "_session", None)
        if session is not None:
            session.stop()


def _open(source: PackedCheckpoint | str) -> Checkpoint:
    from skate.tune.checkpoint import Checkpoint

    if isinstance(source, str):
        return Checkpoint.from_directory(source)
    return Checkpoint.from_packed(source)
