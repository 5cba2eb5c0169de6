"""Whether the photographs are still those whose objects were embedded; only `embed` and `run` look for objects anew."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from fastcomus.images.found import ImageList
from fastcomus.images.roots import ImageRoot
from fastcomus.images.stamps import stamp_file
from fastcomus.run.contents import read_skipped
from fastcomus.store.objects_table import read_shards
from fastcomus.store.run_folder import RunFolder
from fastcomus.store.sealed_json import compute_fingerprint

log = logging.getLogger("fastcomus")


def fingerprint_sizes(found: ImageList) -> str:
    """Return a fingerprint of the sizes in bytes of all listed images, which a copy of the folder has, too."""
    return _fingerprint(found.root, {*found.names, *(one.image for one in found.skipped)})


def warn_of_changed_images(folder: RunFolder, root: ImageRoot) -> None:
    """Say so where a photograph is not the one that was embedded under its name."""
    embedded = (folder.read_manifest("objects") or {}).get("sizes")  # which versions before did not write
    names = {*read_shards(folder, ["image"])["image"].to_pylist(), *read_skipped(folder)["image"].to_pylist()}
    if embedded and embedded != _fingerprint(root, names):
        log.warning("note: photographs have changed since their objects were found; run fastcomus embed, or run.")


def _fingerprint(root: ImageRoot, names: Iterable[str]) -> str:
    sizes: list[tuple[str, int | None]] = []
    for name in sorted(names):
        place = root / name
        stamp = stamp_file(place) if isinstance(place, Path) else None
        sizes.append((name, stamp[0] if stamp else None))
    return compute_fingerprint(sizes=sizes)
