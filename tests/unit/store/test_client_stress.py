"""Memory is recycled by many objects and threads, and nothing that is held ever changes."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
from store_client import LIMIT, MIB, READER, WRITER, MakeClient, data_of, free, get, put
from store_daemon import StoreDaemon

from skate.runtime.wire.messages import Location, SegmentRetired


@pytest.mark.usefixtures("small_slabs")
@pytest.mark.parametrize("seed", range(5))
def test_views_never_change_while_memory_is_recycled(
    connect: MakeClient, daemon: StoreDaemon, seed: int
) -> None:
    """Many times the store's size goes through it; whatever is held stays as it was."""
    rng = random.Random(seed)
    writer, reader = connect(WRITER), connect(READER)
    held: list[tuple[Location, int, list[Any]]] = []
    total = 0
    for step in range(400):
        action = rng.random()
        if action < 0.5 or not held:
            size = int(10 ** rng.uniform(2, 6.6))
            total += size
            location = put(writer, data_of(size, step))
            views = [get(client, location) for client in rng.choices((writer, reader), k=2)]
            held.append((location, step, views))
        elif action < 0.9 or sum(location.size for location, _, _ in held) > 30 * MIB:
            location, number, views = held.pop(rng.randrange(len(held)))
            for view in views:
                np.testing.assert_array_equal(view, data_of(len(view), number))
            del view, views
            free(writer, location)
        elif action < 0.95:
            writer.trim()
        else:
            writer.retire(rng.choice(held)[0].segment_id)
        while daemon.outbox:
            process, message = daemon.outbox.pop()
            assert process == READER
            assert isinstance(message, SegmentRetired)
            reader.retire(message.segment_id)
    while held:
        location, number, views = held.pop()
        for view in views:
            np.testing.assert_array_equal(view, data_of(len(view), number))
        del view, views
        free(writer, location)
    writer.trim()
    writer.trim()
    assert daemon.table.used_bytes == 0
    assert total > LIMIT


@pytest.mark.usefixtures("small_slabs")
def test_many_threads(connect: MakeClient, daemon: StoreDaemon) -> None:
    writer, reader = connect(WRITER), connect(READER)
    errors: list[BaseException] = []
    left: list[Location] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for step in range(60):
                value = data_of(int(10 ** rng.uniform(3, 6.2)), seed * 1000 + step)
                location = put(writer, value)
                for client in (writer, reader):
                    np.testing.assert_array_equal(get(client, location), value)
                free(writer, location)
                # Another thread may be about to unlock it for the reader; the daemon would retry.
                left.append(location)
        except BaseException as error:  # the thread's only way to report
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
        assert not thread.is_alive()
    assert errors == []
    for location in left:
        free(writer, location)
    writer.trim()
    writer.trim()
    assert daemon.table.used_bytes == 0
