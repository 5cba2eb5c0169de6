"""Drawn images with maps, and what two backends find in them compared."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from fastcomus.backends.interface import FoundObjects


def assert_same_objects(found: list[FoundObjects], expected: list[FoundObjects]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.run_lengths == other.run_lengths and one.too_small == other.too_small
        for name in ("boxes", "areas", "scores"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert mine.dtype == theirs.dtype and mine.shape == theirs.shape and np.allclose(mine, theirs, atol=1e-5)
        assert one.crops.shape == other.crops.shape and one.crops.dtype == torch.uint8
        assert not one.crops.numel() or (one.crops.cpu().int() - other.crops.int()).abs().max() <= 2


@st.composite
def seen_images(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images of any sizes with up to three maps each, at their size; of few levels, so that thresholds are hit."""
    images, maps = [], []
    for _ in range(draw(st.integers(0, 4))):
        shape = draw(st.integers(1, 30)), draw(st.integers(1, 30))
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        images.append(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
        levels = draw(st.sampled_from([1, 2, 8, 255]))
        own = np.rint(rng.random((draw(st.integers(0, 3)), *shape), np.float32) * levels) / levels
        maps.append(own.astype(np.float32))
    return images, maps
