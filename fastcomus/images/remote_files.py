"""Files behind URLs, through fsspec: listed, looked up and read within limits of time and bytes.

A request that fails for a reason that may pass is repeated. One that fails for good raises UnreadableImage(LOST), so
that the next run asks again; its detail holds no addresses, nor anything else that might reveal credentials.
"""

from __future__ import annotations

from typing import Any

from fastcomus.errors import InputError
from fastcomus.images.addresses import is_web
from fastcomus.images.found import LOST, UnreadableImage
from fastcomus.images.remote_bucket import fetch_object, list_bucket, parse_state
from fastcomus.images.remote_client import State, retry
from fastcomus.images.remote_web import fetch_web_content, fetch_web_state, find_linked_files


def fetch_state(url: str) -> State:
    """Return size and ETag (or date) of a file. Raises UnreadableImage."""
    return retry(url, lambda files: fetch_web_state(files, url) if is_web(url) else parse_state(files.info(url)))


def fetch_content(url: str, most_bytes: int) -> bytes:
    """Return all of a file. Raises UnreadableImage, such as "too large" after fetching at most `most_bytes` bytes."""
    return retry(
        url,
        lambda files: (
            fetch_web_content(files, url, most_bytes) if is_web(url) else fetch_object(files, url, most_bytes)
        ),
    )


def read_range(url: str, offset: int, length: int, tag: str) -> bytes:
    """Return a part of a file.

    Args:
        url: The address.
        offset: Where the part begins, in bytes.
        length: How many bytes it has.
        tag: The ETag or date that the file had when it was listed.

    Raises:
        UnreadableImage: LOST also where the file changed or ends too early.
    """

    def read(files: Any) -> bytes:
        found: bytes
        if is_web(url):
            found = fetch_web_content(files, url, length, (offset, length), tag)
        else:
            found = files.cat_file(url, start=offset, end=offset + length)
        if len(found) < length:
            raise UnreadableImage(LOST, "the file ends too early")
        return found

    return retry(url, read)


def list_remote_files(folder: str) -> dict[str, State | None]:
    """List the files below a URL at any depth.

    Args:
        folder: The address of a folder. Behind http this is a page of links, as web servers show a folder, or a page
            that ends in .html; links that lead elsewhere are not followed.

    Returns:
        The files' states by their path below `folder`; None where the listing does not tell it.

    Raises:
        InputError: There is nothing to list.
    """
    try:
        return retry(folder, lambda files: (find_linked_files if is_web(folder) else list_bucket)(files, folder))
    except UnreadableImage as error:
        raise InputError(
            f"{folder} cannot be listed ({error.detail}); check the address, the network and your credentials."
        ) from None
