"""Masks as files: names, palette, PNG."""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

_LONGEST_NAME = 255  # bytes of a file name, on every common file system


def encode_class_map(class_map: np.ndarray) -> bytes:
    """PNG bytes of a class map: palette where every label is at most 254 (tools read 255 as void), else 16-bit grey."""
    stream = io.BytesIO()
    if int(class_map.max(initial=0)) <= 254:
        picture = Image.fromarray(class_map.astype(np.uint8), mode="L")
        picture.putpalette(make_voc_palette().tobytes())
    else:
        picture = Image.fromarray(class_map.astype(np.uint16))
    picture.save(stream, format="PNG")
    return stream.getvalue()


def get_mask_path(folder: str, image: str) -> str:
    """Where the mask of `image` lies: after its whole file name, so that a.jpg and a.png do not collide."""
    return f"{folder}/masks/{get_mask_file_name(image)}"


def get_mask_file_name(image: str) -> str:
    """`image`.png; where that is too long for a file name, a digest stands for the end of the image's name."""
    folder, slash, name = image.rpartition("/")
    name_bytes = name.encode()
    if len(name_bytes) + len(".png") > _LONGEST_NAME:
        digest = hashlib.sha1(name_bytes).hexdigest()[:16]
        name = name_bytes[: _LONGEST_NAME - len(f"~{digest}.png")].decode(errors="ignore") + f"~{digest}"
    return f"{folder}{slash}{name}.png"


def make_voc_palette() -> np.ndarray:
    """(256, 3) uint8: PASCAL VOC's colours, background black."""
    labels = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours
