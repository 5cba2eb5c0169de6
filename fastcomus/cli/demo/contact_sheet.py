"""Draw a contact sheet: images beside their class maps, one scene per row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from fastcomus.errors import InputError

# Colours of classes: black for background, then these in turn.
_COLOURS = (
    (0, 0, 0), (230, 25, 75), (60, 180, 75), (255, 200, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180),
    (70, 220, 230), (240, 50, 230), (170, 255, 60), (250, 150, 190), (0, 128, 128), (170, 110, 40),
    (128, 0, 0), (128, 128, 0), (0, 0, 128), (170, 255, 195), (220, 190, 255),
)  # fmt: skip


@dataclass(frozen=True)
class SheetRow:
    """One scene of a contact sheet: pixels (H, W, 3) uint8, and one class map (H, W) of integers per column."""

    pixels: np.ndarray
    class_maps: tuple[np.ndarray, ...]


_TEXT_COLOUR = (40, 40, 40)


def choose_class_colours(count: int) -> np.ndarray:
    """Return the colours of `count` classes, (count, 3) uint8; black for background, distinct up to 18."""
    return np.asarray([_COLOURS[i] if i == 0 else _COLOURS[1 + (i - 1) % 17] for i in range(count)], np.uint8)


def make_palette_image(class_map: np.ndarray) -> Image.Image:
    """Return a class map (H, W) uint8 as a palette image in the colours of the classes."""
    image = Image.fromarray(class_map, mode="P")
    image.putpalette(choose_class_colours(256).tobytes())
    return image


def write_contact_sheet(
    path: Path,
    rows: Sequence[SheetRow],
    class_names: Sequence[str],
    column_titles: Sequence[str] = ("image", "truth", "iteration 0", "final"),
    cell_width_px: int = 240,
) -> None:
    """Draw scenes beside their class maps, one row per scene, with a legend of the classes.

    The first column shows the pixels, each further one a class map drawn over them.

    Args:
        path: JPEG or PNG file to write.
        rows: The scenes. Values of class maps are indices into `class_names`; other values are drawn in grey.
        class_names: Background first.
        column_titles: Of the pixels, then of each class map.
        cell_width_px: Width of a picture.

    Raises:
        InputError: Without rows, or for a row without a class map of its height and width for every column.
    """
    if not rows:
        raise InputError("a contact sheet needs at least one scene, but none was given; choose some to show.")
    for row in rows:
        if [m.shape for m in row.class_maps] != [row.pixels.shape[:2]] * (len(column_titles) - 1):
            raise InputError(
                f"a row of the contact sheet needs {len(column_titles) - 1} class maps of the shape "
                f"{row.pixels.shape[:2]}, got {[m.shape for m in row.class_maps]}; give one per column."
            )
    margin_px, gap_px, title_px, legend_line_px = 16, 8, 28, 24
    cell_height_px = max(round(cell_width_px * row.pixels.shape[0] / row.pixels.shape[1]) for row in rows)
    legend_lines = _lay_out_legend(class_names, len(column_titles) * (cell_width_px + gap_px) - gap_px)
    size = (
        2 * margin_px + len(column_titles) * (cell_width_px + gap_px) - gap_px,
        2 * margin_px + title_px + len(rows) * (cell_height_px + gap_px) + legend_line_px * len(legend_lines),
    )
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(column_titles):
        centre_px = margin_px + column * (cell_width_px + gap_px) + cell_width_px // 2
        pen.text((centre_px, margin_px + 6), title, _TEXT_COLOUR, ImageFont.load_default(17), anchor="mm")
    for line, row in enumerate(rows):
        overlays = (_overlay(row.pixels, class_map, len(class_names)) for class_map in row.class_maps)
        cells = [row.pixels, *overlays]
        for column, cell in enumerate(cells):
            image = Image.fromarray(cell)
            image.thumbnail((cell_width_px, cell_height_px), Image.Resampling.LANCZOS)
            left = margin_px + column * (cell_width_px + gap_px)
            top = margin_px + title_px + line * (cell_height_px + gap_px)
            centred = left + (cell_width_px - image.width) // 2, top + (cell_height_px - image.height) // 2
            sheet.paste(image, centred)
    top = size[1] - margin_px - legend_line_px * len(legend_lines) + 8
    for line, entries in enumerate(legend_lines):
        _draw_legend_line(pen, entries, class_names, (margin_px, top + line * legend_line_px))
    sheet.save(path, quality=90, subsampling=0)  # PNG ignores both


def _overlay(pixels: np.ndarray, class_map: np.ndarray, class_count: int) -> np.ndarray:
    """Return a darkened grey picture with objects tinted in the colours of their classes and outlined in white."""
    known = (class_map >= 0) & (class_map < class_count)
    colours_and_grey = np.vstack([choose_class_colours(class_count), [(128, 128, 128)]])
    colours = colours_and_grey[np.where(known, class_map, class_count)]
    grey = pixels.astype(np.float32).mean(axis=2, keepdims=True)
    shown = np.where((class_map == 0)[..., None], 0.45 * grey, 0.30 * grey + 0.70 * colours)
    border = ndimage.grey_dilation(class_map, (3, 3)) != ndimage.grey_erosion(class_map, (3, 3))
    shown[border & (class_map != 0)] = 255
    return np.rint(np.clip(shown, 0, 255)).astype(np.uint8)


def _lay_out_legend(class_names: Sequence[str], width_px: int) -> list[list[int]]:
    lines: list[list[int]] = [[]]
    used_px = 0
    for index in range(1, len(class_names)):
        entry_px = _measure_legend_entry(class_names[index])
        if used_px + entry_px > width_px and lines[-1]:
            lines.append([])
            used_px = 0
        lines[-1].append(index)
        used_px += entry_px
    return lines


def _measure_legend_entry(name: str) -> int:
    return 14 + 6 + round(ImageFont.load_default(14).getlength(name)) + 18


def _draw_legend_line(
    pen: ImageDraw.ImageDraw, entries: list[int], class_names: Sequence[str], corner: tuple[int, int]
) -> None:
    x, y = corner
    colours = choose_class_colours(len(class_names))
    for index in entries:
        pen.rounded_rectangle((x, y, x + 14, y + 14), 3, fill=tuple(colours[index].tolist()))
        pen.text((x + 20, y + 7), class_names[index], _TEXT_COLOUR, ImageFont.load_default(14), anchor="lm")
        x += _measure_legend_entry(class_names[index])
