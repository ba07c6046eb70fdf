"""The command ``skate``.  It imports click and the public API, and starts nothing by itself."""

from __future__ import annotations

import platform

import click

import skate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    skate.__version__, message=f"skate %(version)s (Python {platform.python_version()})"
)
def main() -> None:
    """Tasks, actors and shared objects, on this machine and on clusters."""
