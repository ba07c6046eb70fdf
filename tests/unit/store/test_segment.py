"""Segments, mappings, and views that keep what they show."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from skate.runtime.store.segment import (
    Descriptor,
    Mapping,
    create_segment,
    read_only_descriptor,
)

SIZE = 1 << 20
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


class Pin:
    pass


@pytest.fixture
def fd() -> Iterator[int]:
    fd = create_segment(SIZE)
    yield fd
    os.close(fd)


def mapped_segments() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:skate")


def test_what_one_mapping_writes_another_reads(fd: int) -> None:
    writer = Mapping(fd, SIZE, writable=True)
    reader = Mapping(fd, SIZE, writable=False)
    writer.writable_view(128, 5)[:] = b"hello"
    assert bytes(reader.pinned_view(128, 5, None)) == b"hello"


def test_views_are_read_only_bytes(fd: int) -> None:
    view = Mapping(fd, SIZE, writable=False).pinned_view(64, 1000, None)
    assert view.readonly
    assert view.format == "B"
    assert view.nbytes == 1000
    with pytest.raises(TypeError):
        view[0] = 1
    array = np.frombuffer(view, dtype="u1")
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 10), (0, -1), (0, SIZE + 1), (SIZE, 1), (2**63, 1), (1, 2**64)]
)
def test_ranges_outside_are_refused(fd: int, offset: int, size: int) -> None:
    mapping = Mapping(fd, SIZE, writable=True)
    with pytest.raises(ValueError, match="outside"):
        mapping.pinned_view(offset, size, None)
    with pytest.raises(ValueError, match="outside"):
        mapping.writable_view(offset, size)


def test_the_edges_are_inside(fd: int) -> None:
    mapping = Mapping(fd, SIZE, writable=True)
    assert mapping.pinned_view(0, SIZE, None).nbytes == SIZE
    assert mapping.pinned_view(SIZE, 0, None).nbytes == 0


def test_the_pin_lives_as_long_as_anything_made_from_the_view(fd: int) -> None:
    mapping = Mapping(fd, SIZE, writable=False)
    pin = Pin()
    alive = weakref.ref(pin)
    view = mapping.pinned_view(0, 4096, pin)
    array = np.frombuffer(view[1024:2048], dtype="u1")[10:20].reshape(2, 5)
    del pin, view
    gc.collect()
    assert alive() is not None
    del array
    gc.collect()
    assert alive() is None


def test_a_cycle_through_the_pin_is_collected(fd: int) -> None:
    pin = Pin()
    alive = weakref.ref(pin)
    pin.view = Mapping(fd, SIZE, writable=False).pinned_view(0, 64, pin)  # type: ignore[attr-defined]  # makes the cycle
    del pin
    gc.collect()
    assert alive() is None


@linux_only
def test_a_mapping_lives_as_long_as_its_views_and_no_longer(fd: int) -> None:
    before = mapped_segments()
    mapping = Mapping(fd, SIZE, writable=True)
    mapping.writable_view(0, 4)[:] = b"data"
    view = mapping.pinned_view(0, 4, None)
    del mapping
    gc.collect()
    assert mapped_segments() == before + 1
    assert bytes(view) == b"data"
    del view
    gc.collect()
    assert mapped_segments() == before


@linux_only
def test_sizes_are_sealed(fd: int) -> None:
    for size in (0, SIZE * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)


def test_readers_cannot_write(fd: int) -> None:
    descriptor = Descriptor(read_only_descriptor(fd))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor.fd, b"x")
    with pytest.raises(OSError, match="cannot map"):
        Mapping(descriptor.fd, SIZE, writable=True)


def test_a_file_that_is_too_small_is_refused(fd: int) -> None:
    for size in (SIZE + 1, 0, -1):
        with pytest.raises(ValueError, match="segment has"):
            Mapping(fd, size, writable=False)


def test_descriptors_are_not_inherited(fd: int) -> None:
    assert not os.get_inheritable(fd)
    assert not os.get_inheritable(Descriptor(read_only_descriptor(fd)).fd)


def test_a_descriptor_closes_itself() -> None:
    descriptor = Descriptor(create_segment(SIZE))
    fd = descriptor.fd
    os.fstat(fd)
    del descriptor
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
