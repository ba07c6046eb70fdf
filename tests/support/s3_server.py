"""An S3 server in a process of its own: moto in server mode."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Server:
    """A server with one bucket, and the environment in which clients find it."""

    def __init__(self, log: Path, bucket: str) -> None:
        self.bucket = bucket
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                stdout=file,
                stderr=file,
            )
        deadline = time.monotonic() + 100
        while not self.answers():
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def answers(self) -> bool:
        request = urllib.request.Request(f"{self.url}/{self.bucket}", method="PUT")
        try:
            with urllib.request.urlopen(request, timeout=30):
                return True
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False

    def keys(self) -> int:
        url = f"{self.url}/{self.bucket}?list-type=2"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read().count(b"<Key>")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a server, and have clients of this process and its children find it.

    Skips the test if a package for that is missing.
    """
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    # They keep the address of the server that they were made with.
    s3fs.S3FileSystem.clear_instance_cache()
    server = Server(folder / "server.log", bucket)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    try:
        yield server
    finally:
        server.stop()
