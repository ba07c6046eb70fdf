"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def address_option(function: F) -> F:
    """``--address``: which session."""
    return click.option(
        "--address",
        envvar="SKATE_ADDRESS",
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
