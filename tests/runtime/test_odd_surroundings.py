"""Sessions whose files and directories are not as usual."""

from __future__ import annotations

from collections.abc import Callable

from scripts import Script

PROGRAM = """
    import os
    import skate

    @skate.remote
    def one():
        return 1

    @skate.remote
    class Actor:
        def one(self):
            return 1

    def attempt(make):
        try:
            print(skate.get(make(), timeout=30), flush=True)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
"""


def test_a_relative_temporary_directory(script: Callable[[str], Script]) -> None:
    run = script(
        PROGRAM
        + """
    os.chdir(os.environ["TMPDIR"])
    os.environ["TMPDIR"] = "."
    skate.init(num_cpus=1)
    # Processes of a session are not where its driver is.
    os.chdir("/")
    attempt(one.remote)
    actor = Actor.remote()
    attempt(actor.one.remote)
    """
    )
    assert run.finish()[0].split() == ["1", "1"]
    run.assert_nothing_left()


def test_the_directory_of_a_session_is_removed_while_it_runs(
    script: Callable[[str], Script],
) -> None:
    """What has a connection goes on; nobody waits for a process that cannot be reached."""
    run = script(
        PROGRAM
        + """
    import glob, shutil
    skate.init(num_cpus=1)
    attempt(one.remote)
    found, = glob.glob(os.environ["TMPDIR"] + "/skate-*/s-*")
    shutil.rmtree(found)
    attempt(one.remote)
    actor = Actor.remote()
    attempt(actor.one.remote)
    another = Actor.remote()
    attempt(another.one.remote)
    """
    )
    out = run.finish(60)[0]
    lines = out.splitlines()
    assert lines[:2] == ["1", "1"]
    errors = [line for line in lines if line.startswith("ActorDiedError")]
    assert len(errors) == 2
    assert "cannot connect to" in errors[0] or "removed the session's directory" in errors[0]
    assert "removed the session's directory" in errors[1]


def test_a_worker_that_cannot_be_reached_is_not_granted_again_and_again(
    script: Callable[[str], Script],
) -> None:
    run = script(
        PROGRAM
        + """
    import glob, shutil, time
    skate.init(num_cpus=1)
    found, = glob.glob(os.environ["TMPDIR"] + "/skate-*/s-*")
    while len(glob.glob(found + "/*.sock")) < 4:  # the daemon's, ours, and a worker's
        time.sleep(0.001)
    shutil.rmtree(found)
    attempt(one.remote)
    """
    )
    out = run.finish(60)[0]
    assert "TaskUnschedulableError" in out
    assert "removed the session's directory" in out
