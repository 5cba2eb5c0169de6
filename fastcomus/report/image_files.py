"""Pictures of the report: thumbnails of objects, small photographs, and masks to lay over them.

Every image is read once. Files are named by numbers, whatever the images are called.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from fastcomus.backends.read_ahead import read_ahead
from fastcomus.images.found import UnreadableImage
from fastcomus.report.findings import Findings, ShownObjects
from fastcomus.report.page_folder import PageFolder
from fastcomus.store.masks import get_mask_path, read_class_map

if TYPE_CHECKING:
    from fastcomus.backends.interface import Backend

THUMBNAIL = 112  # pixels, both sides
PICTURE = 320  # pixels, the longer side
_QUALITY = 78  # of JPEG
_WHITE, _DARK = (255, 255, 255), (20, 20, 20)
_MARGIN = 0.08  # of the box's longer side, around a thumbnail
_FILL, _EDGE = 130, 255  # opacity of a mask and of its outline
_COLOURS = 127  # of a palette with 0 for background, and two entries for each colour


@dataclass(frozen=True)
class ImageWork:
    """An image to draw.

    Attributes:
        name: Name of the image.
        objects: Rows of its objects that need a thumbnail.
        number: Number of its picture; None for no picture.
    """

    name: str
    objects: tuple[int, ...]
    number: int | None


@dataclass(frozen=True)
class DrawnImage:
    """An image that was drawn.

    Attributes:
        work: What was to be drawn.
        size: Width and height of the picture.
        labels: For each iteration the clusters in the image's mask; None without a mask.
        error: Why the image could not be read, or "".
    """

    work: ImageWork
    size: tuple[int, int] = (0, 0)
    labels: tuple[tuple[int, ...] | None, ...] = ()
    error: str = ""


def get_thumbnail_file(row: int) -> str:
    """Return where the thumbnail of an object lies in the report, a thousand to a folder."""
    return f"thumbnails/{row // 1000:03d}/{row:06d}.jpg"


def get_picture_file(number: int) -> str:
    """Return where the small photograph of an image lies in the report."""
    return f"pictures/{number // 1000:03d}/{number:06d}.jpg"


def get_overlay_file(number: int, iteration: int) -> str:
    """Return where the mask of an image by an iteration lies in the report."""
    return f"pictures/{number // 1000:03d}/{number:06d}-{iteration}.png"


def plan_image_work(objects: Sequence[int], images: Sequence[str], shown: Mapping[str, int]) -> list[ImageWork]:
    """List the images to draw.

    Args:
        objects: Rows of the objects that need a thumbnail.
        images: Image of each object, by row.
        shown: Number of the picture of every image that needs one.

    Returns:
        An entry per image, in the order of their names.
    """
    rows: dict[str, list[int]] = {name: [] for name in shown}
    for row in objects:
        rows.setdefault(images[row], []).append(row)
    return [ImageWork(name, tuple(rows[name]), shown.get(name)) for name in sorted(rows)]


def draw_images(
    work: Sequence[ImageWork],
    found: Findings,
    colours: np.ndarray,
    target: PageFolder,
    backend: Backend,
    workers: int,
    on_image: Callable[[int], None],
) -> Iterator[DrawnImage]:
    """Write the pictures of the report.

    Args:
        work: The images to draw, as `plan_image_work` lists them.
        found: The run's contents.
        colours: (k, 3) uint8 by cluster.
        target: The folder of the report.
        backend: What decodes the images.
        workers: Number of threads.
        on_image: Called with 1 after every image.

    Yields:
        What was drawn of each entry of `work`, in order.
    """
    for drawn in read_ahead(partial(_draw, found, colours, target, backend), work, workers):
        on_image(1)
        yield drawn


def _draw(found: Findings, colours: np.ndarray, target: PageFolder, backend: Backend, work: ImageWork) -> DrawnImage:
    try:
        size = _draw_photograph(found, target, backend, work)
    except UnreadableImage as error:
        return DrawnImage(work, error=str(error))
    if work.number is None:
        return DrawnImage(work)
    labels: list[tuple[int, ...] | None] = []
    for iteration in found.iterations:
        mask = get_mask_path(f"iteration-{iteration}", work.name)
        if not found.folder.resolve_file(mask).exists():
            labels.append(None)
            continue
        class_map = read_class_map(found.folder, mask)
        labels.append(tuple((np.unique(class_map[class_map > 0]).astype(int) - 1).tolist()))
        dropped = {cluster for cluster in range(len(colours)) if found.names.is_dropped(cluster)}
        overlay = _encode_overlay_png(class_map, size, colours, dropped)
        _write(target, get_overlay_file(work.number, iteration), overlay)
    return DrawnImage(work, size, tuple(labels))


def _draw_photograph(found: Findings, target: PageFolder, backend: Backend, work: ImageWork) -> tuple[int, int]:
    """Write the thumbnails and the small photograph of an image; return its size, or (0, 0) without one.

    The image is not read where they are there already.
    """
    assert found.objects is not None
    picture = None if work.number is None else get_picture_file(work.number)
    files = [get_thumbnail_file(row) for row in work.objects] + [picture] * (picture is not None)
    kept = [target.keep_picture(file) for file in files if file]  # each of them, so that all are marked
    if all(kept):
        return _read_size(target, picture) if picture else (0, 0)
    image = Image.fromarray(backend.decode(found.objects.root / work.name, found.config.embed.max_pixels))
    for row in work.objects:
        _write(target, get_thumbnail_file(row), _encode_thumbnail(found.objects, row, image))
    if picture is None:
        return (0, 0)
    image.thumbnail((PICTURE, PICTURE), Image.Resampling.LANCZOS)
    _write(target, picture, encode_jpeg(image))
    return image.size


def _read_size(target: PageFolder, picture: str) -> tuple[int, int]:
    with Image.open(target.resolve_file(picture)) as image:
        return image.size


def _encode_thumbnail(objects: ShownObjects, row: int, image: Image.Image) -> bytes:
    return encode_jpeg(crop_thumbnail(image, objects.boxes[row], objects.decode_mask(row)))


def crop_thumbnail(image: Image.Image, box: np.ndarray, mask: np.ndarray) -> Image.Image:
    """Cut out a square around an object, moved to lie inside the image as far as it can, with the object's outline.

    Args:
        image: The photograph, RGB.
        box: (4,) x0, y0, x1, y1 in pixels, half-open.
        mask: (H, W) bool, the object.
    """
    x0, y0, x1, y1 = (int(value) for value in box)
    longest = max(x1 - x0, y1 - y0)
    # The ends of a long object are left out rather than showing grey bars beside the image.
    side = min((1 + 2 * _MARGIN) * longest, max(min(image.size), 0.75 * longest))
    corner = []
    for low, high, size in ((x0, x1, image.width), (y0, y1, image.height)):
        start = (low + high - side) / 2
        corner.append(min(max(start, 0), size - side) if side <= size else (size - side) / 2)
    left, top = corner
    inside = (max(left, 0), max(top, 0), min(left + side, image.width), min(top + side, image.height))
    scale = THUMBNAIL / side
    width, height = (max(1, round((inside[i + 2] - inside[i]) * scale)) for i in (0, 1))
    part = image.resize((width, height), Image.Resampling.BILINEAR, box=inside, reducing_gap=2)
    if mask.shape == (image.height, image.width):  # else the photograph was changed since
        shape = Image.fromarray(mask.astype(np.uint8) * 255).resize(part.size, Image.Resampling.BILINEAR, box=inside)
        part = _draw_outline(part, shape.point(lambda value: 255 * (value > 127)))
    if part.size == (THUMBNAIL, THUMBNAIL):
        return part
    square = Image.new("RGB", (THUMBNAIL, THUMBNAIL), (128, 128, 128))
    square.paste(part, ((THUMBNAIL - part.width) // 2, (THUMBNAIL - part.height) // 2))
    return square


def _draw_outline(picture: Image.Image, shape: Image.Image) -> Image.Image:
    """Draw a white line just inside of a shape (0 or 255) and a dark one around it, to be seen on every colour."""
    for colour, far, near in ((_DARK, ImageFilter.MaxFilter(3), None), (_WHITE, None, ImageFilter.MinFilter(3))):
        outer, inner = (shape if one is None else shape.filter(one) for one in (far, near))
        picture.paste(colour, mask=ImageChops.difference(outer, inner))
    return picture


def _encode_overlay_png(class_map: np.ndarray, size: tuple[int, int], colours: np.ndarray, dropped: set[int]) -> bytes:
    """Encode a palette PNG of `size` (width, height): clear background, half clear clusters, opaque outlines."""
    small = np.asarray(Image.fromarray(class_map).resize(size, Image.Resampling.NEAREST)).astype(np.int64)
    shown = np.where(np.isin(small, [cluster + 1 for cluster in dropped]), 0, small)
    edge = np.zeros(shown.shape, bool)
    for axis in (0, 1):
        differs = np.diff(shown, axis=axis) != 0
        turned, differs = edge.swapaxes(0, axis), differs.swapaxes(0, axis)
        turned[:-1] |= differs
        turned[1:] |= differs
    # A palette has fewer colours than there may be clusters, so each mask has its own.
    present = np.unique(shown[shown > 0])
    slot = np.zeros(int(shown.max(initial=0)) + 1, np.uint8)
    slot[present] = 1 + 2 * (np.arange(len(present)) % _COLOURS)
    indexed = slot[shown] + (edge & (shown > 0))
    palette, alpha = np.zeros((1 + 2 * _COLOURS, 3), np.uint8), np.zeros(1 + 2 * _COLOURS, np.uint8)
    for label in present:
        palette[slot[label] : slot[label] + 2] = colours[label - 1]
        alpha[slot[label] : slot[label] + 2] = _FILL, _EDGE
    used = int(indexed.max(initial=0)) + 1
    picture = Image.fromarray(indexed.astype(np.uint8))
    picture.putpalette(palette[:used].tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="PNG", transparency=alpha[:used].tobytes())
    return stream.getvalue()


def encode_jpeg(image: Image.Image) -> bytes:
    """Encode a picture of the report."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=_QUALITY)
    return stream.getvalue()


def _write(target: PageFolder, name: str, content: bytes) -> None:
    with target.replace_file(name) as path:
        path.write_bytes(content)
