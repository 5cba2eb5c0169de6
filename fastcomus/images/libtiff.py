"""Keeps libtiff, which Pillow reads TIFF files by, from writing to the terminal of its own accord."""

from __future__ import annotations

import contextlib
import ctypes
import re
from pathlib import Path

import PIL


def silence_libtiff() -> None:
    """Take from every libtiff in this process what prints its errors; Pillow raises them anyway.

    Where libtiff is a part of Pillow's own module, as on Windows, it cannot be reached and prints on.
    """
    for file in _find_loaded():
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(file)
            for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
                function = getattr(library, name)
                function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
                function(None)


def _find_loaded() -> set[str]:
    maps = Path("/proc/self/maps")
    if maps.exists():
        with contextlib.suppress(OSError):
            return set(re.findall(r"/\S*/libtiff[^/\s]*\.so\S*", maps.read_text()))
    package = Path(PIL.__file__).parent
    return {str(file) for file in package.glob(".dylibs/libtiff*.dylib")}
