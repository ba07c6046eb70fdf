"""What the tests of the store's client share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from skate.runtime.store.client import StoreClient
from skate.runtime.wire.messages import Location
from skate.serialization import deserialize, serialize

NODE = b"node-id."
WRITER, READER, OWNER = b"writer..", b"reader..", b"owner..."
MIB = 1 << 20
#: Bytes that the store may take in these tests.
LIMIT = 64 * MIB

MakeClient = Callable[[bytes], StoreClient]


def data_of(size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.frombuffer(np.random.default_rng(seed).bytes(size), dtype="u1")


_numbers = itertools.count(1)
_ids: dict[Location, bytes] = {}


def put(client: StoreClient, value: Any, owner: bytes = WRITER) -> Location:
    object_id = owner + next(_numbers).to_bytes(8, "big")
    location = client.write(object_id, serialize(value))
    _ids[location] = object_id
    return location


def id_at(location: Location) -> bytes:
    """Return the id of what was put there last."""
    return _ids[location]


def get(client: StoreClient, location: Location, pin: object = None) -> Any:
    return deserialize(client.open(location, _ids.get(location, bytes(16)), pin))


def free(client: StoreClient, location: Location) -> None:
    """Free an object whose owner is its writer."""
    client.take(_ids.get(location, bytes(16)), location)
