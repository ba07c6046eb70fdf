"""Actor classes and handles, under the name where ``ray.actor`` has them."""

from skate.api.actor import ActorClass, ActorHandle, ActorMethod, exit_actor

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]
