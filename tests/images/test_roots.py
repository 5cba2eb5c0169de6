"""An image that only gives out its bytes is read as the file of the same bytes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hostile_files import KINDS, good_file

from fastcomus.images.found import UnreadableImage
from fastcomus.images.reading import read_image
from fastcomus.images.roots import StoredImage

MAX_PIXELS = 2_000_000


@dataclass(frozen=True)
class Held(StoredImage):
    held: bytes
    most: list[int]

    def read_encoded(self, most_bytes: int) -> bytes:
        self.most.append(most_bytes)
        return self.held

    def __str__(self) -> str:
        return "held"


def outcome(place: Path | StoredImage) -> np.ndarray | tuple[str, str]:
    try:
        return read_image(place, MAX_PIXELS)
    except UnreadableImage as error:
        return error.reason, error.detail


@pytest.mark.parametrize("kind", [good_file, *dict.fromkeys(KINDS)], ids=lambda kind: kind.__name__)
def test_bytes_are_read_as_the_file_is(kind, tmp_path: Path) -> None:
    for seed in range(8):
        ending, content = kind(random.Random(seed))
        file = tmp_path / f"{seed}.{ending}"
        file.write_bytes(content)
        stored = Held(content, [])
        from_file, from_bytes = outcome(file), outcome(stored)
        assert isinstance(from_file, np.ndarray) == (not isinstance(from_bytes, tuple))
        assert np.array_equal(from_file, from_bytes)
        assert stored.most == [8 * MAX_PIXELS]  # asked once, with a bound
