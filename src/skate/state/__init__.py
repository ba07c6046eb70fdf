"""Looking inside a session: its tasks, actors, objects, workers and nodes.

    from skate.state import list_tasks, summarize_tasks

    list_tasks(filters=[("state", "=", "RUNNING")])

The names are those of ``ray.util.state``.  Nothing is recorded for this while tasks run, apart from
one tuple for each that has ended: the processes are asked when somebody looks.  One that hangs, or
dies meanwhile, costs its own rows, and is named in a ``MissingStateWarning``.
"""

from skate.state.listing import (
    get_actor,
    get_job,
    get_node,
    get_object,
    get_objects,
    get_placement_group,
    get_task,
    get_worker,
    list_actors,
    list_jobs,
    list_nodes,
    list_objects,
    list_placement_groups,
    list_runtime_envs,
    list_tasks,
    list_workers,
)
from skate.state.logs import LogFile, LogNotFoundError, find_log, get_log, list_logs, read_log
from skate.state.rows import (
    ActorState,
    JobState,
    NodeState,
    ObjectState,
    PlacementGroupState,
    RuntimeEnvState,
    TaskState,
    WorkerState,
)
from skate.state.sessions import Session, list_sessions
from skate.state.source import MissingStateWarning, StateError
from skate.state.stacks import ProcessStack, ThreadStack, get_stacks
from skate.state.status import Demand, SessionStatus, session_status
from skate.state.summaries import summarize_actors, summarize_objects, summarize_tasks
from skate.state.trace import timeline

__all__ = [
    "ActorState",
    "Demand",
    "JobState",
    "LogFile",
    "LogNotFoundError",
    "MissingStateWarning",
    "NodeState",
    "ObjectState",
    "PlacementGroupState",
    "ProcessStack",
    "RuntimeEnvState",
    "Session",
    "SessionStatus",
    "StateError",
    "TaskState",
    "ThreadStack",
    "WorkerState",
    "find_log",
    "get_actor",
    "get_job",
    "get_log",
    "get_node",
    "get_object",
    "get_objects",
    "get_placement_group",
    "get_stacks",
    "get_task",
    "get_worker",
    "list_actors",
    "list_jobs",
    "list_logs",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_runtime_envs",
    "list_sessions",
    "list_tasks",
    "list_workers",
    "read_log",
    "session_status",
    "summarize_actors",
    "summarize_objects",
    "summarize_tasks",
    "timeline",
]
