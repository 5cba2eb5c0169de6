"""Cut objects of eight classes out of the photographs in the scikit-image package; nothing is downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from fastcomus.errors import InputError


@dataclass(frozen=True)
class Cutout:
    """An object that was cut out, with an empty margin.

    Attributes:
        colours: (h, w, 3) float32 in [0, 1].
        opacity: (h, w) float32 in [0, 1].
        stands_on_border: Whether the photograph cuts it off below, so that it is placed at the scene's lower border.
        area_range: Its share of the scene where it is alone.
    """

    colours: np.ndarray
    opacity: np.ndarray
    stands_on_border: bool
    area_range: tuple[float, float]


# Outlines in pixels (x, y) of the photograph, drawn by hand within a few pixels; `_snap_to_edges` refines them.
_ASTRONAUT = (
    (234, 15), (206, 23), (188, 37), (164, 52), (154, 70), (155, 91), (164, 110), (171, 120), (174, 131),
    (182, 134), (186, 148), (164, 149), (143, 158), (129, 173), (123, 188), (115, 187), (113, 199),
    (115, 209), (98, 220), (77, 234), (63, 251), (49, 272), (40, 300), (30, 324), (24, 356), (23, 394),
    (26, 431), (23, 450), (28, 483), (33, 511), (511, 511), (509, 465), (497, 452), (495, 436), (488, 413),
    (476, 389), (460, 368), (441, 354), (417, 346), (399, 345), (375, 348), (361, 349), (363, 335),
    (359, 310), (352, 286), (345, 270), (335, 256), (324, 244), (307, 235), (304, 220), (293, 202),
    (277, 185), (256, 174), (258, 162), (266, 145), (268, 136), (277, 134), (286, 123), (295, 108), (302, 89),
    (300, 70), (293, 56), (281, 38), (263, 23), (244, 16),
)  # fmt: skip
_SHUTTLE = (
    (408, 3), (403, 8), (399, 18), (397, 28), (396, 40), (396, 60), (391, 48), (388, 41), (386, 42),
    (384, 50), (381, 62), (380, 95), (378, 130), (378, 183), (370, 191), (362, 200), (357, 210), (354, 222),
    (357, 226), (376, 227), (383, 226), (374, 247), (369, 262), (367, 271), (385, 268), (414, 269),
    (415, 253), (420, 238), (427, 238), (427, 268), (455, 268), (459, 262), (456, 250), (456, 235),
    (455, 212), (455, 190), (456, 130), (456, 70), (452, 55), (448, 45), (444, 41), (440, 48), (437, 52),
    (436, 35), (433, 22), (428, 10), (423, 3),
)  # fmt: skip
_PHOTOGRAPHER = (
    (3, 254), (15, 236), (20, 225), (28, 218), (40, 190), (52, 170), (60, 157), (72, 143), (90, 134),
    (110, 127), (131, 123), (140, 115), (150, 107), (158, 105), (163, 101), (168, 90), (178, 78), (192, 68),
    (205, 65), (222, 66), (236, 74), (248, 81), (258, 92), (267, 103), (269, 115), (266, 124), (262, 132),
    (262, 140), (300, 140), (318, 139), (324, 140), (324, 155), (319, 157), (319, 171), (327, 169),
    (331, 185), (331, 197), (325, 203), (318, 217), (305, 228), (301, 232), (302, 262), (303, 273),
    (290, 282), (275, 292), (260, 303), (245, 313), (233, 309), (220, 303), (207, 295), (202, 300),
    (195, 315), (180, 335), (165, 355), (152, 370), (141, 381), (146, 410), (149, 430), (150, 445), (45, 445),
    (35, 420), (25, 380), (12, 330), (4, 290),
)  # fmt: skip
_PHOTOGRAPHER_GAP = (
    (255, 150), (261, 150), (261, 176), (272, 180), (273, 199), (282, 206), (265, 216), (256, 232),
    (247, 246), (241, 230), (238, 218), (246, 212), (243, 200), (243, 183), (246, 174), (254, 166),
)  # fmt: skip
_TRIPOD = (
    ((288, 205), (298, 205), (299, 445), (288, 445)),
    ((279, 316), (310, 316), (314, 332), (302, 338), (298, 346), (286, 346), (284, 333), (276, 332)),
    ((277, 330), (292, 332), (286, 360), (278, 400), (269, 445), (250, 445), (261, 400), (270, 360)),
    ((307, 330), (314, 330), (338, 380), (370, 445), (362, 445), (331, 380)),
    ((307, 313), (323, 302), (336, 299), (338, 307), (326, 308), (312, 320)),
)  # fmt: skip
_CAT = (
    (49, 1), (62, 1), (76, 3), (130, 12), (220, 17), (300, 12), (345, 3), (372, 1), (395, 1), (388, 14),
    (376, 36), (366, 57), (360, 70), (359, 92), (362, 125), (357, 155), (345, 180), (330, 203), (317, 222),
    (314, 250), (302, 268), (283, 281), (255, 288), (225, 286), (190, 277), (152, 263), (118, 247), (88, 218),
    (62, 183), (47, 152), (41, 122), (36, 90), (35, 60), (41, 30),
)  # fmt: skip
_CUP = (
    (180, 71), (160, 78), (135, 92), (115, 110), (98, 130), (85, 158), (78, 190), (76, 220), (80, 250),
    (90, 280), (104, 305), (123, 330), (148, 350), (180, 367), (212, 379), (245, 386), (285, 390), (325, 388),
    (360, 380), (395, 367), (425, 348), (450, 322), (466, 295), (476, 265), (480, 235), (478, 205),
    (470, 178), (458, 153), (442, 130), (425, 113), (417, 105), (422, 90), (424, 75), (418, 68), (405, 67),
    (396, 72), (381, 53), (357, 34), (330, 23), (295, 18), (271, 18), (244, 24), (216, 38), (197, 55),
    (185, 68),
)  # fmt: skip


# Factors for the grey of the coins: silver, gold, bronze.
_METALS = np.array([(1.0, 1.0, 1.02), (1.0, 0.86, 0.56), (0.92, 0.70, 0.52)], np.float32)


def cut_out_objects() -> dict[str, list[Cutout]]:
    """Return the cut-outs of every class by its name; raise InputError without scikit-image's photographs."""
    astronaut, camera = read_photograph("astronaut.png"), read_photograph("camera.png")
    cat, coffee = read_photograph("chelsea.png"), read_photograph("coffee.png")
    photographer = _snap_to_edges(camera, _draw_polygon_mask(camera, _PHOTOGRAPHER), band_px=4)
    photographer &= ~_snap_to_edges(camera, _draw_polygon_mask(camera, _PHOTOGRAPHER_GAP), band_px=2)
    photographer |= _draw_polygon_mask(camera, *_TRIPOD)
    person = _snap_to_edges(astronaut, _draw_polygon_mask(astronaut, _ASTRONAUT), band_px=5)
    shuttle = _snap_to_edges(astronaut, _draw_polygon_mask(astronaut, _SHUTTLE), band_px=2)
    cup = _snap_to_edges(coffee, _draw_polygon_mask(coffee, _CUP), band_px=5)
    # The blurred fur has no edge to snap to.
    cat_face = _smooth(_draw_polygon_mask(cat, _CAT), 4)
    return {
        "astronaut": [_cut(astronaut, person, stands_on_border=True, area_range=(0.18, 0.40))],
        "cat": [_cut(cat, cat_face)],
        "coin": _cut_out_coins(),
        "cup": [_cut(coffee, cup)],
        "motorcycle": _cut_out_motorcycles(),
        "photographer": [_cut(camera, photographer, stands_on_border=True, area_range=(0.18, 0.36))],
        "retina": [_cut_out_retina()],
        "shuttle": [_cut(astronaut, shuttle)],
    }


def read_photograph(file_name: str) -> np.ndarray:
    """Return a photograph of the scikit-image package, (H, W, 3) float32 in [0, 1]."""
    with Image.open(_find_package_file(file_name)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def _find_package_file(file_name: str) -> Path:
    # Not with skimage.data, which downloads missing files.
    remedy = "install it with pip install scikit-image."
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise InputError(f"the demo's photographs come with scikit-image, which is not installed; {remedy}")
    path = Path(package.origin).parent / "data" / file_name
    if not path.is_file():
        raise InputError(f"the demo needs {file_name}, which the installed scikit-image does not have; {remedy}")
    return path


def _draw_polygon_mask(photograph: np.ndarray, *polygons: Sequence[tuple[int, int]]) -> np.ndarray:
    canvas = Image.new("1", (photograph.shape[1], photograph.shape[0]))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon(list(polygon), fill=1)
    return np.asarray(canvas)


def _snap_to_edges(photograph: np.ndarray, mask: np.ndarray, band_px: int) -> np.ndarray:
    """Move a hand-drawn outline to the strongest edge within `band_px` of it (a watershed), and smooth it."""
    from skimage.segmentation import watershed

    # Distances ignore the photograph's border, so an object that it cuts off is not moved away from it.
    inside_px, outside_px = ndimage.distance_transform_edt(mask), ndimage.distance_transform_edt(~mask)
    off_line_px = inside_px + outside_px - 1
    smooth = ndimage.gaussian_filter(photograph, (1, 1, 0))
    gradient = np.sqrt(ndimage.sobel(smooth, 0) ** 2 + ndimage.sobel(smooth, 1) ** 2).sum(axis=2)
    # A low ridge along the hand-drawn line keeps it where the photograph has no edge.
    gradient += 0.3 * np.exp(-((off_line_px / 1.5) ** 2))
    markers = 1 * (inside_px > band_px) + 2 * (outside_px > band_px)
    labels = np.where(mask, 1, 2)
    band = off_line_px < band_px + 2
    labels[band] = watershed(gradient, markers, mask=band)[band]
    return _smooth(labels == 1, 2)


def _smooth(mask: np.ndarray, sigma_px: float) -> np.ndarray:
    return ndimage.gaussian_filter(mask.astype(np.float32), sigma_px) > 0.5


def _cut(
    photograph: np.ndarray,
    mask: np.ndarray,
    stands_on_border: bool = False,
    area_range: tuple[float, float] = (0.12, 0.36),
) -> Cutout:
    margin_px = 4
    # Shrink the object by half a pixel and extend its colours outwards, so that no old background shows at its edge.
    opacity = np.clip(ndimage.gaussian_filter(mask.astype(np.float32), 1.0) * 2 - 0.9, 0, 1)
    inside = ndimage.binary_erosion(mask, iterations=2, border_value=1)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    nearest = ndimage.distance_transform_edt(~inside[box], return_distances=False, return_indices=True)
    colours = photograph[box][nearest[0], nearest[1]]
    margin = ((margin_px, margin_px), (margin_px, margin_px))
    return Cutout(
        np.pad(colours, (*margin, (0, 0)), mode="edge").astype(np.float32),
        np.pad(opacity[box], margin).astype(np.float32),
        stands_on_border,
        area_range,
    )


def _cut_out_coins() -> list[Cutout]:
    from skimage.segmentation import watershed

    photograph = read_photograph("coins.png")
    grey = photograph[..., 0]
    gradient = np.hypot(ndimage.sobel(grey, 0), ndimage.sobel(grey, 1))
    coins = watershed(gradient, 1 * (grey < 30 / 255) + 2 * (grey > 150 / 255)) == 2
    coins = ndimage.binary_opening(ndimage.binary_fill_holes(coins), iterations=3)
    labels, coin_count = ndimage.label(coins)
    areas_px = ndimage.sum_labels(coins, labels, np.arange(1, coin_count + 1))
    # Only the larger ones, since enlarging the small ones would blur them.
    masks = [_smooth(labels == label + 1, 1.5) for label in np.flatnonzero((areas_px > 1400) & (areas_px < 5000))]
    return [_cut(photograph * metal, mask, area_range=(0.08, 0.22)) for mask in masks for metal in _METALS]


def _cut_out_motorcycles() -> list[Cutout]:
    """Cut out two views of the motorcycle by its disparity: what is nearer than the floor and the wall."""
    left, right = read_photograph("motorcycle_left.png"), read_photograph("motorcycle_right.png")
    disparity_px = np.load(_find_package_file("motorcycle_disp.npz"))["arr_0"].astype(np.float64)
    height, width = disparity_px.shape
    y, x = np.mgrid[:height, :width]
    known = np.isfinite(disparity_px)
    floor = known & (y > 300) & ((x < 90) | (x > 700) | (y > 460))
    coordinates = np.dstack([x, y, np.ones_like(x)])
    plane = np.linalg.lstsq(coordinates[floor], disparity_px[floor], rcond=None)[0]
    disparity_px[~known] = 0
    nearer = (disparity_px > np.maximum(coordinates @ plane + 1.3, 36)) & (x > 85) & (x < 695)
    shift = np.rint(disparity_px).astype(int)
    seen_right = np.zeros_like(nearer)
    seen_right[y[nearer], np.clip(x - shift, 0, width - 1)[nearer]] = True
    return [_cut(view, _solidify(mask)) for view, mask in ((left, nearer), (right, seen_right))]


def _solidify(mask: np.ndarray) -> np.ndarray:
    """Close cracks and small holes, and keep the largest part."""
    mask = ndimage.binary_opening(ndimage.binary_closing(mask, iterations=2))
    labels, part_count = ndimage.label(mask, np.ones((3, 3)))
    largest = 1 + int(np.argmax(ndimage.sum_labels(mask, labels, np.arange(1, part_count + 1))))
    holes, hole_count = ndimage.label(labels != largest)
    hole_areas_px = np.bincount(holes.ravel(), minlength=hole_count + 1)
    filled = (labels == largest) | ((holes > 0) & (hole_areas_px < 60)[holes])
    return _smooth(filled, 1)


def _cut_out_retina() -> Cutout:
    with Image.open(_find_package_file("retina.jpg")) as image:
        small = image.convert("RGB").resize((400, 400), Image.Resampling.BOX)
    photograph = np.asarray(small, np.float32) / 255
    disc = ndimage.binary_fill_holes(photograph[..., 0] > 0.2)
    # The opening removes the small tab at the rim of the disc.
    return _cut(photograph, ndimage.binary_opening(ndimage.binary_erosion(disc, iterations=2), iterations=24))
