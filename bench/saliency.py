"""Saliency methods on photographs with masks (the paper's Table 6): quality and images per second, a row per method.

    python bench/saliency.py --images DIR/JPEGImages --masks DIR/Saliency --list DIR/objects.txt
    python bench/saliency.py ... --cross          # and the network that train-saliency makes of the other half

`--masks`: PNG files named like the images, above 0 object. Foreground IoU is the mean over images after Otsu's
threshold (masks are taken as they are); F-max (beta^2 0.3) and the mean absolute error are PySODMetrics's. A method
whose weights are not here is told as such. `--cross` splits the images in two by a fixed seed, trains on each half
without any mask, and scores what that network says of the other half; the priors it learnt from stand beside it.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from py_sod_metrics import MAE, Fmeasure
from rich.console import Console
from rich.table import Table

from fastcomus.backends.choose import select
from fastcomus.backends.cpu import resize_maps
from fastcomus.config import SALIENCY_PRIORS, EmbedConfig
from fastcomus.errors import InputError
from fastcomus.images.reading import read_image
from fastcomus.objects.saliency.methods import METHODS, load_proposer
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config

MAX_PIXELS = 100_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--list", type=Path, help="file of image names without ending; by default every mask's")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="names, or checkpoint files")
    parser.add_argument("--preset", default="offline", help="whose encoder the patch methods look through")
    parser.add_argument("--size", type=int, default=0, help="saliency_size; by default the preset's")
    parser.add_argument("--precision", default="auto", help="saliency_precision")
    parser.add_argument("--limit", type=int, default=0, help="look at so many images only")
    parser.add_argument("--cross", action="store_true", help="train on each half, score on the other")
    parser.add_argument("--run", type=Path, help="folder for the two trainings, gone on with when there")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, default=Path("bench/results/saliency.json"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = arguments.list.read_text().split() if arguments.list else sorted(m.stem for m in arguments.masks.iterdir())
    files = {file.stem: file for file in sorted(arguments.images.iterdir())}
    names = given[: arguments.limit or None]
    images = [files[name] for name in names]
    masks = [np.asarray(Image.open(arguments.masks / f"{name}.png")) > 0 for name in names]
    config = replace(get_preset_config(arguments.preset).embed, saliency_precision=arguments.precision)
    if arguments.size:
        config = replace(config, saliency_size=arguments.size)
    device = select(arguments.device).device
    rows: list[dict[str, Any]] = []
    if arguments.cross:
        rows += cross_validate(images, masks, config, arguments.preset, arguments.device, device, arguments.run)
    for method in arguments.methods:
        try:
            rows.append({"method": method, **measure_method(images, masks, replace(config, saliency=method), device)})
        except InputError as error:
            rows.append({"method": method, "not_here": str(error)})
        Console(stderr=True).print(rows[-1])
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"images": len(images), "rows": rows}, indent=2) + "\n")
    Console(width=130).print(build_table(rows, len(images)))


def measure_method(
    images: Sequence[Path], masks: Sequence[np.ndarray], config: EmbedConfig, device: torch.device
) -> dict[str, Any]:
    """Scores in [0, 1] and images per second, reading not counted, of the method that `config` names."""
    pixels = [read_image(file, MAX_PIXELS) for file in images]
    proposer = load_proposer(config, device)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        if callable(proposer):
            proposer("", pixels[0])  # warm up
            started = time.perf_counter()
            maps = list(pool.map(lambda one: proposer("", one), pixels))
        else:
            proposer.propose(torch.stack([proposer.prepare(one) for one in pixels[: proposer.batch]]))
            started = time.perf_counter()
            maps = []
            for start in range(0, len(pixels), proposer.batch):
                part = pixels[start : start + proposer.batch]
                found = proposer.propose(torch.stack(list(pool.map(proposer.prepare, part))))
                on_host = [one.cpu().numpy() for one in found]
                maps += [resize_maps(one, image.shape[:2]) for one, image in zip(on_host, part, strict=True)]
        elapsed_s = time.perf_counter() - started
    return {**score_saliency_maps(maps, masks), "images_per_s": len(images) / elapsed_s}


def score_saliency_maps(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> dict[str, float]:
    """Means over images; of several maps of an image the largest value counts."""
    backend = select("cpu")
    f_measure, error, ious = Fmeasure(), MAE(), []
    for found, mask in zip(maps, masks, strict=True):
        chosen = backend.find_masks(found, "otsu", 1).masks
        foreground = chosen.any(axis=0) if len(chosen) else np.zeros(mask.shape, bool)
        ious.append((foreground & mask).sum() / max(1, (foreground | mask).sum()))
        saliency = found.max(axis=0) if len(found) else np.zeros(mask.shape)
        for metric in (f_measure, error):
            metric.step((saliency * 255).astype(np.uint8), mask.astype(np.uint8) * 255, normalize=True)
    curve = f_measure.get_results()["fm"]["curve"]
    return {
        "foreground_iou": float(np.mean(ious)),
        "f_max": float(curve.max()),
        "mean_absolute_error": float(error.get_results()["mae"]),
    }


def cross_validate(
    images: Sequence[Path],
    masks: Sequence[np.ndarray],
    config: EmbedConfig,
    preset: str,
    device_name: str,
    device: torch.device,
    kept: Path | None,
) -> list[dict[str, Any]]:
    """train-saliency on each half of the images, scored on the other; with the priors it learnt from, and without."""
    order = np.random.default_rng(0).permutation(len(images))
    halves = [order[: len(order) // 2], order[len(order) // 2 :]]
    halves_of: dict[str, list[tuple[float, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, half in enumerate(halves):
            folder = (kept or Path(scratch)) / f"half-{number}"
            links = folder.with_name(f"{folder.name}-images")
            links.mkdir(parents=True, exist_ok=True)
            for index in half:
                link = links / images[index].name
                if not link.exists():
                    link.symlink_to(images[index].resolve())
            checkpoint = Run(folder, preset=preset, device=device_name).train_saliency(links)
            other = halves[1 - number]
            there = [images[i] for i in other], [masks[i] for i in other]
            for name, weight in (("train-saliency", config.prior_weight), ("train-saliency, network alone", 0.0)):
                found = measure_method(*there, replace(config, saliency=str(checkpoint), prior_weight=weight), device)
                halves_of.setdefault(name, []).append((len(other) / len(images), found))
                Console(stderr=True).print(name, found)
    return [
        {"method": name, **{score: sum(share * found[score] for share, found in of) for score in of[0][1]}}
        for name, of in halves_of.items()
    ]


def build_table(rows: Sequence[dict[str, Any]], count: int) -> Table:
    made = Table(title=f"{count} images")
    for column in ("method", "foreground IoU %", "F-max", "MAE", "images/s"):
        made.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        if "not_here" in row:
            made.add_row(row["method"], "-", "-", "-", row["not_here"][:60])
            continue
        numbers = (row["f_max"], row["mean_absolute_error"])
        iou, speed = f"{100 * row['foreground_iou']:.1f}", f"{row['images_per_s']:.1f}"
        made.add_row(row["method"], iou, *(f"{number:.3f}" for number in numbers), speed)
    made.caption = f"priors that train-saliency learns from: {', '.join(SALIENCY_PRIORS)}"
    return made


if __name__ == "__main__":
    main()
