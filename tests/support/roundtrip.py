"""Through ``serialize`` and back, for tests."""

from __future__ import annotations

from typing import Any

from skate.serialization import Serialized, deserialize, serialize


def written(serialized: Serialized) -> bytes:
    """Return the written form after checking that both ways of writing agree."""
    data = serialized.to_bytes()
    assert len(data) == serialized.size
    target = bytearray(b"\xaa" * (serialized.size + 8))
    serialized.write_into(memoryview(target))
    assert target == data + b"\xaa" * 8
    return data


def roundtrip(value: Any) -> Any:
    return deserialize(written(serialize(value)))
