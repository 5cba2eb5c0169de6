"""Checks that files are still what was written, by digests in JSON and safetensors and the checksums of PNG and zip.

Small files carry their SHA-256 or have it in their stage's manifest; masks, as numerous as images, rely on the
checksums of PNG. Checking costs less than reading the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fastcomus.errors import get_first_line

if TYPE_CHECKING:
    import torch

SEAL = "sha256"  # the key, in a sealed JSON object, of the digest of all others
TENSOR_SEAL = "fastcomus_sha256"  # the key in the JSON in the metadata of a safetensors file


class Damaged(ValueError):  # noqa: N818 - named after what was found
    """A file is not what was written; the message is one line that fits into a sentence."""


def seal_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` with a digest of itself under the key SEAL."""
    return {**value, SEAL: _compute_digest(value)}


def unseal_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `seal_json` was given. Raises Damaged if the digest is missing or wrong."""
    content = {name: one for name, one in value.items() if name != SEAL}
    if SEAL not in value:
        raise Damaged("it carries no digest of itself")
    if value[SEAL] != _compute_digest(content):
        raise Damaged("it is not what was written")
    return content


def compute_file_digest(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def compute_tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 (hex) of names, dtypes, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_sealed_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file. Raises Damaged if they do not match the digest in its metadata."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        seal = _parse_facts(opened.metadata() or {}).get(TENSOR_SEAL)
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dictionary
    if seal is not None and seal != compute_tensor_digest(tensors):  # files of other programs have none
        raise Damaged("it is not what was written")
    return tensors


def read_sealed_facts(file: Path) -> dict[str, Any]:
    """Return what is stored with the digest in the metadata of a safetensors file, without reading the tensors."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return _parse_facts(opened.metadata() or {})


def _parse_facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what our files store in their metadata; empty for files of other programs.

    There is one entry, because safetensors writes several in any order: a JSON object that holds the digest or, in old
    files, the digest alone.
    """
    if TENSOR_SEAL in metadata:
        return dict(metadata)
    for text in metadata.values():
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and TENSOR_SEAL in value:
            return value
    return {}


def check_zip(file: Path) -> None:
    """Raise Damaged if a member of a zip (a torch checkpoint) does not match its checksum, which torch ignores."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise Damaged(f"it is no whole zip: {error}") from error
    if broken is not None:
        raise Damaged(f"the checksum of {broken} is wrong")


def read_checked_png(file: Path) -> np.ndarray:
    """Return the pixels (H, W, ...) of a PNG. Raises Damaged if a checksum is wrong, most of which Pillow ignores."""
    content = file.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            picture.verify()
        with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
            return np.asarray(picture)
    except MemoryError:
        raise
    except Exception as error:  # plugins raise nearly every type there is on damaged files
        raise Damaged(get_first_line(error)) from error


def _compute_digest(value: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(value))  # where every key is a string
    text = json.dumps(as_read, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
