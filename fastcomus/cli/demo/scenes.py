"""Make scenes with exact masks: cut-out objects, transformed and lit at random, over photographic textures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from fastcomus.cli.demo.backgrounds import SCENE_HEIGHT_PX, SCENE_WIDTH_PX, collect_textures
from fastcomus.cli.demo.contact_sheet import make_palette_image
from fastcomus.cli.demo.cutouts import Cutout, cut_out_objects
from fastcomus.errors import InputError

CLASS_NAMES = (
    "background", "astronaut", "cat", "coin", "cup", "motorcycle", "photographer", "retina", "shuttle",
)  # fmt: skip
JPEG_QUALITY = 92


def make_scenes(folder: Path, count: int, seed: int, objects: int = 0) -> list[str]:
    """Write scenes of 320 x 240 px with exact masks; the same seed gives the same bytes.

    Every class is the main object of equally many scenes (within one); one scene in eight shows two classes.

    Args:
        folder: Gets images/scene-000.jpg and so on, truth/scene-000.png and so on (8-bit palette class maps, 0
            background, c for class c of `CLASS_NAMES`), and classes.txt (a name per line, background first).
        count: Number of scenes.
        seed: For all random choices.
        objects: Classes that every scene shows, an object of each, up to 3; 0: one, and two in one of eight.

    Returns:
        The file names of the images, in order.

    Raises:
        InputError: For a count below 1, or where scikit-image's photographs are not installed.
    """
    if count < 1:
        raise InputError(f"the demo needs at least one scene, but count is {count}; give a positive number.")
    cutouts = cut_out_objects()
    textures = collect_textures()
    images_folder, truth_folder = folder / "images", folder / "truth"
    for new_folder in (images_folder, truth_folder):
        new_folder.mkdir(parents=True, exist_ok=True)
        for left_over in new_folder.glob("scene-*.*"):
            left_over.unlink()  # of an earlier demo with more scenes
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")

    rng = np.random.default_rng(seed)
    class_count = len(CLASS_NAMES) - 1
    names = []
    main_classes: list[int] = []
    for index in range(count):
        if not main_classes:
            main_classes = rng.permutation(class_count).tolist()
        classes = [main_classes.pop()]
        if objects:
            classes = rng.permutation(class_count)[:objects].tolist()
        elif index % 8 == 5:
            classes.append((classes[0] + int(rng.integers(1, class_count))) % class_count)
        # One generator per scene, so that scenes do not depend on one another.
        scene_rng = np.random.default_rng([seed, index])
        pixels, class_map = _compose_scene(scene_rng, classes, cutouts, textures)
        stem = f"scene-{index:03d}"
        Image.fromarray(pixels).save(images_folder / f"{stem}.jpg", quality=JPEG_QUALITY, subsampling=0)
        make_palette_image(class_map).save(truth_folder / f"{stem}.png")
        names.append(f"{stem}.jpg")
    return names


def _compose_scene(
    rng: np.random.Generator,
    classes: list[int],
    cutouts: dict[str, list[Cutout]],
    textures: list[Callable[[np.random.Generator], np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one object per class; return pixels (240, 320, 3) uint8 and the class map (240, 320) uint8."""
    scene = textures[rng.integers(len(textures))](rng)
    scene = ndimage.gaussian_filter(scene, (*[rng.uniform(0.0, 1.6)] * 2, 0))
    scene = _vary_light(rng, scene, strength=1.0)
    class_map = np.zeros(scene.shape[:2], np.uint8)
    shadow_strength, shadow_shift_px = rng.uniform(0.15, 0.5), rng.integers((2, -8), (9, 9))
    for place, class_index in enumerate(classes):
        choices = cutouts[CLASS_NAMES[class_index + 1]]
        cutout = choices[rng.integers(len(choices))]
        zone = None if len(classes) == 1 else (place, len(classes))
        colours, opacity = _place_cutout(rng, cutout, cutout.area_range if zone is None else (0.08, 0.15), zone)
        shadow = ndimage.shift(ndimage.gaussian_filter(opacity, 5), shadow_shift_px, order=1)
        scene = scene * (1 - shadow_strength * shadow[..., None])
        scene = scene * (1 - opacity[..., None]) + _vary_light(rng, colours, strength=1.0) * opacity[..., None]
        class_map[opacity > 0.5] = class_index + 1
    scene = ndimage.gaussian_filter(scene, (*[rng.uniform(0.0, 0.6)] * 2, 0))
    scene = scene + rng.normal(0, rng.uniform(0.004, 0.018), scene.shape)
    return np.rint(np.clip(scene, 0, 1) * 255).astype(np.uint8), class_map


def _vary_light(rng: np.random.Generator, picture: np.ndarray, strength: float) -> np.ndarray:
    """Change gamma, contrast, brightness and colour cast, and darken the picture towards one side."""
    gamma = np.exp(rng.uniform(-0.25, 0.25) * strength)
    contrast, brightness = 1 + rng.uniform(-0.2, 0.15) * strength, rng.uniform(-0.08, 0.08) * strength
    cast = 1 + rng.uniform(-0.08, 0.08, 3) * strength
    direction, fall_off = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.35) * strength
    y, x = np.mgrid[-1 : 1 : picture.shape[0] * 1j, -1 : 1 : picture.shape[1] * 1j]
    light = 1 + fall_off * (np.cos(direction) * x + np.sin(direction) * y) / np.sqrt(2)
    return ((np.clip(picture, 0, 1) ** gamma - 0.5) * contrast + 0.5 + brightness) * cast * light[..., None]


def _place_cutout(
    rng: np.random.Generator,
    cutout: Cutout,
    area_range: tuple[float, float],
    zone: tuple[int, int] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Scale, rotate, mirror and place an object; return colours (240, 320, 3) and opacity (240, 320).

    `area_range` is its share of the scene; `zone`, a number and how many, keeps it to a part, from the left.
    """
    layers = np.dstack([cutout.colours, cutout.opacity])
    if rng.random() < 0.5:
        layers = layers[:, ::-1]
    degrees = rng.uniform(-35, 35) if not cutout.stands_on_border else rng.uniform(-7, 7)
    stretch = np.exp(rng.uniform(-0.07, 0.07))
    wanted_px = rng.uniform(*area_range) * SCENE_WIDTH_PX * SCENE_HEIGHT_PX
    scale = np.sqrt(wanted_px / cutout.opacity.sum())
    room_px = SCENE_WIDTH_PX if zone is None else int((0.56 if zone[1] == 2 else 0.4) * SCENE_WIDTH_PX)
    turned = _turn_layers(layers, scale, stretch, degrees)
    fit = min(0.95 * room_px / turned.shape[1], 0.95 * SCENE_HEIGHT_PX / turned.shape[0])
    if fit < 1:
        turned = _turn_layers(layers, scale * fit, stretch, degrees)
    height_px, width_px = turned.shape[:2]
    left = int(rng.uniform(0.03, 0.97) * (room_px - width_px))
    if zone is not None:
        left += zone[0] * (SCENE_WIDTH_PX - room_px) // (zone[1] - 1)
    if cutout.stands_on_border:
        # The lower edge, where the photograph ended, lies outside the scene.
        top = SCENE_HEIGHT_PX - int(height_px * rng.uniform(0.82, 0.95))
    else:
        top = int(rng.uniform(0.03, 0.97) * (SCENE_HEIGHT_PX - height_px))
    canvas = np.zeros((SCENE_HEIGHT_PX + height_px, SCENE_WIDTH_PX, 4), np.float32)
    canvas[top : top + height_px, left : left + width_px] = turned
    return canvas[:SCENE_HEIGHT_PX, :, :3], canvas[:SCENE_HEIGHT_PX, :, 3]


def _turn_layers(layers: np.ndarray, scale: float, stretch: float, degrees: float) -> np.ndarray:
    """Resize (h, w, 4) layers (width times `stretch`, height divided by it), rotate them, and trim empty margins."""
    size = round(layers.shape[1] * scale * stretch), round(layers.shape[0] * scale / stretch)
    result = []
    for layer in range(4):
        image = Image.fromarray(np.ascontiguousarray(layers[..., layer]))
        image = image.resize(size, Image.Resampling.LANCZOS)
        # The empty margin of a cut-out keeps the black corners of the rotated picture away from the object.
        result.append(np.asarray(image.rotate(degrees, Image.Resampling.BICUBIC, expand=True)))
    turned = np.clip(np.dstack(result), 0, 1)
    rows, columns = (np.flatnonzero((turned[..., 3] > 0.02).any(axis=axis)) for axis in (1, 0))
    return turned[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
