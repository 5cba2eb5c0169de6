"""Whether the photographs are still those whose objects were embedded; only `embed` and `run` look for objects anew."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from fastcomus.errors import InputError
from fastcomus.images.found import ImageList, UnreadableImage
from fastcomus.images.roots import ImageRoot
from fastcomus.images.sizes import read_size
from fastcomus.images.stamps import stamp_file
from fastcomus.run.contents import read_skipped
from fastcomus.store.objects_table import read_shards
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

log = logging.getLogger("fastcomus")


def fingerprint_sizes(found: ImageList) -> str:
    """Return a fingerprint of the sizes in bytes of all listed images, which a copy of the folder has, too."""
    return _fingerprint(found.root, {*found.names, *(one.image for one in found.skipped)})


def fingerprint_present_sizes(folder: RunFolder, root: ImageRoot) -> str:
    """Return a fingerprint of the sizes in bytes, now, of the images that were embedded; of one that is gone, none."""
    names = {*read_shards(folder, ["image"])["image"].to_pylist(), *read_skipped(folder)["image"].to_pylist()}
    return _fingerprint(root, names)


def warn_of_changed_images(folder: RunFolder, root: ImageRoot) -> bool:
    """Say so, and return whether, a photograph is not the one that was embedded under its name."""
    embedded = (folder.read_manifest("objects") or {}).get("sizes")  # which versions before did not write
    is_changed = bool(embedded) and embedded != fingerprint_present_sizes(folder, root)
    if is_changed:
        log.warning("note: photographs have changed since their objects were found; run fastcomus embed, or run.")
    return is_changed


def refuse_resized_images(folder: RunFolder, root: ImageRoot, max_pixels: int) -> None:
    """Raise InputError where a photograph has not the size in pixels that its masks have."""
    columns = read_shards(folder, ["image", "height", "width"]).to_pydict()
    for name, *size in sorted(set(zip(*columns.values(), strict=True))):
        try:
            now = read_size(root / name, max_pixels)
        except UnreadableImage:
            continue  # which others tell
        if list(now) != size:
            raise InputError(
                f"{root / name} is {now[1]} x {now[0]} pixels, and its masks are {size[1]} x {size[0]}; "
                "run fastcomus embed and cluster again."
            )


def _fingerprint(root: ImageRoot, names: Iterable[str]) -> str:
    sizes: list[tuple[str, int | None]] = []
    for name in sorted(names):
        place = root / name
        stamp = stamp_file(place) if isinstance(place, Path) else None
        sizes.append((name, stamp[0] if stamp else None))
    return compute_fingerprint(sizes=sizes)
