"""The size of an image, from its header."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from fastcomus.errors import get_first_line
from fastcomus.images.formats import list_formats
from fastcomus.images.found import UnreadableImage
from fastcomus.images.modes import read_exif_orientation
from fastcomus.images.reading import read_encoded_image, silence_pillow_warnings
from fastcomus.images.roots import ImagePlace


def read_size(place: ImagePlace, max_pixels: int) -> tuple[int, int]:
    """Read height and width of an image as `read_image` would return it, upright; pixels are not decoded.

    Args:
        place: A file, or an image in a tar or behind a URL.
        max_pixels: Most pixels (width times height).

    Returns:
        Height and width in pixels.

    Raises:
        UnreadableImage: The header cannot be read, or the image is larger.
    """
    try:
        source = place if isinstance(place, Path) else io.BytesIO(read_encoded_image(place, max_pixels))
        with silence_pillow_warnings(), Image.open(source, formats=list_formats(str(place))) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # newer versions of Pillow have turned its size already
                width, height = (image.tag_v2[tag] for tag in (IMAGEWIDTH, IMAGELENGTH))
            is_turned = read_exif_orientation(image) >= 5
    except UnreadableImage:
        raise
    except Exception as error:  # plugins raise nearly every type there is on damaged files
        raise UnreadableImage("unreadable", get_first_line(error, 200)) from error
    if width * height > max_pixels:
        raise UnreadableImage("too large", f"{width} x {height} pixels, max_pixels is {max_pixels}")
    return (width, height) if is_turned else (height, width)
