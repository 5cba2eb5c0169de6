"""Connections to remote files: filesystems, timeouts, retries, and errors as sentences."""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastcomus.errors import InputError
from fastcomus.images.addresses import parse_scheme
from fastcomus.images.found import LOST, UnreadableImage

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0  # a server that sends nothing for so long has failed
REQUEST_SECONDS = 300.0
PAUSE_SECONDS = (0.5, 2.0)  # before the second and the third attempt
_PATIENCE = 8  # failed requests in a row after which each gets one attempt only
_MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "gs": "gcsfs"}
Result = TypeVar("Result")
State = tuple[int | None, str]  # size in bytes where it is told, and what else changes with the file: ETag or date


def check_packages(url: str) -> None:
    """Raise InputError if the package that reads such addresses is missing."""
    _get_filesystem(parse_scheme(url))


_failures: dict[str, int] = {}  # requests in a row, by host


def retry(url: str, work: Callable[[Any], Result]) -> Result:
    """Return `work(filesystem)`, tried again after a pause where it fails for a reason that may pass.

    Args:
        url: The address, which tells the filesystem and the host.
        work: Takes fsspec's filesystem for the address.

    Raises:
        UnreadableImage: LOST where all attempts fail, or as `work` raises it.
    """
    host = "/".join(url.split("/")[:3])
    files = _get_filesystem(parse_scheme(url))
    # gcsfs has a patience of its own, which cannot be turned off.
    pauses = () if parse_scheme(url) == "gs" or _failures.get(host, 0) >= _PATIENCE else PAUSE_SECONDS
    for pause in (*pauses, None):
        try:
            found = work(files)
        except UnreadableImage:
            _failures[host] = 0
            raise
        except MemoryError:
            raise
        except Exception as error:  # each library has its own for the same failures
            may_pass, told = _diagnose(error)
            if may_pass and pause is not None:
                time.sleep(pause)
                continue
            _failures[host] = _failures.get(host, 0) + 1 if may_pass else 0
            raise UnreadableImage(LOST, told) from None
        _failures[host] = 0
        return found
    raise AssertionError("the last attempt returns or raises")


def _diagnose(error: Exception) -> tuple[bool, str]:
    """Whether the failure may pass, and one line about it that repeats no address (which might hold secrets)."""
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


_filesystems: dict[tuple[str, int], Any] = {}
_filesystems_lock = threading.Lock()


def _get_filesystem(kind: str) -> Any:
    """Return fsspec's filesystem, one for all threads of this process."""
    kind = "http" if kind == "https" else kind
    key = (kind, os.getpid())  # a forked process needs its own
    with _filesystems_lock:
        if key not in _filesystems:
            try:
                _filesystems[key] = _make_filesystem(kind)
            except ImportError as error:
                raise InputError(
                    f"images from {kind}:// need {_PACKAGES[kind]}; run pip install fsspec {_PACKAGES[kind]}."
                ) from error
            except Exception as error:  # of a library that looks for credentials
                raise InputError(
                    f"{kind}:// cannot be used ({_diagnose(error)[1]}); check your credentials and settings."
                ) from None
        return _filesystems[key]


def _make_filesystem(kind: str) -> Any:
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if kind == "http":
        import aiohttp

        limits = aiohttp.ClientTimeout(total=REQUEST_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
        # Proxies and ~/.netrc as for every program.
        files = fsspec.filesystem(kind, client_kwargs={"timeout": limits, "trust_env": True}, **options)
        run_coroutine(files, files.set_session)  # now: two threads would each make one
        return files
    if kind == "s3":
        times = {"connect_timeout": CONNECT_SECONDS, "read_timeout": STALL_SECONDS, "retries": {"max_attempts": 0}}
        files = fsspec.filesystem(kind, config_kwargs=times, **options)
        files.retries = 1  # ours come on top
        return files
    if kind == "gs":
        return fsspec.filesystem(kind, requests_timeout=REQUEST_SECONDS, **options)
    return fsspec.filesystem(kind)


def run_coroutine(files: Any, work: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any) -> Result:
    """Return the result of `work(*arguments)`, run in the thread in which fsspec does all its network work."""
    from fsspec.asyn import sync

    result: Result = sync(files.loop, work, *arguments)
    return result


def build_size_error(size: int | str, most_bytes: int) -> UnreadableImage:
    """Return what is raised for a file of `size` bytes where `most_bytes` are allowed."""
    return UnreadableImage("too large", f"{size} bytes; {most_bytes} are the most that max_pixels may take")
