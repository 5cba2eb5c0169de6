"""A real HTTP server on this machine that publishes files, and cuts, refuses or changes them as a test asks."""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch


@dataclass
class Published:
    """`cuts`: after how many bytes each reply ends, one after the other; replies after these are whole."""

    body: bytes
    status: int = 200
    promised: int | None = None  # length that is told, when it is not the true one
    takes_ranges: bool = True
    shows_etag: bool = True
    cuts: list[int] = field(default_factory=list)


class Server:
    """`files` by path; `asked` ("GET /path") and `ranges` (what each GET asked for, "" for all) in order."""

    def __init__(self) -> None:
        self.files: dict[str, Published] = {}
        self.asked: list[str] = []
        self.ranges: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer(with_body=False)

            def do_GET(self) -> None:
                server.ranges.append(self.headers.get("Range", ""))
                self._answer(with_body=True)

            def _answer(self, with_body: bool) -> None:
                server.asked.append(f"{self.command} {self.path}")
                published = server.files.get(self.path, Published(b"", status=404))
                etag = f'"{hashlib.sha256(published.body).hexdigest()}"'
                start = self._start(published, etag)
                whole = len(published.body) if published.promised is None else published.promised
                if start >= len(published.body) > 0:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{whole}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206 if start else published.status)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
                if published.shows_etag:
                    self.send_header("ETag", etag)
                self.send_header("X-Repo-Commit", "0" * 40)  # the hub says this of its files
                self.send_header("Content-Length", str(whole - start))
                self.end_headers()
                if with_body:
                    end = published.cuts.pop(0) if published.cuts else len(published.body)
                    self.wfile.write(published.body[start:end])

            def _start(self, published: Published, etag: str) -> int:
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                is_same = self.headers.get("If-Range", etag) == etag
                return int(asked[1]) if asked and is_same and published.takes_ranges else 0

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def holds(self, path: str, body: bytes, **traits: object) -> Published:
        self.files[path] = Published(body, **traits)  # type: ignore[arg-type]
        return self.files[path]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


class Malicious:
    """Unpickling it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def saved(state: object) -> bytes:
    """`state` as torch.save writes it."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()
