"""Errors and warnings of Skate as a command says them: one line each, on standard error."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

import click

from skate.exceptions import SkateError


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn errors of Skate into a message and status 1; show warnings without their place."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: click.echo(f"warning: {message}", err=True)
        try:
            yield
        except SkateError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:
            # ``skate list tasks | head``: nobody reads any more, which is no error of ours.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
