"""Downloads that resume after an interruption, and whose file appears only when it is complete.

The bytes received are kept as `NAME.part`, and the server's length, ETag and date of the file as `NAME.part.json`. The
next attempt requests only the rest, and starts over when the file has changed or the server ignores the range. One
process downloads while others wait for it.

Why no library does this: `torch.hub` and pooch never resume, and `huggingface_hub` resumes hub repositories only (its
`http_get` for plain URLs sends no If-Range, and so would join the halves of two different files).
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from fastcomus.errors import InputError
from fastcomus.progress import show_progress
from fastcomus.store.integrity import compute_file_digest

log = logging.getLogger("fastcomus")

STALL_SECONDS = 30.0  # a server that sends nothing for so long has failed
_ATTEMPTS = 3  # without one byte more than before
_MEGABYTE = 10**6
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TO_COME_AGAIN = (408, 429, 500, 502, 503, 504)


def download(
    url: str,
    target: Path,
    sha256: str = "",
    check: Callable[[Path], object] | None = None,
    pause_seconds: float = 1.0,
) -> None:
    """Download `url` to `target`, unless the file is already there.

    Args:
        url: Address of the file.
        target: Where the complete file appears.
        sha256: Digest (hex) that the file must have, if known.
        check: Called with the complete file before it appears; raises InputError to refuse it.
        pause_seconds: Time between two attempts.

    Raises:
        InputError: The file is refused, or the disk is full.
        OSError, HTTPException: The server does not deliver the file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _append_ending(target, ".part")
    with FileLock(_append_ending(target, ".lock")):
        if target.exists():
            return
        _fetch_patiently(url, part, pause_seconds)
        try:
            digest = compute_file_digest(part)
            if sha256 and digest != sha256:
                raise InputError(
                    f"the file from {url} has the SHA-256 {digest} instead of {sha256}: it was damaged on its way or "
                    f"is another file by now; run again, or find out why."
                )
            if check:
                check(part)
        except InputError:
            _remove(part)
            raise
        part.replace(target)
        _get_said_file(part).unlink(missing_ok=True)


def _fetch_patiently(url: str, part: Path, pause_seconds: float) -> None:
    """Fetch the whole of `url` to `part`, giving up after `_ATTEMPTS` in a row that add nothing."""
    longest, attempts = _get_size(part), 0
    while True:
        try:
            _fetch(url, part)
            return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in _TO_COME_AGAIN:
                raise
            reached = _get_size(part)
            attempts = 0 if reached > longest else attempts + 1
            if reached == 0 or attempts >= _ATTEMPTS:
                raise
            longest = max(longest, reached)
            log.info("%s; going on from there", error)
            time.sleep(pause_seconds)


def _fetch(url: str, part: Path) -> None:
    """Make one attempt to fetch the missing rest of `part`, or all of it; OSError if the connection ends too early."""
    there, known = _get_size(part), _read_said(part)
    if there and there == known.get("length"):
        return
    if not known.get("length"):
        there = 0
    with _open_url(url, there, known) as reply:
        said = _extract_said(reply)
        is_rest = there > 0 and reply.status == 206 and _is_rest_of(reply, there, said, known)
        if is_rest or reply.status == 200:
            _receive(url, reply, part, there if is_rest else 0, said)
            return
    # The rest of another file, or a range that the file has no more: all of it, without asking for a range.
    _remove(part)
    with _open_url(url, 0, {}) as reply:
        _receive(url, reply, part, 0, _extract_said(reply))


def _open_url(url: str, there: int, known: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "fastcomus", "Accept-Encoding": "identity"})
    if there:
        request.add_header("Range", f"bytes={there}-")
        # A weak ETag must not stand in If-Range.
        validator = known["etag"] if known["etag"] and not known["etag"].startswith("W/") else known["date"]
        if validator:
            request.add_header("If-Range", validator)
    try:
        return urllib.request.urlopen(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:
            return error  # a reply as well: no such range
        raise


def _extract_said(reply: Any) -> dict[str, Any]:
    """Read what the server says of the whole file: `length` in bytes (None if unknown), `etag` and `date`."""
    length = reply.headers.get("Content-Length") if reply.status == 200 else _parse_content_range(reply)[1]
    return {
        "length": int(length) if length and length.isdigit() else None,
        "etag": reply.headers.get("ETag", ""),
        "date": reply.headers.get("Last-Modified", ""),
    }


def _is_rest_of(reply: Any, there: int, said: dict[str, Any], known: dict[str, Any]) -> bool:
    """Tell whether a reply continues where `part` ends, in the same file: no property the server stated has changed."""
    same = all(said[name] == value for name, value in known.items() if value and said[name])
    return same and said["length"] is not None and _parse_content_range(reply)[0] == there


def _parse_content_range(reply: Any) -> tuple[int, str]:
    """Read the first byte and total length from "bytes 1000-4999/5000"; -1 and "" where the header is missing."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", reply.headers.get("Content-Range", ""))
    return (int(found[1]), found[2]) if found else (-1, "")


def _receive(url: str, reply: Any, part: Path, there: int, said: dict[str, Any]) -> None:
    """Append a reply to the first `there` bytes of `part`."""
    length = said["length"]
    if length is not None and shutil.disk_usage(part.parent).free < length - there:
        raise _build_space_error(url, part, length)
    log.info("downloading %s%s", url, f" from byte {there} of {length}" if there else "")
    size = there
    try:
        with part.open("r+b" if there else "wb") as file:
            file.seek(there)
            file.truncate()
            _get_said_file(part).write_text(json.dumps(said))
            total = max(1, (length or 0) // _MEGABYTE)
            with show_progress(part.name.removesuffix(".part"), total, "MB", there // _MEGABYTE) as advance:
                while block := reply.read(_MEGABYTE):
                    file.write(block)
                    size += len(block)
                    advance(1)
    except OSError as error:
        if error.errno in _FULL:
            raise _build_space_error(url, part, length) from error
        raise
    if length is not None and size != length:
        raise OSError(f"the connection ended after {size} of {length} bytes")


def _build_space_error(url: str, part: Path, length: int | None) -> InputError:
    """Delete the partial file to free its space, and make the error."""
    _remove(part)
    wanted = f" of {length / _MEGABYTE:.1f} MB" if length is not None else ""
    return InputError(
        f"there is no space in {part.parent} for {url}{wanted}; free some, or set FASTCOMUS_WEIGHTS to a folder "
        "elsewhere."
    )


def _get_size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _read_said(part: Path) -> dict[str, Any]:
    """Read what the server said of the file that `part` begins; {} where that is unknown."""
    try:
        said = json.loads(_get_said_file(part).read_text())
        return {"length": said["length"], "etag": str(said["etag"]), "date": str(said["date"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _get_said_file(part).unlink(missing_ok=True)


def _get_said_file(part: Path) -> Path:
    return _append_ending(part, ".json")


def _append_ending(file: Path, ending: str) -> Path:
    return file.with_name(file.name + ending)
