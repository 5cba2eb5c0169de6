"""Masks as PNG files: their names, their palette, writing and reading them."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from fastcomus.store.folder import Folder
from fastcomus.store.integrity import read_checked_png
from fastcomus.store.run_folder import RunFolder

_LONGEST_NAME = 255  # bytes of a file name, on every common file system


def write_class_map(folder: Folder, name: str, class_map: np.ndarray) -> None:
    """Write labels, (H, W) integers in [0, 65535], as the PNG that `encode_class_map` makes."""
    with folder.replace_file(name) as path:
        path.write_bytes(encode_class_map(class_map))


def write_grey(folder: Folder, name: str, values: np.ndarray) -> None:
    """Write `values`, (H, W) uint8, as a grey PNG, which `read_class_map` can read."""
    with folder.replace_file(name) as path:
        Image.fromarray(values).save(path, format="PNG")


def read_class_map(folder: RunFolder, name: str) -> np.ndarray:
    """Read a PNG of labels as (H, W) uint8 or uint16. Raises InputError, with what to do, if it is damaged."""
    return folder.read_checked(name, read_checked_png, "is not a readable mask")


def encode_class_map(class_map: np.ndarray) -> bytes:
    """Encode labels as PNG: with VOC's palette up to label 254 (tools read 255 as void), else 16-bit grey.

    Args:
        class_map: (H, W) integers in [0, 65535].
    """
    stream = io.BytesIO()
    if int(class_map.max(initial=0)) <= 254:
        picture = Image.fromarray(class_map.astype(np.uint8), mode="L")
        picture.putpalette(make_voc_palette().tobytes())
    else:
        picture = Image.fromarray(class_map.astype(np.uint16))
    picture.save(stream, format="PNG")
    return stream.getvalue()


def get_mask_path(folder: str, image: str) -> str:
    """Return the name of the mask of `image` in the stage `folder`; a.jpg and a.png do not share one."""
    return f"{folder}/masks/{get_mask_file_name(image)}"


def get_mask_file_name(image: str) -> str:
    """Return `image`.png; if that is too long for a file name, a digest replaces the end of the image's name."""
    folder, slash, name = image.rpartition("/")
    name_bytes = name.encode()
    if len(name_bytes) + len(".png") > _LONGEST_NAME:
        digest = hashlib.sha1(name_bytes).hexdigest()[:16]
        name = name_bytes[: _LONGEST_NAME - len(f"~{digest}.png")].decode(errors="ignore") + f"~{digest}"
    return f"{folder}{slash}{name}.png"


def make_voc_palette() -> np.ndarray:
    """Return PASCAL VOC's colours as (256, 3) uint8; the background is black."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours
