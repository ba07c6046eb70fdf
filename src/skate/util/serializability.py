"""Why something cannot travel to a task."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, TextIO

from skate import unpicklable


class FailureTuple(NamedTuple):
    """A part that cannot be pickled."""

    obj: Any
    #: Where it is, e.g. ``closure variable lock of function f``.
    name: str
    #: The object that it is a part of; None for the inspected object itself.
    parent: Any

    def __repr__(self) -> str:
        return f"FailTuple({self.name} [obj={self.obj!r}, parent={self.parent!r}])"

    def __hash__(self) -> int:
        # What cannot be pickled often cannot be hashed either.
        return hash((id(self.obj), self.name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FailureTuple) and (self.obj is other.obj, self.name) == (
            True,
            other.name,
        )


def inspect_serializability(
    base_obj: object,
    name: str | None = None,
    depth: int = 3,
    print_file: TextIO | None = None,
) -> tuple[bool, set[FailureTuple]]:
    """Find out whether an object can travel to a task, and print which parts of it cannot.

    Args:
        base_obj: A function, class, or value.
        name: What to call it; by default its own name.
        depth: How many levels of its parts (closure variables, attributes, items) are looked into.
        print_file: Where to print; None: standard output.

    Returns:
        Whether it can travel, and the innermost parts found that cannot.
    """
    out = print_file or sys.stdout
    if name is None:
        name = getattr(base_obj, "__qualname__", None) or type(base_obj).__qualname__
    found = unpicklable.failures(base_obj, name, depth)
    if not found:
        print(f"{name} can be serialized.", file=out)
        return True, set()
    print(f"{name} cannot be serialized, because of", file=out)
    for failure in found:
        kind = type(failure.value)
        shown = kind.__qualname__
        if kind.__module__ != "builtins":
            shown = f"{kind.__module__}.{shown}"
        print(f"  {failure.place} (type {shown}): {failure.reason}", file=out)
    return False, {FailureTuple(each.value, str(each.place), each.parent) for each in found}
