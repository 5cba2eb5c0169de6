"""`export`: masks in the formats of other tools, and the network as an ONNX file."""

from __future__ import annotations

import logging
from pathlib import Path

from fastcomus.clusters.files import read_names
from fastcomus.progress import count
from fastcomus.run.changed_images import warn_of_changed_images
from fastcomus.run.contents import choose_trained_iteration, read_clusters_manifest, select_class_maps
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.store.run_folder import RunFolder

log = logging.getLogger("fastcomus")


@stage(writes=False)
def export(at: Workplace, format_name: str, output: Path | str, iteration: int | None, transfer: str) -> Path:
    """Write the masks of an iteration with their images in a new folder; see `Run.export`."""
    masks, source = select_class_maps(at, iteration)
    warn_of_changed_images(at.folder, source.root)
    from fastcomus.exports.export import Transfer, export_masks

    target = Path(output or _find_free(at.folder.path / f"exports/iteration-{masks.iteration}-{format_name}"))
    how = Transfer(source.root, transfer, at.config.embed.max_pixels)
    written = export_masks(format_name, masks, how, target)
    count(images=written, classes=masks.k)
    log.info("export: the masks of %d images, iteration %d, in %s", written, masks.iteration, target)
    return target


@stage(writes=False)
def export_onnx(at: Workplace, output: Path | str, iteration: int | None) -> Path:
    """Write the network of an iteration as an ONNX file; see `Run.export`."""
    from fastcomus.segmentation.onnx import check_onnx, write_onnx

    chosen = choose_trained_iteration(at.folder, iteration)
    names = read_names(at.folder, read_clusters_manifest(at.folder))
    check_onnx()
    from fastcomus.segmentation.files import load_segmenter

    manifest = at.folder.read_manifest(f"iteration-{chosen}") or {}
    facts = {name: str(manifest[name]) for name in ("k", "backbone", "output_stride")}
    target = Path(output or at.folder.path / "segmenter.onnx")
    with RunFolder(target.parent).replace_file(target.name) as path:
        write_onnx(load_segmenter(at.folder, chosen), names, {**facts, "iteration": str(chosen)}, path)
    count(bytes=target.stat().st_size, classes=len(names.classes))
    log.info("export: the network of iteration %d in %s", chosen, target)
    return target


def _find_free(folder: Path) -> Path:
    """Return the folder, or with -2, -3, ... at its end where exports of before are there: names may have changed."""
    free, number = folder, 1
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
