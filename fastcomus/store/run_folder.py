"""The run folder on disk: names, atomic writes, manifests, what is done and what is stale.

Everything in it is written beside its place and renamed, so a file is whole or absent. A stage ends by writing its
manifest (`manifest.json`), which holds a fingerprint: the stage's settings and a digest of its input. A stage whose
manifest holds today's fingerprint is up to date. Nothing here depends on the clock, so equal runs give equal bytes.
What was changed or cut since it was written is told when it is read (`integrity.py`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fastcomus.errors import InputError, get_first_line
from fastcomus.store.integrity import Damaged, compute_file_digest, read_checked_png, seal_json
from fastcomus.store.lock import LOCK_FILES, SoleWriter
from fastcomus.store.masks import encode_class_map
from fastcomus.store.objects_table import _name_part
from fastcomus.store.sealed_json import _unseal, read_json, read_sealed

Read = TypeVar("Read")
FORMAT = 2
_UNFINISHED = ".unfinished"


class RunFolder:
    """Paths and files of one run. Creating the object touches nothing on disk."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.writer = SoleWriter(self.path)
        self.written = 0  # files, by this object

    # -- run.json ----------------------------------------------------------------------------------------------

    def read_state(self) -> dict[str, Any] | None:
        """What run.json holds, or None for a folder where no run was started.

        Raises InputError for a folder of another format version, or one that is not a run folder.
        """
        file = self.path / "run.json"
        try:
            if not file.exists():
                if self.path.exists() and (not self.path.is_dir() or any(self._list_visible(self.path))):
                    raise InputError(
                        f"{self.path} exists and is not a run folder (it has no run.json); choose another --run."
                    )
                return None
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be used ({error.strerror or error}); choose another --run."
            ) from error
        state = read_json(file, "choose another --run, or delete the whole folder")
        if state.get("format") != FORMAT:
            raise InputError(
                f"{self.path} was written in format {state.get('format')!r} and this fastcomus reads format {FORMAT}; "
                "choose another --run, or use the fastcomus that made it."
            )
        state = _unseal(file, state, "choose another --run, or delete the whole folder")
        if not isinstance(state.get("config"), dict) or not isinstance(state.get("images"), str):
            raise InputError(f"{file} lacks its settings; choose another --run, or delete the whole folder.")
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        self.write_json("run.json", seal_json({"format": FORMAT, **state}))

    # -- stages ------------------------------------------------------------------------------------------------

    def read_manifest(self, stage: str) -> dict[str, Any] | None:
        """The manifest of a finished stage (`objects`, `clusters`, `iteration-1`, ...), or None."""
        file = self.path / stage / "manifest.json"
        return read_sealed(file) if file.exists() else None

    def is_current(self, stage: str, fingerprint: str) -> bool:
        manifest = self.read_manifest(stage)
        return manifest is not None and manifest.get("fingerprint") == fingerprint

    def finish(self, stage: str, fingerprint: str, **facts: Any) -> None:
        """Declare `stage` done. What `begin` wrote becomes the manifest, in one step: a kill leaves one of them."""
        self._drop_unfinished(stage)
        tables = sorted(path for ending in ("parquet", "npy") for path in (self.path / stage).glob(f"*.{ending}"))
        digests = {path.name: compute_file_digest(path) for path in tables if not path.name.startswith("part-")}
        if digests:
            facts["files"] = digests
        self.write_json(f"{stage}/started.json", seal_json({"fingerprint": fingerprint, **facts}))
        started, manifest = (self.path / stage / name for name in ("started.json", "manifest.json"))
        try:
            os.replace(started, manifest)
        except OSError as error:
            raise _build_write_error(manifest, error) from error

    def begin(self, stage: str, fingerprint: str, kept: Collection[str] = ()) -> None:
        """Make ready to compute `stage`: keep the leavings of a killed attempt with this fingerprint, drop others.

        Files named in `kept` stay in any case: they say themselves what they were made from.
        """
        folder = self.path / stage
        started = folder / "started.json"
        try:
            self.writer.claim()
            (folder / "manifest.json").unlink(missing_ok=True)
            if folder.exists() and not (started.exists() and _is_same_start(started, fingerprint)):
                started.unlink(missing_ok=True)  # first: nothing vouches for what is left by a kill
                for entry in folder.iterdir():
                    if entry.name not in kept:
                        self.remove(f"{stage}/{entry.name}")
        except OSError as error:
            raise _build_write_error(folder, error) from error
        self.write_json(f"{stage}/started.json", seal_json({"fingerprint": fingerprint}))

    def remove(self, name: str) -> None:
        target = self.path / name
        try:
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        except OSError as error:
            raise _build_write_error(target, error) from error

    # -- files -------------------------------------------------------------------------------------------------

    def resolve_file(self, name: str) -> Path:
        """`name` (POSIX, relative) inside the run folder; InputError for a name that would leave it."""
        if is_outside_folder(name):
            raise InputError(f"the name {name!r} leads out of the run folder; rename the file.")
        return self.path / PurePosixPath(name)

    def locate_unfinished(self, name: str) -> Path:
        """Where `name` is written before it is renamed: its own name may be as long as a file name can be."""
        target = self.resolve_file(name)
        return target.parent / f"{hashlib.sha1(target.name.encode()).hexdigest()[:16]}{_UNFINISHED}"

    @contextmanager
    def replace_file(self, name: str) -> Iterator[Path]:
        """A path to write to; renamed to `name` when the block ends, removed when it fails."""
        target = self.resolve_file(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.writer.claim()
            unfinished = self.locate_unfinished(name)
            try:
                yield unfinished
                os.replace(unfinished, target)
                self.written += 1
            except OSError as error:
                # Some libraries do not say why they could not write; looked at before the space is free again.
                if error.errno is None and _is_full(target.parent):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
                raise
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise _build_write_error(target, error) from error

    def write_json(self, name: str, value: Any) -> None:
        with self.replace_file(name) as path:
            # A path may hold bytes that are no UTF-8; they come back from `read_json` as they were.
            text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
            path.write_bytes(text.encode("utf-8", errors="surrogateescape"))

    def write_text(self, name: str, text: str) -> None:
        with self.replace_file(name) as path:
            path.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system

    def write_bytes(self, name: str, content: bytes) -> None:
        with self.replace_file(name) as path:
            path.write_bytes(content)

    def write_tensors(self, name: str, write: Callable[[Path], None]) -> None:
        """A file by `torch.save` or safetensors, whose errors about the disk are made those that all others raise."""
        with self.replace_file(name) as path:
            try:
                write(path)
            except Exception as error:  # RuntimeError by the one, SafetensorError by the other
                if not any(sign in str(error) for sign in ("inline_container", "I/O error", "unexpected pos")):
                    raise
                raise OSError(get_first_line(error)) from error

    def write_table(self, name: str, table: pa.Table) -> None:
        with self.replace_file(name) as path:
            pq.write_table(table, path, compression="zstd", write_page_checksum=True)

    def read_table(self, name: str, columns: list[str] | None = None, digest: str = "") -> pa.Table:
        """`digest`: SHA-256 that the file must have; by default what the manifest of its stage says."""
        self._check_digest(name, digest)
        return self._read_parquet(
            name, lambda file: pq.read_table(file, columns=columns, page_checksum_verification=True)
        )

    def write_array(self, name: str, array: np.ndarray) -> None:
        with self.replace_file(name) as path, path.open("wb") as stream:
            np.save(stream, array)

    def read_array(self, name: str) -> np.ndarray:
        file = self.resolve_file(name)
        self._check_digest(name)
        try:
            return np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{file} cannot be read ({get_first_line(error)}); {self._suggest_mending(name)}."
            ) from error

    # -- objects -----------------------------------------------------------------------------------------------

    def has_shard(self, index: int, fingerprint: str, digest: str = "") -> bool:
        """Whether part `index` is there, whole, and was made from what `fingerprint` says.

        `digest`: its SHA-256 where a manifest knows it, else the checksums of its pages are looked at.
        """
        file = self.resolve_file(_name_part(index))
        try:
            metadata = pq.read_metadata(file).metadata or {}
            if metadata.get(b"fastcomus.fingerprint") != fingerprint.encode():
                return False
            if not digest:
                pq.read_table(file, page_checksum_verification=True)
            return not digest or compute_file_digest(file) == digest
        except (OSError, pa.ArrowException):
            return False

    def read_part_digests(self) -> dict[int, str]:
        """SHA-256 of every part, by its index, where embedding has ended."""
        parts = (self.read_manifest("objects") or {}).get("parts", {})
        return {int(name.removeprefix("part-").removesuffix(".parquet")): digest for name, digest in parts.items()}

    def write_shard(self, index: int, objects: pa.Table, skipped: pa.Table, fingerprint: str) -> None:
        """One Parquet part. The images it skipped travel in its metadata, so that a shard is a single rename."""
        metadata = {"fastcomus.fingerprint": fingerprint, "fastcomus.skipped": json.dumps(skipped.to_pylist())}
        self.write_table(_name_part(index), objects.replace_schema_metadata(metadata))

    def finish_shards(self, count: int, skipped: pa.Table, fingerprint: str) -> None:
        """Write skipped.parquet (`skipped`, then what the shards skipped) and the manifest; drop surplus parts."""
        rows = skipped.to_pylist()
        for index in range(count):
            metadata = pq.read_metadata(self.resolve_file(_name_part(index))).metadata
            rows += json.loads(metadata[b"fastcomus.skipped"])
        wanted = {self.resolve_file(_name_part(index)).name for index in range(count)}
        for part in self.resolve_file("objects").glob("part-*.parquet"):
            if part.name not in wanted:
                self.remove(f"objects/{part.name}")
        self.write_table("objects/skipped.parquet", pa.Table.from_pylist(rows, schema=skipped.schema))
        digests = {name: compute_file_digest(self.resolve_file(f"objects/{name}")) for name in sorted(wanted)}
        self.finish("objects", fingerprint, parts=digests, skipped=len(rows))

    def count_shard_rows(self) -> int:
        """Number of objects, from the parts' metadata alone; InputError when one is damaged."""
        parts = (self.read_manifest("objects") or {}).get("parts", {})
        return sum(self._read_parquet(f"objects/{name}", pq.read_metadata).num_rows for name in parts)

    def read_shards(self, columns: list[str] | None = None) -> pa.Table:
        """The rows of every part, in order; InputError when there are none or one is damaged."""
        return pa.concat_tables(self.iterate_shards(columns))

    def iterate_shards(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The parts, one after the other: the objects of an image all lie in one. InputError as by `read_shards`."""
        manifest = self.read_manifest("objects")
        if manifest is None:
            raise InputError(f"there are no objects in {self.path}; run fastcomus embed FOLDER first.")
        for name, digest in manifest["parts"].items():
            yield self.read_table(f"objects/{name}", columns, digest).replace_schema_metadata(None)

    # -- class maps --------------------------------------------------------------------------------------------

    def write_class_map(self, name: str, class_map: np.ndarray) -> None:
        """`class_map`: (H, W) integers in [0, 65535], as a palette PNG, or 16-bit grey."""
        with self.replace_file(name) as path:
            path.write_bytes(encode_class_map(class_map))

    def write_grey(self, name: str, values: np.ndarray) -> None:
        """`values`: (H, W) uint8, as a grey PNG; `read_class_map` reads it."""
        with self.replace_file(name) as path:
            Image.fromarray(values).save(path, format="PNG")

    def read_class_map(self, name: str) -> np.ndarray:
        """(H, W) uint8 or uint16."""
        file = self.resolve_file(name)
        try:
            return read_checked_png(file)
        except (OSError, Damaged) as error:
            raise InputError(
                f"{file} is not a readable mask ({get_first_line(error)}); {self._suggest_mending(name)}."
            ) from error

    def _read_parquet(self, name: str, read: Callable[[Path], Read]) -> Read:
        file = self.resolve_file(name)
        try:
            return read(file)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{file} cannot be read ({get_first_line(error)}); {self._suggest_mending(name)}."
            ) from error

    def _check_digest(self, name: str, digest: str = "") -> None:
        """Raise InputError where the file `name` is not the one that its stage's manifest speaks of."""
        stage, _, rest = name.partition("/")
        digest = digest or ((self.read_manifest(stage) or {}).get("files", {}).get(rest, "") if rest else "")
        try:
            if digest and compute_file_digest(self.resolve_file(name)) != digest:
                raise Damaged("it is not what was written")
        except (OSError, Damaged) as error:
            raise InputError(
                f"{self.resolve_file(name)} cannot be read ({get_first_line(error)}); {self._suggest_mending(name)}."
            ) from error

    def _suggest_mending(self, name: str) -> str:
        """What to do about the damaged file `name`. Parts of `objects` are looked at one by one, other stages whole."""
        if name.startswith("objects/part-"):
            return "delete it and run fastcomus embed again"
        return f"delete the folder {self.path / PurePosixPath(name).parts[0]} and run what made it again"

    def _drop_unfinished(self, stage: str) -> None:
        """Remove what killed writers left at the top and in `stage`."""
        for leaving in [*self.path.glob(f"*{_UNFINISHED}"), *(self.path / stage).rglob(f"*{_UNFINISHED}")]:
            self.remove(leaving.relative_to(self.path).as_posix())

    @staticmethod
    def _list_visible(folder: Path) -> Iterator[Path]:
        names = (entry for entry in folder.iterdir() if not entry.name.endswith(_UNFINISHED))
        return (entry for entry in names if entry.name not in LOCK_FILES)


def is_outside_folder(name: str, on_windows: bool = os.name == "nt") -> bool:
    """Whether `name` (POSIX, relative) would leave the folder it is laid in: on Windows also by drive or backslash."""
    path = PureWindowsPath(name) if on_windows else PurePosixPath(name)
    return bool(path.anchor) or ".." in path.parts


def _is_same_start(started: Path, fingerprint: str) -> bool:
    try:
        return json.loads(started.read_text(encoding="utf-8")).get("fingerprint") == fingerprint
    except (OSError, ValueError, AttributeError):
        return False


def _build_write_error(target: Path, error: OSError) -> InputError:
    reason = os.strerror(error.errno) if error.errno else error  # Arrow's own words hide it
    return InputError(f"{target} cannot be written ({reason}); free space or choose another --run.")


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < 2**20
    except OSError:
        return False
