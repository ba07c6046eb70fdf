"""Which nodes belong to the cluster, and which have fallen silent."""

from __future__ import annotations

from skate.runtime.head.membership import SILENCE_SECONDS, Membership

ONE, TWO = b"node-one", b"node-two"


def looked(membership: Membership, start: float, end: float) -> list[bytes]:
    """Look once a second, as the head does; return who was silent at last."""
    silent: list[bytes] = []
    now = start
    while now <= end:
        silent = membership.silent(now)
        now += 1.0
    return silent


def test_numbers_are_never_given_twice() -> None:
    membership = Membership()
    assert membership.join(ONE, 0.0) == 1
    assert membership.leave(ONE)
    assert not membership.leave(ONE)
    assert membership.join(TWO, 1.0) == 2
    assert membership.join(ONE, 2.0) == 3
    assert ONE in membership


def test_who_is_silent_is_given_up() -> None:
    membership = Membership()
    membership.join(ONE, 0.0)
    membership.join(TWO, 0.0)
    assert looked(membership, 0.0, SILENCE_SECONDS) == []
    membership.heard(TWO, SILENCE_SECONDS)
    assert looked(membership, SILENCE_SECONDS, SILENCE_SECONDS + 2) == [ONE]
    membership.heard(b"stranger", 1.0)
    assert b"stranger" not in membership


def test_a_head_that_slept_blames_nobody() -> None:
    membership = Membership()
    membership.join(ONE, 0.0)
    assert looked(membership, 0.0, 2.0) == []
    assert membership.silent(1000.0) == []
    assert looked(membership, 1001.0, 1000.0 + SILENCE_SECONDS) == []
    assert looked(membership, 1001.0 + SILENCE_SECONDS, 1002.0 + SILENCE_SECONDS) == [ONE]
