"""Photographic textures for the scenes, from photographs inside scikit-image that show no object."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from fastcomus.cli.demo.cutouts import read_photograph

SCENE_WIDTH_PX, SCENE_HEIGHT_PX = 320, 240


def collect_textures() -> list[Callable[[np.random.Generator], np.ndarray]]:
    """Return functions that each draw a random background, (240, 320, 3) float32 in [0, 1]."""
    astronaut, camera, coffee = (read_photograph(f"{name}.png") for name in ("astronaut", "camera", "coffee"))
    grass, gravel, brick = (read_photograph(f"{name}.png") for name in ("grass", "gravel", "brick"))
    garage, rocket = read_photograph("motorcycle_left.png"), read_photograph("rocket.jpg")
    stars = read_photograph("hubble_deep_field.jpg")
    sky = ndimage.gaussian_filter(camera[0:110, 300:512], (3, 3, 0))
    greens = (((0.05, 0.10, 0.02), (0.75, 0.85, 0.45)), ((0.10, 0.10, 0.03), (0.85, 0.80, 0.50)))
    sands = (((0.15, 0.12, 0.10), (0.90, 0.85, 0.78)), ((0.10, 0.11, 0.13), (0.85, 0.88, 0.92)))
    bricks = (((0.22, 0.10, 0.07), (0.85, 0.62, 0.50)), ((0.20, 0.18, 0.17), (0.85, 0.82, 0.78)))
    skies = (((0.15, 0.30, 0.55), (0.75, 0.88, 1.00)), ((0.45, 0.40, 0.45), (1.00, 0.92, 0.85)))
    return [
        lambda rng: _crop(rng, _tint(rng, grass, greens), (0.45, 0.75)),
        lambda rng: _crop(rng, _tint(rng, grass, greens), (0.45, 0.75)),
        lambda rng: _crop(rng, _tint(rng, gravel, sands), (0.45, 0.75)),
        lambda rng: _crop(rng, _tint(rng, brick, bricks), (0.45, 0.75)),
        lambda rng: _crop(rng, coffee[0:400, 484:600], (0.2, 0.27), turned=True),
        lambda rng: _crop(rng, garage[455:500, :], (0.09, 0.14)),
        lambda rng: _crop(rng, _tint(rng, camera[300:510, 400:512], greens), (0.3, 0.45)),
        lambda rng: _crop(rng, _tint(rng, sky, skies), (0.15, 0.21)),
        lambda rng: _crop(rng, rocket[0:115, 190:420], (0.3, 0.45)),
        lambda rng: _crop(rng, astronaut[20:230, 305:352], (0.12, 0.2), turned=True),
        lambda rng: _crop(rng, stars, (0.5, 1.0)),
        lambda rng: _blur(rng, _crop(rng, garage[60:240, 500:741], (0.22, 0.34))),
        lambda rng: _blur(rng, _crop(rng, garage[60:300, 0:90], (0.2, 0.3))),
    ]


def _blur(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(picture, (*[rng.uniform(4, 9)] * 2, 0))


def _tint(rng: np.random.Generator, grey: np.ndarray, ramps: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Colour a grey photograph by a ramp from a dark to a light colour."""
    dark, light = (np.asarray(colour, np.float32) for colour in ramps[int(rng.integers(len(ramps)))])
    low, high = np.percentile(grey, (1, 99))
    return dark + np.clip((grey - low) / (high - low), 0, 1) * (light - dark)


def _crop(
    rng: np.random.Generator, texture: np.ndarray, height_share: tuple[float, float], turned: bool = False
) -> np.ndarray:
    """Cut a random 4:3 part, `height_share` of 512 px high; a texture that is too small is continued mirrored."""
    if turned and rng.random() < 0.5:
        texture = texture.transpose(1, 0, 2)
    height_px = round(512 * rng.uniform(*height_share))
    width_px = height_px * SCENE_WIDTH_PX // SCENE_HEIGHT_PX
    missing_rows, missing_columns = max(0, height_px - texture.shape[0]), max(0, width_px - texture.shape[1])
    texture = np.pad(texture, ((0, missing_rows), (0, missing_columns), (0, 0)), mode="symmetric")
    top = rng.integers(texture.shape[0] - height_px + 1)
    left = rng.integers(texture.shape[1] - width_px + 1)
    part = texture[top : top + height_px, left : left + width_px]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    return _resize_picture(part, SCENE_WIDTH_PX, SCENE_HEIGHT_PX)


def _resize_picture(picture: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    image = Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.resize((width_px, height_px), Image.Resampling.LANCZOS), np.float32) / 255
