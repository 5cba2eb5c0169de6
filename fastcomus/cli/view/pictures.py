"""Thumbnails of objects: those of the report, and others made when the page asks for them."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
from PIL import Image

from fastcomus.errors import InputError
from fastcomus.images.found import UnreadableImage
from fastcomus.report.image_files import crop_thumbnail, encode_jpeg, get_thumbnail_file
from fastcomus.run.contents import open_image_source
from fastcomus.run.run import Run
from fastcomus.store.objects_table import decode_mask, read_objects_fingerprint, read_shards


class Thumbnails:
    """The thumbnails of a run's objects."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # By the fingerprint of the objects: after another embed the same row is another object.
        self._read = functools.lru_cache(maxsize=4096)(self._draw)
        self._read_objects = functools.lru_cache(maxsize=1)(self._read_shards)

    def read(self, row: int) -> bytes:
        """Return the JPEG of an object.

        Raises:
            InputError: If there is no such object, or its image cannot be read.
        """
        file = self._run.folder.resolve_file(f"report/{get_thumbnail_file(row)}")
        return file.read_bytes() if file.exists() else self._read(row, read_objects_fingerprint(self._run.folder))

    def _draw(self, row: int, fingerprint: str) -> bytes:
        objects, at = self._read_objects(fingerprint), self._run.workplace
        if not 0 <= row < len(objects):
            raise InputError(f"there is no object {row}.")
        own = objects.slice(row, 1).to_pylist()[0]
        try:
            pixels = at.backend.decode(self._root / own["image"], at.config.embed.max_pixels)
        except UnreadableImage as error:
            raise InputError(f"{own['image']}: {error}") from error
        mask = decode_mask(own["mask"], own["height"], own["width"])
        box = np.array([own[side] for side in ("x0", "y0", "x1", "y1")])
        return encode_jpeg(crop_thumbnail(Image.fromarray(pixels), box, mask))

    def _read_shards(self, fingerprint: str) -> pa.Table:
        return read_shards(self._run.folder, ["image", "width", "height", "x0", "y0", "x1", "y1", "mask"])

    @functools.cached_property
    def _root(self):  # type: ignore[no-untyped-def]
        return open_image_source(self._run.workplace).root
