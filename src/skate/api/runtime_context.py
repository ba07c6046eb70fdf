"""``get_runtime_context``: where the calling code runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skate.api import actor_spec
from skate.api.actor import ActorHandle
from skate.api.session import current
from skate.engine.base import Context
from skate.exceptions import SkateError

if TYPE_CHECKING:
    from skate.api.runtime_env import RuntimeEnv


class RuntimeContext:
    """Where the calling code runs.  Ids are hexadecimal digits."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def get_job_id(self) -> str:
        """Return the id of the job: of the driver."""
        return self._context.job_id

    def get_node_id(self) -> str:
        """Return the id of the node."""
        return self._context.node_id.hex()

    def get_worker_id(self) -> str:
        """Return the id of the process."""
        return self._context.worker_id.hex()

    def get_task_id(self) -> str | None:
        """Return the id of the running task or actor call; None in the driver."""
        return self._context.task_id.hex() or None

    def get_task_name(self) -> str | None:
        """Return the name of the running task or actor call; None in the driver."""
        return self._context.task_name or None

    def get_actor_id(self) -> str | None:
        """Return the id of the actor that runs; None outside of actors."""
        return self._context.actor_id.hex() or None

    def get_actor_name(self) -> str | None:
        """Return the name of the actor that runs, "" if it has none; None outside of actors."""
        return self._context.actor_name if self._context.actor_id else None

    @property
    def namespace(self) -> str:
        """Where named actors of this session live."""
        return self._context.namespace

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the actor that runs.  It does not keep the actor alive.

        Raises:
            SkateError: This code does not run in an actor.
        """
        found = current().own_actor()
        if found is None:
            raise SkateError("current_actor: this code does not run in an actor")
        return ActorHandle(found[0], actor_spec.load(found[1]))

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor that runs has been restarted.

        Raises:
            SkateError: This code does not run in an actor.
        """
        if not self._context.actor_id:
            raise SkateError("was_current_actor_reconstructed: this code does not run in an actor")
        return self._context.restarts > 0

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The runtime environment that this code runs in; in the driver: that of its tasks.

        Files are named by their content, ``package://...``, which other tasks may be given.
        """
        from skate.api.runtime_env import RuntimeEnv  # few need it

        return RuntimeEnv(**self._context.runtime_env)

    def get_runtime_env_string(self) -> str:
        """Return the runtime environment as JSON."""
        import json

        return json.dumps(self.runtime_env, sort_keys=True)

    def get_assigned_resources(self) -> dict[str, float]:
        """Return the amounts that the current task or actor holds, by name."""
        return dict(self._context.assigned_resources)

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """Return the ids of the accelerators that the current task or actor may use."""
        return {"GPU": [str(gpu_id) for gpu_id in self._context.gpu_ids]}


def get_runtime_context() -> RuntimeContext:
    """Return where the calling code runs: job, node, process, task, actor."""
    return RuntimeContext(current().context())
