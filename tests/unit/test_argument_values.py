"""Arguments that come with their call."""

from __future__ import annotations

import pytest

from skate.exceptions import ObjectLostError
from skate.runtime.wire.messages import Value
from skate.runtime.worker.invoke import value_in
from skate.serialization import serialize


def data(value: object) -> bytes:
    return serialize(value).to_bytes()


def test_values_and_exceptions_as_values_are_themselves() -> None:
    assert value_in(Value(data([1, 2]))) == [1, 2]
    assert isinstance(value_in(Value(data(ValueError("a value")))), ValueError)


def test_what_has_failed_meanwhile_is_raised() -> None:
    with pytest.raises(ObjectLostError, match="gone"):
        value_in(Value(data(ObjectLostError("gone")), error=True))
