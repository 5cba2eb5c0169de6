"""A web server on this machine that publishes a folder: pages of links, ranges, and whatever faults a test asks for."""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections import Counter
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO


class ImageServer:
    """`get_weights_address` of `folder`. Faults, by path: `status` of the next answers, `cut_after` bytes of every
    answer.

    `asked`: how often each path was asked for, with what method. `pages`: served instead of files.
    """

    def __init__(self, folder: Path) -> None:
        self.status: dict[str, list[int]] = {}
        self.cut_after: dict[str, int] = {}
        self.pages: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.gives_ranges = self.answers_head = True
        self.headers: list[dict[str, str]] = []
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments, **options) -> None:
                super().__init__(*arguments, directory=str(folder), **options)

            def send_head(self) -> BinaryIO | None:
                server.asked[f"{self.command} {self.path}"] += 1
                server.headers.append(dict(self.headers))
                if waiting := server.status.get(self.path):
                    self.send_error(waiting.pop(0))
                    return None
                if self.command == "HEAD" and not server.answers_head:
                    self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
                    return None
                if self.path in server.pages:
                    content = server.pages[self.path]
                elif os.path.isfile(path := self.translate_path(self.path)):
                    content = Path(path).read_bytes()
                else:
                    return super().send_head()
                etag = f'"{hashlib.sha256(content).hexdigest()}"'
                wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                if wanted and server.gives_ranges:
                    first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                    content = content[first : last + 1]
                else:
                    self.send_response(200)
                self.send_header("ETag", etag)
                self.send_header("Content-Type", "text/html" if self.path in server.pages else "image/png")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                return io.BytesIO(content[: server.cut_after.get(self.path, len(content))])

            def log_message(self, *arguments: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
