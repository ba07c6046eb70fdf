"""``skate timeline``: what ran when, for Chrome and Perfetto."""

from __future__ import annotations

import json
import sys
import time

import click

from skate import state
from skate.cli.options import address_option


@click.command()
@click.option(
    "-o",
    "--output",
    help="File to write; - for standard output. By default skate-timeline-<time>.json.",
)
@address_option
def timeline(output: str | None, address: str | None) -> None:
    """Write what ran when, as a trace that https://ui.perfetto.dev shows."""
    events = state.timeline(address=address) or []
    if output == "-":
        json.dump(events, sys.stdout)
        return
    path = output or time.strftime("skate-timeline-%Y%m%d-%H%M%S.json")
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(events, file)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from error
    click.echo(
        f"{sum(event['ph'] == 'X' for event in events)} events in {path};"
        " open it at https://ui.perfetto.dev or chrome://tracing"
    )
