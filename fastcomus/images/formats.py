"""Which files are images by their endings, and what is said of the others beside them.

Images are of every format that Pillow knows by a file's ending and decodes by itself, and HEIC where pillow-heif is
installed. Left out are EPS, which would start Ghostscript, WMF, BUFR, GRIB and HDF5, which Pillow hands on to other
programs, and MPEG, of which it only knows the name.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache

from PIL import Image

NO_DECODER = "no decoder"
LOOKED_FOR = ".jpg, .png, .webp, .bmp, .tif, .gif or another ending of images"
_NOT_DECODED = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
_COMMON = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # tried first
_HEIC = ("heic", "heif", "hif", "heics", "heifs")
_RAW = (
    *("3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "iiq", "kdc", "mef", "mos", "mrw", "nef", "nrw", "orf"),
    *("pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
)
_DRAWN = ("svg", "svgz", "eps", "ps", "ai", "wmf", "emf")
_OF_OTHER_PROGRAMS = ("jxl", "jxr", "wdp", "exr", "hdr", "bpg", "flif", "jls", "xcf", "kra", "psb")
# What lies beside images as a matter of course: Thumbs.db, desktop.ini, annotations, lists.
_BESIDE = (
    *("db", "ini", "json", "jsonl", "txt", "xml", "csv", "tsv", "yaml", "yml", "toml", "md", "log", "xmp", "aae"),
    *("html", "py", "ipynb", "npy", "npz", "pkl"),
)
_MOST_ENDINGS = 8  # in a sentence


@cache  # looked for when a name is asked about: Pillow's plugins take a tenth of a second to import
def _find_endings() -> dict[str, str]:
    """Return Pillow's format by ending, without dot, of all that is read."""
    if importlib.util.find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
    known = Image.registered_extensions()
    can_open = {*Image.OPEN, "MPO"} - {*_NOT_DECODED}  # MPO is opened as JPEG
    return {ending.removeprefix("."): kind for ending, kind in known.items() if kind in can_open}


@cache
def _find_told_by_bytes() -> tuple[str, ...]:
    """Return the formats that Pillow tells by a file's first bytes; others are tried for files of their endings."""
    told = (kind for kind in _find_endings().values() if kind != "MPO" and Image.OPEN[kind][1])
    return tuple(dict.fromkeys((*_COMMON, *told)))


def has_image_ending(name: str) -> bool:
    """Whether a file is taken for an image by its name."""
    stem, _, ending = name.rpartition(".")
    return bool(stem) and ending.lower() in _find_endings()


def list_formats(name: str) -> tuple[str, ...]:
    """Return the formats of Pillow that a file of this name may have, whatever its ending promises."""
    own, told = _find_endings().get(name.rpartition(".")[2].lower()), _find_told_by_bytes()
    return (*told, own) if own and own != "MPO" and own not in told else told


def explain_no_decoder(name: str) -> str:
    """Return what to do about a file that looks like a picture and is not read; "" for every other file."""
    ending = name.rpartition(".")[2].lower()
    if ending in _find_endings() or "." not in name:
        return ""
    if ending in _HEIC:
        return "run pip install pillow-heif"
    if ending in _RAW:
        return "a camera's raw file; convert it to TIFF or JPEG"
    if ending in _DRAWN:
        return "a drawing; convert it to PNG"
    if ending in ("avif", "avifs"):
        return "run pip install --upgrade pillow"
    return "convert it to PNG or JPEG" if ending in _OF_OTHER_PROGRAMS else ""


def get_ending_of_other(name: str) -> str:
    """Return the ending by which a file that is no image is counted; "" for what lies beside images as a rule."""
    stem, dot, ending = name.rpartition(".")
    if not stem or not dot:
        return "(no ending)"
    return "" if ending.lower() in _BESIDE else f".{ending.lower()}"


def describe_others(others: Mapping[str, int]) -> str:
    """Return files that are no images in words.

    Args:
        others: Number of files by ending.

    Returns:
        Such as "3 .mp4, 2 .heic (run pip install pillow-heif)"; "" for none.
    """
    counted = sorted(others.items(), key=lambda one: (-one[1], one[0]))
    told = [f"{count} {ending}" for ending, count in counted[:_MOST_ENDINGS]]
    if rest := counted[_MOST_ENDINGS:]:
        told.append(f"{sum(count for _, count in rest)} of {len(rest)} other endings")
    hints = {why for ending in others if (why := explain_no_decoder(ending)).startswith("run ")}
    return ", ".join(told) + (f" ({'; '.join(sorted(hints))})" if hints else "")
