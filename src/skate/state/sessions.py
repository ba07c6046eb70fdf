"""``list_sessions``: which sessions there are to look into."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Session:
    """A session of this user that runs on this machine."""

    #: As an ``address`` it names this session; so does its directory.
    name: str
    directory: str
    #: Unix time.
    started: float


def list_sessions() -> list[Session]:
    """Return the sessions of this user on this machine, one per cluster.

    The first is the one that is looked into from outside if no address is given: the newest of our
    own temporary directory, if there are any.
    """
    from skate.runtime.node.standing import standing_nodes
    from skate.runtime.tool.sessions import running_sessions

    clusters = {node.paths.directory: node.head_address for node in standing_nodes()}
    found: dict[str, Session] = {}
    for running in running_sessions():
        session = Session(running.name, running.directory, running.started)
        found.setdefault(clusters.get(running.directory, running.directory), session)
    return list(found.values())
