"""Addresses of images on the network: which are accepted, how they are written, and that none carries a secret."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote, urlsplit

from fastcomus.errors import InputError, escape_invalid_utf8

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
SCHEMES = ("http", "https", "s3", "gs", "memory")
_IN_A_PATH = "/:@!$&'()*+,;=~-._"  # what stands in the path of a URL as it is


def is_url(text: str) -> bool:
    """Whether `text` begins with a scheme and ://."""
    return _URL.match(text) is not None


def parse_scheme(url: str) -> str:
    """Return the scheme of a URL in lower case."""
    return url.partition("://")[0].lower()


def is_web(url: str) -> bool:
    """Whether a URL is of http or https."""
    return parse_scheme(url) in ("http", "https")


def check_no_secrets(url: str) -> None:
    """Raise InputError, which does not repeat them, if a URL has a user, password or query, as they may be secrets."""
    host = url.partition("://")[2].partition("/")[0]
    shown = f"{parse_scheme(url)}://{host.rpartition('@')[2].partition('?')[0]}"
    if "@" in host:
        raise InputError(
            f"the address at {shown} carries a user or a password, which run.json would remember; leave them out: "
            "fastcomus takes them from ~/.netrc for http, and from the usual settings of S3 and Google Cloud."
        )
    if is_web(url) and ("?" in url or "#" in url):
        raise InputError(
            f"the address at {shown} carries a query or a fragment, which may be a secret and run.json would remember; "
            "give an address without."
        )


def normalise_url(text: str) -> str:
    """Return a URL as run.json stores it; the network is not used.

    Args:
        text: The address as a user gave it.

    Returns:
        The address without a slash at its end, its path percent-encoded where needed.

    Raises:
        InputError: The scheme is another, the address holds a secret, or FASTCOMUS_OFFLINE forbids the network.
    """
    check_no_secrets(text)
    shown = escape_invalid_utf8(text)[:200]
    if parse_scheme(text) not in SCHEMES or "::" in text:
        raise InputError(f"images come from s3://, gs://, http:// and https:// addresses; got {shown}.")
    if parse_scheme(text) != "memory" and os.environ.get("FASTCOMUS_OFFLINE") == "1":
        raise InputError(
            f"{shown} lies on the network, which FASTCOMUS_OFFLINE forbids; unset it, or give images of this machine."
        )
    _, _, path = text.partition("://")
    host, _, path = path.partition("/")
    if not host and parse_scheme(text) != "memory":
        raise InputError(f"{shown} names no {'host' if is_web(text) else 'bucket'}; give SCHEME://NAME/PATH.")
    path = quote(path, safe=_IN_A_PATH + "%{}[]", errors="surrogateescape") if is_web(text) else path
    return f"{parse_scheme(text)}://{host}/{path}".rstrip("/") if path else f"{parse_scheme(text)}://{host}"


def join_address(folder: str, name: str) -> str:
    """Return the address of a file.

    Args:
        folder: A URL, a path, or "https://" alone, where names begin with a host.
        name: Path of the file below `folder`.
    """
    slash = "" if folder.endswith("://") else "/"
    return f"{folder}{slash}{quote(name, safe=_IN_A_PATH, errors='surrogateescape') if is_web(folder) else name}"


def find_path_below(url: str, folder: str) -> str:
    """Return `name` of what `join_address(folder, name)` gave; "" for a URL that lies elsewhere or has a query."""
    start = folder if folder.endswith("://") else f"{folder}/"
    if not url.startswith(start):
        return ""
    rest = url[len(start) :]
    if not is_web(folder):
        return rest
    return "" if urlsplit(url).query or urlsplit(url).fragment else unquote(rest, errors="surrogateescape")
