"""What the messages of all links are made of: the base class, locations, refs and values."""

from __future__ import annotations

import msgspec

#: Raised by one whenever a message changes shape; two processes that differ refuse each other.
PROTOCOL_VERSION = 1


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages: encoded as arrays, invisible to the cyclic garbage collector."""


class Location(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where an object lies: a shared-memory segment of one node, offset and size in bytes."""

    node_id: bytes
    segment_id: int
    offset: int
    size: int


class RefGrant(msgspec.Struct, array_like=True, gc=False):
    """One reference handed to the receiver, already counted by (or on its way to) the owner."""

    object_id: bytes
    owner_address: str


class Value(msgspec.Struct, array_like=True, gc=False):
    """The value of one object: inline bytes or a location, and the refs found inside it.

    ``error`` marks ``data`` as a pickled exception which ``get`` raises.
    """

    data: bytes | None = None
    location: Location | None = None
    refs: list[RefGrant] = []
    error: bool = False


class ArgSlot(msgspec.Struct, array_like=True, gc=False):
    """A ref passed as a top-level argument: its id, its owner's address and its resolved value."""

    object_id: bytes
    owner_address: str
    value: Value
