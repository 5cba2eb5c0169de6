"""Files in buckets (s3://, gs://): listing them, their state, their content."""

from __future__ import annotations

from typing import Any

from fastcomus.images.remote_client import State, _build_size_error

_FIRST_BYTES = 2**22  # of a file whose size is not known: nearly every image is smaller


def _list_bucket(files: Any, folder: str) -> dict[str, State | None]:
    base = files._strip_protocol(folder).rstrip("/")
    found = {name: facts for name, facts in files.find(base, detail=True).items() if facts.get("type") != "directory"}
    if not found:
        raise FileNotFoundError(folder)
    return {name[len(base) + 1 :]: _parse_state(facts) for name, facts in found.items() if name.startswith(f"{base}/")}


def _parse_state(facts: dict[str, Any]) -> State:
    tags = (facts.get(key) for key in ("ETag", "etag", "LastModified", "updated", "mtime", "created"))
    return facts.get("size"), str(next((tag for tag in tags if tag), ""))


def _fetch_object(files: Any, url: str, most_bytes: int) -> bytes:
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
            raise _build_size_error(size, most_bytes)
        found += files.cat_file(url, start=first, end=size) if size > first else b""
    return found
