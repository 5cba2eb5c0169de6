"""Files behind http:// and https://: pages of links, the state of a file, its content.

Requests go through the aiohttp session of fsspec's HTTP filesystem: its own `info` and `cat_file` hide the status of an
answer (which tells whether to try again) and its ETag, and do not bound what they read.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from fastcomus.images.addresses import find_path_below, is_web, join_address, parse_scheme
from fastcomus.images.found import LOST, UnreadableImage
from fastcomus.images.remote_client import State, build_size_error, run_coroutine

_LONGEST_PAGE = 2**26  # bytes
_MOST_PAGES = 100_000
_DEEPEST_PAGE = 32  # folders below the first


def fetch_web_state(files: Any, url: str) -> State:
    """Return the state of a file, by HEAD or, where the server forbids that, by the headers of GET."""
    return run_coroutine(files, _request_state, files, url)


async def _request_state(files: Any, url: str) -> State:
    async with await _request(files, "HEAD", url, {}) as reply:
        if reply.status not in (403, 405, 501):  # these may forbid no more than HEAD
            _check_status(reply, url)
            return _get_length(reply), _get_tag(reply)
    async with await _request(files, "GET", url, {"Range": "bytes=0-0"}) as reply:
        _check_status(reply, url)
        whole = reply.headers.get("Content-Range", "").rpartition("/")[2]
        return (int(whole) if whole.isdigit() else None) if reply.status == 206 else _get_length(reply), _get_tag(reply)


def fetch_web_content(
    files: Any, url: str, most_bytes: int, place: tuple[int, int] | None = None, tag: str = ""
) -> bytes:
    """Return a file, or a range of it.

    Args:
        files: fsspec's HTTP filesystem.
        url: The address.
        most_bytes: Most bytes to fetch, whatever the server sends.
        place: Offset and length in bytes of the range; None for the whole file.
        tag: The ETag or date that the file must have, if it has one.

    Raises:
        UnreadableImage: The file is too large, is not that of `tag`, or the server gives no ranges.
    """
    return run_coroutine(files, _request_content, files, url, most_bytes, place, tag)


async def _request_content(files: Any, url: str, most_bytes: int, place: tuple[int, int] | None, tag: str) -> bytes:
    wanted = {} if place is None else {"Range": f"bytes={place[0]}-{place[0] + place[1] - 1}"}
    async with await _request(files, "GET", url, wanted) as reply:
        _check_status(reply, url)
        if tag and _get_tag(reply) and _get_tag(reply) != tag:
            raise UnreadableImage(LOST, "the file changed since it was listed")
        if place is not None:
            starts = re.match(r"bytes (\d+)-", reply.headers.get("Content-Range", ""))
            if reply.status != 206 or not starts or int(starts[1]) != place[0]:
                raise UnreadableImage("unreadable", "the server gives no parts of files; download it")
        elif (length := _get_length(reply)) is not None and length > most_bytes:
            raise build_size_error(length, most_bytes)
        parts, held = [], 0
        async for part in reply.content.iter_any():  # bounded whatever the server promised
            held += len(part)
            if held > most_bytes:
                raise build_size_error("more", most_bytes)
            parts.append(part)
        return b"".join(parts)


def find_linked_files(files: Any, folder: str) -> dict[str, State | None]:
    """Return the files that the page `folder` and the pages below it link to, by their path below it; no states."""
    page = folder if _is_page(folder) else f"{folder}/"
    base = folder.rpartition("/")[0] if _is_page(folder) else folder
    found: dict[str, State | None] = {}
    waiting, seen = [page], {page}
    while waiting:
        page = waiting.pop()
        for link in _extract_links(fetch_web_content(files, page, _LONGEST_PAGE), page):
            name = find_path_below(link, base)
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


def _extract_links(page: bytes, url: str) -> list[str]:
    """Return where the anchors of a page lead, as whole URLs whose paths are written as by `join_address`."""
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
            whole.append(join_address(f"{parse_scheme(link)}://{host}", unquote(path, errors="surrogateescape")))
    return whole


async def _request(files: Any, method: str, url: str, headers: dict[str, str]) -> Any:
    from yarl import URL

    session = await files.set_session()  # the one that was made with the filesystem
    options = dict(files.kwargs)  # what the user's settings of fsspec say
    own = {**options.pop("headers", {}), "Accept-Encoding": "identity", **headers}
    return session.request(method, URL(url, encoded=True), headers=own, **options)


def _check_status(reply: Any, url: str) -> None:
    if reply.status in (404, 410):
        raise FileNotFoundError(url)
    reply.raise_for_status()


def _get_length(reply: Any) -> int | None:
    told = reply.headers.get("Content-Length", "")
    return int(told) if told.isdigit() else None


def _get_tag(reply: Any) -> str:
    return reply.headers.get("ETag") or reply.headers.get("Last-Modified") or ""
