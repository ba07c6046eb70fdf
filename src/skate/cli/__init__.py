"""The command ``skate``.  It imports click and the public API, and starts nothing by itself.

Each group of commands is a file of its own, imported when one of them is used.
"""

from __future__ import annotations

import importlib
import platform

import click

import skate
from skate.cli.errors import explained

#: Where each command lives: module of this package, and name in it.
_COMMANDS = {
    "debug": ("debug", "debug"),
    "get": ("listing", "get"),
    "list": ("listing", "list_"),
    "logs": ("logs", "logs"),
    "memory": ("memory", "memory"),
    "stack": ("stack", "stack"),
    "start": ("nodes", "start"),
    "status": ("status", "status"),
    "stop": ("nodes", "stop"),
    "summary": ("summary", "summary"),
    "timeline": ("timeline", "timeline"),
    "top": ("top", "top"),
    "tune": ("tune", "tune"),
}


class _Commands(click.Group):
    """Imports commands when they are used, and turns errors of Skate into messages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"skate.cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        with explained():
            return super().invoke(ctx)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    skate.__version__, message=f"skate %(version)s (Python {platform.python_version()})"
)
def main() -> None:
    """Tasks, actors and shared objects, on this machine and on clusters."""
