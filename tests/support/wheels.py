"""Tiny wheels, and an index of them that answers when it is told to."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def make(
    directory: Path, name: str, version: str, code: str = "", requires: str = "", script: str = ""
) -> Path:
    """Write a wheel with one module, ``name``, whose ``VERSION`` is the version.

    ``script``: the function, as ``module:function``, behind a command called like the module.
    """
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n{code}",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {script}\n"
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


class Index:
    """A package index on this machine; ``gate`` holds answers back while it is not set."""

    def __init__(self, directory: Path) -> None:
        self.gate = threading.Event()
        #: Set as soon as somebody has asked.
        self.asked = threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.set()
                index.gate.wait(60)
                *_, name = self.path.rstrip("/").split("/")
                file = directory / name
                if file.is_file():
                    self.answer(file.read_bytes(), "application/octet-stream")
                    return
                found = directory.glob(f"{name.replace('-', '_')}-*.whl")
                links = "".join(f'<a href="/files/{w.name}">{w.name}</a>' for w in found)
                self.answer(f"<!DOCTYPE html><body>{links}</body>".encode(), "text/html")

            def answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Keep quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                """Clients are killed in these tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple"

    def close(self) -> None:
        """Stop answering."""
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def index(directory: Path) -> Iterator[Index]:
    """Serve the wheels of a directory."""
    made = Index(directory)
    try:
        yield made
    finally:
        made.close()
