"""A folder whose files are written atomically: beside their place, then renamed, so that each is whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastcomus.errors import InputError, get_first_line
from fastcomus.store.lock import SoleWriter

UNFINISHED = ".unfinished"  # the ending of files that are being written


class Folder:
    """Writes files into one folder. Creating the object touches nothing on disk.

    Names are POSIX paths relative to the folder. Every method that writes raises InputError where the disk does not
    take the file, or where another process holds the folder's lock.

    Attributes:
        path: The folder.
        writer: The lock that keeps other processes from writing here.
        written: The number of files written by this object.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.writer = SoleWriter(self.path)
        self.written = 0

    def __repr__(self) -> str:
        """Say which folder it is."""
        return f"{type(self).__name__}({str(self.path)!r})"

    def resolve_file(self, name: str) -> Path:
        """Return the path of `name`. Raises InputError for a name that leads out of the folder."""
        if is_outside_folder(name):
            raise InputError(f"the name {name!r} leads out of the run folder; rename the file.")
        return self.path / PurePosixPath(name)

    def locate_unfinished(self, name: str) -> Path:
        """Return where `name` is written before it is renamed; short, as `name` may be as long as names can be."""
        target = self.resolve_file(name)
        return target.parent / f"{hashlib.sha1(target.name.encode()).hexdigest()[:16]}{UNFINISHED}"

    @contextmanager
    def replace_file(self, name: str) -> Iterator[Path]:
        """Yield a path to write to, which is renamed to `name` when the block ends and removed when it fails."""
        target = self.resolve_file(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.writer.claim()
            unfinished = self.locate_unfinished(name)
            try:
                yield unfinished
                unfinished.replace(target)
                self.written += 1
            except OSError as error:
                # Some libraries do not say why they could not write; looked at before the space is free again.
                if error.errno is None and _is_full(target.parent):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise build_write_error(target, error) from error

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as indented JSON; bytes of a path that are not UTF-8 stay as they are."""
        with self.replace_file(name) as path:
            text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
            path.write_bytes(text.encode("utf-8", errors="surrogateescape"))

    def write_text(self, name: str, text: str) -> None:
        """Write UTF-8 with the same bytes on every system."""
        with self.replace_file(name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write `content` as it is."""
        with self.replace_file(name) as path:
            path.write_bytes(content)

    def write_tensors(self, name: str, write: Callable[[Path], None]) -> None:
        """Let torch or safetensors write a file by `write(path)`; their errors about the disk become InputError."""
        with self.replace_file(name) as path:
            try:
                write(path)
            except Exception as error:  # RuntimeError by the one, SafetensorError by the other
                if not any(sign in str(error) for sign in ("inline_container", "I/O error", "unexpected pos")):
                    raise
                raise OSError(get_first_line(error)) from error

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write Parquet, compressed, with a checksum for every page."""
        with self.replace_file(name) as path:
            pq.write_table(table, path, compression="zstd", write_page_checksum=True)

    def write_array(self, name: str, array: np.ndarray) -> None:
        """Write an .npy file."""
        with self.replace_file(name) as path, path.open("wb") as stream:
            np.save(stream, array)

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all it holds, if it is there."""
        target = self.path / name
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        except OSError as error:
            raise build_write_error(target, error) from error


def is_outside_folder(name: str, on_windows: bool = os.name == "nt") -> bool:
    """Whether `name` (POSIX, relative) leads out of its folder; on Windows also by a drive or a backslash."""
    path = PureWindowsPath(name) if on_windows else PurePosixPath(name)
    return bool(path.anchor) or ".." in path.parts


def build_write_error(target: Path, error: OSError) -> InputError:
    """Return what a user is told when `target` cannot be written."""
    reason = os.strerror(error.errno) if error.errno else error  # Arrow's own words hide it
    return InputError(f"{target} cannot be written ({reason}); free space or choose another --run.")


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < 2**20
    except OSError:
        return False
