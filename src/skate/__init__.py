"""Skate: Python functions and classes become tasks and actors.

    import skate

    @skate.remote
    def double(x):
        return 2 * x

    skate.get([double.remote(i) for i in range(10)])

The names are those of Ray, so that ``import skate as ray`` runs a Ray program.
"""

from typing import TYPE_CHECKING, Any

from skate import actor, exceptions
from skate._version import __version__
from skate.api.actor import get_actor, kill, method
from skate.api.as_completed import as_completed
from skate.api.objects import cancel, get, put, wait
from skate.api.remote import remote
from skate.api.runtime_context import get_runtime_context
from skate.api.session import init, is_initialized, shutdown
from skate.api.state import available_resources, cluster_resources, get_gpu_ids, nodes
from skate.generators import DynamicObjectRefGenerator, ObjectRefGenerator
from skate.refs import ObjectRef

if TYPE_CHECKING:
    from skate.state import timeline

__all__ = [
    "DynamicObjectRefGenerator",
    "ObjectRef",
    "ObjectRefGenerator",
    "__version__",
    "actor",
    "as_completed",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
]


def __getattr__(name: str) -> Any:
    # Ray programs write ``ray.util.ActorPool`` after a plain ``import ray``.
    if name in ("runtime_env", "state", "util"):
        import importlib

        return importlib.import_module(f"skate.{name}")
    if name == "timeline":
        from skate.state import timeline

        return timeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
