"""Event files for TensorBoard, written without TensorFlow, protobuf or tensorboardX.

An event file is a sequence of records (TFRecord): the length of the record, a checksum of that, an
``Event`` of protobuf, a checksum of that.  Here are the few kinds of events that trials need, put
together by hand, because the libraries are too slow to be on for every run: tensorboardX takes
0.4 s to be imported and 10 ms for a trial with ten reports; this takes 0.2 ms for such a trial.

All numbers of a report go into one event.  Events with the same names differ in a few places only,
and the checksum (CRC-32C) is linear: that of an event is that of one with zeros there, xor one
entry of a table for each byte that is not the same.  So a report costs about two microseconds
where the checksum byte by byte would cost thirty.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from skate.tune.readable import encoded, text_of
from skate.tune.trial import as_float

#: The first event of every file says so.
_VERSION = b"brain.Event:2"
#: Layouts of events that are remembered: one for each set of names, and length of the step.
_LAYOUTS = 256


def file_header(wall_time: float) -> bytes:
    """Return what every file begins with."""
    return _record(_wall_time(wall_time) + _bytes(3, _VERSION))


def scalars(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """Return a record with several numbers.

    Args:
        wall_time: when they were reported, in seconds since 1970.
        step: where they stand on the axis of steps.
        values: the numbers by name; at least one.
    """
    encoded = _varint(step)
    layout = _layout(tuple(values), len(encoded))
    return layout.record(wall_time, encoded, [*values.values()])


def restart(wall_time: float, step: int) -> bytes:
    """Return a record that has TensorBoard forget what it knows from ``step`` on."""
    # SessionLog.status = START
    return _record(_wall_time(wall_time) + _number(2, step) + _bytes(7, _number(1, 1)))


def session_start(wall_time: float, parameters: Mapping[str, Any]) -> bytes:
    """Return a record with the hyperparameters of a trial, for the table of all trials.

    Args:
        wall_time: when the trial began, in seconds since 1970.
        parameters: by name; what is neither number, text nor bool is shown as text.
    """
    entries = b"".join(
        _bytes(1, _bytes(1, encoded(key)) + _bytes(2, _value(value)))
        for key, value in parameters.items()
    )
    started = _double(5, wall_time)
    return _hyperparameters(wall_time, "session_start_info", _bytes(3, entries + started))


def session_end(wall_time: float, failed: bool) -> bytes:
    """Return a record that says that a trial has ended, and how."""
    ended = _number(1, 2 if failed else 1) + _double(2, wall_time)
    return _hyperparameters(wall_time, "session_end_info", _bytes(4, ended))


def _hyperparameters(wall_time: float, what: str, content: bytes) -> bytes:
    plugin = _bytes(1, b"hparams") + _bytes(2, content)
    value = _bytes(1, f"_hparams_/{what}".encode()) + _bytes(9, _bytes(1, plugin))
    return _record(_wall_time(wall_time) + _bytes(5, _bytes(1, value)))


def _value(value: object) -> bytes:
    """Return a ``google.protobuf.Value``."""
    if isinstance(value, bool):
        return _number(4, value)
    if isinstance(value, (int, float)):
        return _double(2, as_float(value))
    return _bytes(3, encoded(value if isinstance(value, str) else text_of(value, repr)))


# ------------------------------------------------------------------------------- many alike


class _Layout:
    """Events with certain names.

    Args:
        names: of the numbers.
        step_length: how many bytes the step takes.
    """

    def __init__(self, names: Sequence[str], step_length: int) -> None:
        #: What stands before each number, between those before and it.
        self._before = [
            _key(1, 2) + _varint(len(tag) + 5) + tag + _key(2, 5)
            for tag in (_bytes(1, encoded(name)) for name in names)
        ]
        inside = sum(len(before) + 4 for before in self._before)
        self._before[0] = _key(5, 2) + _varint(inside) + self._before[0]
        parts = "".join(f"{len(before)}sf" for before in self._before)
        self._whole = struct.Struct(f"<sds{step_length}s{parts}")
        self._changing = struct.Struct(f"<d{step_length}s{len(names)}f")
        # Where the bytes stand that are not always the same.
        at = [*range(1, 9), *range(10, 10 + step_length)]
        position = 10 + step_length
        for before in self._before:
            position += len(before)
            at += range(position, position + 4)
            position += 4
        length = struct.pack("<Q", position)
        self._header = length + struct.pack("<I", _masked(_crc(length)))
        self._tables = _tables([position - 1 - each for each in at])
        zeros = self._pack(0.0, bytes(step_length), [0.0] * len(names))
        self._crc = _crc(zeros)

    def record(self, wall_time: float, step: bytes, values: list[float]) -> bytes:
        """Return one of them as a record."""
        try:
            changing = self._changing.pack(wall_time, step, *values)
        except OverflowError:  # too large for the four bytes that there are
            values = [_as_float32(value) for value in values]
            changing = self._changing.pack(wall_time, step, *values)
        crc = self._crc
        for table, byte in zip(self._tables, changing, strict=True):
            crc ^= table[byte]
        payload = self._pack(wall_time, step, values)
        return b"%b%b%b" % (self._header, payload, struct.pack("<I", _masked(crc)))

    def _pack(self, wall_time: float, step: bytes, values: list[float]) -> bytes:
        parts = [part for pair in zip(self._before, values, strict=True) for part in pair]
        return self._whole.pack(b"\x09", wall_time, b"\x10", step, *parts)


_layout = lru_cache(_LAYOUTS)(_Layout)


def _tables(distances: Sequence[int]) -> list[array[int]]:
    """Return what each value of a byte adds to a checksum, for bytes so far from the end."""
    # Of the eight bits alone; all others follow from them.
    bits = [_CRC_TABLE[1 << bit] for bit in range(8)]
    tables = {}
    wanted = set(distances)
    for distance in range(max(wanted) + 1):
        if distance in wanted:
            table = array("I", [0])
            for bit in bits:
                table.extend([known ^ bit for known in table])
            tables[distance] = table
        bits = [(bit >> 8) ^ _CRC_TABLE[bit & 0xFF] for bit in bits]
    return [tables[distance] for distance in distances]


# ------------------------------------------------------------------------------- protobuf, TFRecord


def _varint(number: int) -> bytes:
    if number < 0:
        number += 1 << 64
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _number(field: int, number: int) -> bytes:
    return _key(field, 0) + _varint(number)


def _double(field: int, number: float) -> bytes:
    return _key(field, 1) + struct.pack("<d", number)


def _bytes(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _varint(len(content)) + content


def _wall_time(wall_time: float) -> bytes:
    return _double(1, wall_time)


def _record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    checked = struct.pack("<I", _masked(_crc(length)))
    return length + checked + payload + struct.pack("<I", _masked(_crc(payload)))


def _as_float32(number: float) -> float:
    try:
        struct.pack("<f", number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
    return number


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)  # Castagnoli's polynomial, reflected
        table.append(crc)
    return table


_CRC_TABLE = _crc_table()


def _crc(content: bytes) -> int:
    """Return the CRC-32C of ``content``."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    """Return a checksum as TFRecord has it: that of something with checksums in it stays one."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
