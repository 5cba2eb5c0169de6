"""Run the whole pipeline on generated scenes with exact masks, offline."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import numpy as np
from rich.console import Console
from rich.table import Table

from fastcomus.cli.demo.contact_sheet import SheetRow, write_contact_sheet
from fastcomus.cli.demo.scenes import CLASS_NAMES, make_scenes
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.images.reading import read_image
from fastcomus.run.run import Run
from fastcomus.store.masks import get_mask_path, read_class_map
from fastcomus.store.run_folder import RunFolder

SCENES = 128
SHEET_ROWS = 8
# Few images need more passes and smaller batches than the preset has; smaller crops, and the prior instead of a network
# that the scenes teach, keep it under five minutes.
QUICK_TRAINING = {
    "embed": {"saliency": "background-prior"},
    "train": {"train_size": 161, "epochs": 8, "batch_size": 8},
    "predict": {"predict_size": 321},
}

log = logging.getLogger("fastcomus")


def run_demo(folder: Path, seed: int, device: str) -> list[Evaluation]:
    """Make scenes, run all stages on them, print the scores and draw a contact sheet.

    Args:
        folder: Gets scenes/, the run folder run/ and contact-sheet.png.
        seed: Of the scenes and of the run.
        device: See `Run`.

    Returns:
        The scores of every iteration.

    Raises:
        InputError: Where scikit-image's photographs are not installed.
    """
    k = len(CLASS_NAMES) - 1
    settings = {"cluster": {"k": k}, **QUICK_TRAINING}
    run = Run(folder / "run", preset="offline", seed=seed, device=device, settings=settings)
    names = _prepare_scenes(folder, seed)
    scenes = folder / "scenes"
    log.info("demo: %d scenes of %d kinds of objects in %s", len(names), k, scenes)
    evaluations = cast("list[Evaluation]", run.run(scenes / "images", scenes / "truth", scenes / "classes.txt"))

    sheet = folder / "contact-sheet.png"
    shown = [names[i] for i in np.linspace(0, len(names) - 1, SHEET_ROWS).round().astype(int)]
    last = len(evaluations) - 1
    rows = [
        SheetRow(
            read_image(scenes / "images" / name, run.config.embed.max_pixels),
            (
                read_mask(scenes / "truth" / f"{Path(name).stem}.png"),
                _rename_to_classes(run, 0, name, evaluations[0]),
                _rename_to_classes(run, last, name, evaluations[last]),
            ),
        )
        for name in shown
    ]
    write_contact_sheet(sheet, rows, CLASS_NAMES)
    console = Console()
    console.print(_make_score_table(evaluations))
    page = run.report()
    console.print(
        f"Look at {sheet}, open {page} in a browser, then try your own photographs:\n"
        "  fastcomus run ./photos --k 10      (k: about the number of object kinds you expect)\n"
        "  fastcomus predict ./more-photos    (masks for images the network has never seen)",
        highlight=False,
    )
    return evaluations


def _prepare_scenes(folder: Path, seed: int) -> list[str]:
    """Make the scenes unless they exist, and return their file names; a second demo finds everything up to date."""
    store = RunFolder(folder)
    wanted = {"seed": seed, "count": SCENES}
    if not store.is_current("scenes", str(wanted)):
        store.remove("scenes/manifest.json")
        make_scenes(folder / "scenes", SCENES, seed)
        store.finish("scenes", str(wanted), **wanted)
    return sorted(path.name for path in (folder / "scenes" / "images").glob("scene-*.jpg"))


def _rename_to_classes(run: Run, iteration: int, name: str, evaluation: Evaluation) -> np.ndarray:
    """Return a class map (H, W) with clusters renamed to the classes they were matched to; -1 for none."""
    names = np.array([-1 if label is None else label for label in evaluation.hungarian.assignment])
    return names[run.name().map_to_classes(read_class_map(run.folder, get_mask_path(f"iteration-{iteration}", name)))]


def _make_score_table(evaluations: list[Evaluation]) -> Table:
    table = Table("iteration", "foreground IoU", "mIoU", "pixel accuracy", "classes found")
    for iteration, evaluation in enumerate(evaluations):
        score = evaluation.hungarian
        table.add_row(
            f"{iteration} ({'clusters' if iteration == 0 else 'network'})",
            f"{100 * evaluation.foreground_iou:.1f} %",
            f"{100 * score.miou:.1f} %",
            f"{100 * score.pixel_accuracy:.1f} %",
            f"{score.discovered} of {len(evaluation.classes)}",
        )
    table.caption = "Clusters matched to classes one to one; classes found: IoU of 20 % or more, background counted."
    return table
