"""What the tests of the store's client share."""

from __future__ import annotations

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


def put(client: StoreClient, value: Any) -> Location:
    return client.write(serialize(value))


def get(client: StoreClient, location: Location, pin: object = None) -> Any:
    return deserialize(client.open(location, pin))
