"""Files behind URLs, through fsspec: listed, looked up and read within bounds of time and bytes.

Every request is repeated when it fails for a reason that may pass. What fails for good is UnreadableImage(LOST), so
that the next run asks again; its detail holds neither addresses nor anything else that a server or library might say of
credentials.
"""

from __future__ import annotations

from typing import Any

from fastcomus.errors import InputError
from fastcomus.images.addresses import is_web
from fastcomus.images.found import LOST, UnreadableImage
from fastcomus.images.remote_bucket import _fetch_object, _list_bucket, _parse_state
from fastcomus.images.remote_client import State, _retry, _run
from fastcomus.images.remote_web import _fetch_web_content, _fetch_web_state, _find_linked_files, _request_content


def fetch_state(url: str) -> State:
    """Raises UnreadableImage."""
    return _retry(url, lambda files: _fetch_web_state(files, url) if is_web(url) else _parse_state(files.info(url)))


def fetch_content(url: str, most_bytes: int) -> bytes:
    """All of a file. Raises UnreadableImage, "too large" where it is longer: then no more than that is fetched."""
    return _retry(url, lambda files: (_fetch_web_content if is_web(url) else _fetch_object)(files, url, most_bytes))


def read_range(url: str, offset: int, length: int, tag: str) -> bytes:
    """`length` bytes from `offset` on. Raises UnreadableImage, LOST as well where the file is not that of `tag`."""

    def read(files: Any) -> bytes:
        if is_web(url):
            found = _run(files, _request_content(files, url, length, (offset, length), tag))
        else:
            found = files.cat_file(url, start=offset, end=offset + length)
        if len(found) < length:
            raise UnreadableImage(LOST, "the file ends too early")
        return found

    return _retry(url, read)


def list_remote_files(folder: str) -> dict[str, State | None]:
    """The files below a URL at any depth, by their path there; None where only asking for each tells its state.

    Behind http a folder is a page with links (as web servers make of folders), or one that ends in .html; links that
    lead elsewhere are not followed. Raises InputError where there is nothing to list.
    """
    try:
        return _retry(folder, lambda files: (_find_linked_files if is_web(folder) else _list_bucket)(files, folder))
    except UnreadableImage as error:
        raise InputError(
            f"{folder} cannot be listed ({error.detail}); check the address, the network and your credentials."
        ) from None
