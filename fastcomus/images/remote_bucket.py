"""Files in buckets (s3://, gs://): listing them, their state, their content."""

from __future__ import annotations

from typing import Any

from fastcomus.images.remote_client import State, build_size_error

_FIRST_BYTES = 2**22  # of a file whose size is not known: nearly every image is smaller


def list_bucket(files: Any, folder: str) -> dict[str, State | None]:
    """Return the state of every file below a URL, by its path there. Raises FileNotFoundError where there is none."""
    found = {name: facts for name, facts in files.find(folder, detail=True).items() if facts["type"] != "directory"}
    if not found:
        raise FileNotFoundError(folder)
    start = f"{folder.partition('://')[2].strip('/')}/"
    paths = ((name.removeprefix("/"), facts) for name, facts in found.items())  # fsspec's memory has a slash in front
    return {path.removeprefix(start): parse_state(facts) for path, facts in paths if path.startswith(start)}


def parse_state(facts: dict[str, Any]) -> State:
    """Return the size and the version of a file from the dictionary that fsspec's `info` or `find` give for it."""
    tags = (facts.get(key) for key in ("ETag", "etag", "LastModified", "updated", "mtime", "created"))
    return facts.get("size"), str(next((tag for tag in tags if tag), ""))


def fetch_object(files: Any, url: str, most_bytes: int) -> bytes:
    """Return all of a file. Raises UnreadableImage where it has more than `most_bytes`, which are not fetched then."""
    first = min(_FIRST_BYTES, most_bytes + 1)
    try:
        found: bytes = files.cat_file(url, start=0, end=first)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception:
        if files.info(url)["size"] == 0:  # of which there is no range
            return b""
        raise
    if len(found) == first:
        size = files.info(url)["size"]
        if size > most_bytes:
            raise build_size_error(size, most_bytes)
        found += files.cat_file(url, start=first, end=size) if size > first else b""
    return found
