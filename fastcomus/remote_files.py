"""Files behind URLs, through fsspec: listed, looked up and read within bounds of time and bytes.

Every request is repeated when it fails for a reason that may pass. What fails for good is UnreadableImage(LOST), so
that the next run asks again; its detail holds neither addresses nor anything else that a server or library might say of
credentials.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, TypeVar

from fastcomus.addresses import is_web, joined, path_below, scheme
from fastcomus.errors import InputError
from fastcomus.images import LOST, UnreadableImage

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0  # a server that sends nothing for so long has failed
REQUEST_SECONDS = 300.0
PAUSE_SECONDS = (0.5, 2.0)  # before the second and the third attempt
_PATIENCE = 8  # failed requests in a row after which each gets one attempt only
_FIRST_BYTES = 2**22  # of a file whose size is not known: nearly every image is smaller
_LONGEST_PAGE = 2**26  # bytes
_MOST_PAGES = 100_000
_DEEPEST_PAGE = 32  # folders below the first
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}

Result = TypeVar("Result")
State = tuple[int | None, str]  # size in bytes where it is told, and what else changes with the file: ETag or date


def check_packages(url: str) -> None:
    """InputError where the package that reads such addresses is missing."""
    _filesystem(scheme(url))


def state(url: str) -> State:
    """Raises UnreadableImage."""
    return _patiently(url, lambda files: _web_state(files, url) if is_web(url) else _told_state(files.info(url)))


def content(url: str, most_bytes: int) -> bytes:
    """All of a file. Raises UnreadableImage, "too large" where it is longer: then no more than that is fetched."""
    return _patiently(url, lambda files: (_web_content if is_web(url) else _object_content)(files, url, most_bytes))


def read_range(url: str, offset: int, length: int, tag: str) -> bytes:
    """`length` bytes from `offset` on. Raises UnreadableImage, LOST as well where the file is not that of `tag`."""

    def read(files: Any) -> bytes:
        if is_web(url):
            found = _run(files, _fetched(files, url, length, (offset, length), tag))
        else:
            found = files.cat_file(url, start=offset, end=offset + length)
        if len(found) < length:
            raise UnreadableImage(LOST, "the file ends too early")
        return found

    return _patiently(url, read)


def listed(folder: str) -> dict[str, State | None]:
    """The files below a URL at any depth, by their path there; None where only asking for each tells its state.

    Behind http a folder is a page with links (as web servers make of folders), or one that ends in .html; links that
    lead elsewhere are not followed. Raises InputError where there is nothing to list.
    """
    try:
        return _patiently(folder, lambda files: (_linked if is_web(folder) else _in_bucket)(files, folder))
    except UnreadableImage as error:
        raise InputError(
            f"{folder} cannot be listed ({error.detail}); check the address, the network and your credentials."
        ) from None


_failures: dict[str, int] = {}  # requests in a row, by host


def _patiently(url: str, work: Callable[[Any], Result]) -> Result:
    """`work(filesystem)`, again after a pause where it fails for a reason that may pass."""
    host = "/".join(url.split("/")[:3])
    files = _filesystem(scheme(url))
    # gcsfs has a patience of its own, which cannot be turned off.
    pauses = () if scheme(url) == "gs" or _failures.get(host, 0) >= _PATIENCE else PAUSE_SECONDS
    for pause in (*pauses, None):
        try:
            found = work(files)
        except UnreadableImage:
            _failures[host] = 0
            raise
        except MemoryError:
            raise
        except Exception as error:  # each library has its own for the same failures
            may_pass, told = _diagnosis(error)
            if may_pass and pause is not None:
                time.sleep(pause)
                continue
            _failures[host] = _failures.get(host, 0) + 1 if may_pass else 0
            raise UnreadableImage(LOST, told) from None
        _failures[host] = 0
        return found
    raise AssertionError("the last attempt returns or raises")


def _diagnosis(error: Exception) -> tuple[bool, str]:
    """Whether it may pass, and one line without anything that a server or library says of addresses."""
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError):
        return False, "the file does not exist (any more)"
    if isinstance(error, PermissionError) or status in (401, 403) or type(error).__name__ == "NoCredentialsError":
        return False, "access is denied"
    if isinstance(status, int) and status >= 100:
        return status in _MAY_PASS, f"the server answers {status}"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return True, "the server does not answer in time"
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return True, f"the connection failed: {kind}"


# -- filesystems -----------------------------------------------------------------------------------------------

_filesystems: dict[tuple[str, int], Any] = {}
_filesystems_lock = threading.Lock()


def _filesystem(kind: str) -> Any:
    """fsspec's, one for all threads of this process."""
    kind = "http" if kind == "https" else kind
    key = (kind, os.getpid())  # a forked process needs its own
    with _filesystems_lock:
        if key not in _filesystems:
            try:
                _filesystems[key] = _made_filesystem(kind)
            except ImportError as error:
                raise InputError(
                    f'images from {kind}:// need the package {_PACKAGES[kind]}; run pip install "fastcomus[remote]".'
                ) from error
            except Exception as error:  # of a library that looks for credentials
                raise InputError(
                    f"{kind}:// cannot be used ({_diagnosis(error)[1]}); check your credentials and settings."
                ) from None
        return _filesystems[key]


def _made_filesystem(kind: str) -> Any:
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if kind == "http":
        import aiohttp

        limits = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
        # Proxies and ~/.netrc as for every program.
        files = fsspec.filesystem(kind, client_kwargs={"timeout": limits, "trust_env": True}, **options)
        _run(files, files.set_session())  # now: two threads would each make one
        return files
    if kind == "s3":
        times = {"connect_timeout": CONNECT_SECONDS, "read_timeout": STALL_SECONDS, "retries": {"max_attempts": 0}}
        files = fsspec.filesystem(kind, config_kwargs=times, **options)
        files.retries = 1  # ours come on top
        return files
    if kind == "gs":
        return fsspec.filesystem(kind, requests_timeout=REQUEST_SECONDS, **options)
    return fsspec.filesystem(kind)


def _run(files: Any, work: Any) -> Any:
    """The result of a coroutine, in the thread that fsspec does all its network work in."""
    from fsspec.asyn import sync

    async def awaited() -> Any:
        return await work

    return sync(files.loop, awaited)


# -- buckets ---------------------------------------------------------------------------------------------------


def _in_bucket(files: Any, folder: str) -> dict[str, State | None]:
    base = files._strip_protocol(folder).rstrip("/")
    found = {name: facts for name, facts in files.find(base, detail=True).items() if facts.get("type") != "directory"}
    if not found:
        raise FileNotFoundError(folder)
    return {name[len(base) + 1 :]: _told_state(facts) for name, facts in found.items() if name.startswith(f"{base}/")}


def _told_state(facts: dict[str, Any]) -> State:
    tags = (facts.get(key) for key in ("ETag", "etag", "LastModified", "updated", "mtime", "created"))
    return facts.get("size"), str(next((tag for tag in tags if tag), ""))


def _object_content(files: Any, url: str, most_bytes: int) -> bytes:
    first = min(_FIRST_BYTES, most_bytes + 1)
    try:
        found = files.cat_file(url, start=0, end=first)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception:
        if files.info(url)["size"] == 0:  # of which there is no range
            return b""
        raise
    if len(found) == first:
        size = files.info(url)["size"]
        if size > most_bytes:
            raise _too_large(size, most_bytes)
        found += files.cat_file(url, start=first, end=size) if size > first else b""
    return found


def _too_large(size: int | str, most_bytes: int) -> UnreadableImage:
    return UnreadableImage("too large", f"{size} bytes; {most_bytes} are the most that max_pixels may take")


# -- web servers -----------------------------------------------------------------------------------------------


def _web_state(files: Any, url: str) -> State:
    return _run(files, _asked_state(files, url))


async def _asked_state(files: Any, url: str) -> State:
    async with _request(files, "HEAD", url, {}) as reply:
        if reply.status not in (403, 405, 501):  # these may forbid no more than HEAD
            _check_status(reply, url)
            return _length(reply), _tag(reply)
    async with _request(files, "GET", url, {"Range": "bytes=0-0"}) as reply:
        _check_status(reply, url)
        whole = reply.headers.get("Content-Range", "").rpartition("/")[2]
        return (int(whole) if whole.isdigit() else None) if reply.status == 206 else _length(reply), _tag(reply)


def _web_content(files: Any, url: str, most_bytes: int) -> bytes:
    return _run(files, _fetched(files, url, most_bytes))


async def _fetched(files: Any, url: str, most_bytes: int, place: tuple[int, int] | None = None, tag: str = "") -> bytes:
    """A whole file of `most_bytes` at most, or the range `place` (offset, length) of one."""
    wanted = {} if place is None else {"Range": f"bytes={place[0]}-{place[0] + place[1] - 1}"}
    async with _request(files, "GET", url, wanted) as reply:
        _check_status(reply, url)
        if tag and _tag(reply) and _tag(reply) != tag:
            raise UnreadableImage(LOST, "the file changed since it was listed")
        if place is not None:
            starts = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
            if reply.status != 206 or not starts or int(starts[1]) != place[0]:
                raise UnreadableImage("unreadable", "the server gives no parts of files; download it")
        elif (length := _length(reply)) is not None and length > most_bytes:
            raise _too_large(length, most_bytes)
        parts, held = [], 0
        async for part in reply.content.iter_any():  # bounded whatever the server promised
            held += len(part)
            if held > most_bytes:
                raise _too_large("more", most_bytes)
            parts.append(part)
        return b"".join(parts)


def _linked(files: Any, folder: str) -> dict[str, State | None]:
    """Files that pages below `folder` link to."""
    page = folder if _is_page(folder) else f"{folder}/"
    base = folder.rpartition("/")[0] if _is_page(folder) else folder
    found: dict[str, State | None] = {}
    waiting, seen = [page], {page}
    while waiting:
        page = waiting.pop()
        for link in _links(_web_content(files, page, _LONGEST_PAGE), page):
            name = path_below(link, base)
            if not name:
                continue
            if not name.endswith("/"):
                found[name] = None
            elif link not in seen and name.count("/") <= _DEEPEST_PAGE and len(seen) < _MOST_PAGES:
                seen.add(link)
                waiting.append(link)
    return found


def _is_page(url: str) -> bool:
    return PurePosixPath(url).suffix.lower() in (".html", ".htm")


def _links(page: bytes, url: str) -> list[str]:
    """Where its anchors lead, as whole URLs whose paths are written as `joined` writes them."""
    from html.parser import HTMLParser
    from urllib.parse import unquote, urljoin

    hrefs: list[str] = []

    class Anchors(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            hrefs.extend(value for name, value in attributes if tag == "a" and name == "href" and value)

    Anchors().feed(page.decode(errors="replace"))
    whole = []
    for href in hrefs:
        try:
            link = urljoin(url, href.strip())
        except ValueError:
            continue
        host, slash, path = link.partition("://")[2].partition("/")
        if is_web(link) and slash and "?" not in path and "#" not in path:
            whole.append(joined(f"{scheme(link)}://{host}", unquote(path, errors="surrogateescape")))
    return whole


def _request(files: Any, method: str, url: str, headers: dict[str, str]) -> Any:
    from yarl import URL

    session = files._session
    assert session is not None  # made with the filesystem
    options = dict(files.kwargs)  # what the user's settings of fsspec say
    own = {**options.pop("headers", {}), "Accept-Encoding": "identity", **headers}
    return session.request(method, URL(url, encoded=True), headers=own, **options)


def _check_status(reply: Any, url: str) -> None:
    if reply.status in (404, 410):
        raise FileNotFoundError(url)
    reply.raise_for_status()


def _length(reply: Any) -> int | None:
    told = reply.headers.get("Content-Length", "")
    return int(told) if told.isdigit() else None


def _tag(reply: Any) -> str:
    return reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
