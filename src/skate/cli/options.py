"""Options that several commands have."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

import skate
from skate import state

F = TypeVar("F", bound=Callable[..., Any])

#: Other sessions that are named, at most.
MOST_NAMED = 5


def _chosen(context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Say which session is taken if there are several; all that the command asks goes there."""
    if (
        value not in (None, "", "auto", "local")
        or skate.is_initialized()
        or context.resilient_parsing
    ):
        return value
    sessions = state.list_sessions()
    if len(sessions) < 2:
        return value
    first, *others = (f"{one.name} (since {_clock(one.started)})" for one in sessions)
    named = ", ".join(others[:MOST_NAMED])
    if len(others) > MOST_NAMED:
        named += f" and {len(others) - MOST_NAMED} more"
    click.echo(
        f"note: {len(sessions)} sessions are running; this is about {first}."
        f" With --address: {named}",
        err=True,
    )
    return sessions[0].directory


def _clock(started: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))


def address_option(function: F) -> F:
    """``--address``: which session."""
    return click.option(
        "--address",
        envvar="SKATE_ADDRESS",
        callback=_chosen,
        help="Directory of the session or its last part, or host:port of a cluster."
        " By default the newest session of this user.",
    )(function)


def timeout_option(function: F) -> F:
    """``--timeout``: how long to wait for processes."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0.1),
        default=30.0,
        show_default=True,
        help="Seconds; a process that has not answered by then (5 s at most) is left out.",
    )(function)


def format_option(function: F) -> F:
    """``--format``: how rows are written."""
    return click.option(
        "--format",
        "format_",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to write the rows.",
    )(function)
