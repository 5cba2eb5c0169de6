"""Saliency methods on photographs with masks (the paper's Table 6): quality and images per second, a row per method.

    python -m bench.saliency --data DIR/JPEGImages --masks DIR/Saliency --list DIR/objects.txt
    python -m bench.saliency ... --cross          # and the network that train-saliency makes of the other half

`--masks`: PNG files named like the images, above 0 object. Foreground IoU is the mean over images after Otsu's
threshold (masks are taken as they are); F-max (beta^2 0.3) and the mean absolute error are PySODMetrics's. A method
whose weights are not here is told as such. `--cross` splits the images in two by a fixed seed, trains on each half
without any mask, and scores what that network says of the other half: with the priors, weighed by what their objects
have in common, beside it; alone; and without any network, the priors so weighed.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from py_sod_metrics import MAE, Fmeasure

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.backends.cpu import resize_maps
from fastcomus.config import SALIENCY_PRIORS, EmbedConfig
from fastcomus.errors import InputError
from fastcomus.images.reading import read_image
from fastcomus.objects.saliency.methods import METHODS, load_proposer
from fastcomus.run.run import Run
from fastcomus.run.saliency_network import obtain_network
from fastcomus.settings import get_preset_config

MAX_PIXELS = 100_000_000


def main() -> None:
    parser = harness.make_parser(__doc__, "saliency", data=None, device="auto", count=0)
    add_mask_options(parser)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), help="names, or checkpoint files")
    parser.add_argument("--preset", default="offline", help="whose encoder the patch methods look through")
    parser.add_argument("--precision", default="auto", help="saliency_precision")
    parser.add_argument("--cross", action="store_true", help="train on each half, score on the other")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images = list_masked_images(arguments)[: arguments.count or None]
    masks = read_masks(arguments, images)
    config = replace(get_preset_config(arguments.preset).embed, saliency_precision=arguments.precision)
    device = select(arguments.device).device
    rows: list[harness.Row] = []
    if arguments.cross:
        with tempfile.TemporaryDirectory() as scratch:
            rows += cross_validate(images, masks, config, arguments.preset, device, Path(scratch))
    for method in arguments.methods:
        try:
            rows.append({"method": method, **measure_method(images, masks, replace(config, saliency=method), device)})
        except InputError as error:
            rows.append({"method": method, "gave_up": str(error)})
        harness.print_progress(rows[-1])
    print(f"Priors that train-saliency learns from: {', '.join(SALIENCY_PRIORS)}")
    harness.finish(arguments, "Saliency", {"images": len(images), "rows": rows}, "timm")


def add_mask_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--list", type=Path, help="file of image names without ending; by default every mask's")


def list_masked_images(arguments: argparse.Namespace) -> list[Path]:
    """The images of `--list`, else those that have a mask."""
    names = arguments.list.read_text().split() if arguments.list else sorted(m.stem for m in arguments.masks.iterdir())
    files = {file.stem: file for file in sorted(arguments.data.iterdir())}
    return [files[name] for name in names]


def read_masks(arguments: argparse.Namespace, images: Sequence[Path]) -> list[np.ndarray]:
    """The masks of images, (H, W) bool each."""
    return [np.asarray(Image.open(arguments.masks / f"{image.stem}.png")) > 0 for image in images]


def measure_method(
    images: Sequence[Path], masks: Sequence[np.ndarray], config: EmbedConfig, device: torch.device
) -> harness.Row:
    """Scores in [0, 1] and images per second, reading not counted, of the method that `config` names."""
    pixels = [read_image(file, MAX_PIXELS) for file in images]
    proposer = load_proposer(config, device)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:

        def propose(chosen: Sequence[np.ndarray]) -> list[np.ndarray]:
            if callable(proposer):
                return list(pool.map(lambda one: proposer("", one), chosen))
            maps: list[np.ndarray] = []
            for start in range(0, len(chosen), proposer.batch):
                part = chosen[start : start + proposer.batch]
                found = proposer.propose(torch.stack(list(pool.map(proposer.prepare, part))))
                on_host = [one.cpu().numpy() for one in found]
                maps += [resize_maps(one, image.shape[:2]) for one, image in zip(on_host, part, strict=True)]
            return maps

        propose(pixels[: 1 if callable(proposer) else proposer.batch])  # warm up
        times = harness.time_once(propose, pixels, device=device.type)
    return {**score_saliency_maps(times.result, masks), "images_per_s": len(images) / times.median_s}


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
    device: torch.device,
    folder: Path,
) -> list[harness.Row]:
    """What each half of the images teaches, scored on the other half: a network and weighed priors, and each alone."""
    order = np.random.default_rng(0).permutation(len(images))
    halves = [order[: len(order) // 2], order[len(order) // 2 :]]
    found_by: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for number, half in enumerate(halves):
        links = harness.link_images([images[index] for index in half], folder / f"half-{number}-images")
        run = Run(folder / f"half-{number}", preset=preset, device=str(device))
        trained = run.train_saliency(links)
        rows = [("train-saliency", trained, config.prior_weight), ("train-saliency, network alone", trained, 0.0)]
        if run.config.saliency.common_features:
            few = Run(folder / f"few-{number}", preset=preset, device=str(device)).workplace
            rows.append(("three-priors, weighed", obtain_network(few.list_images(links), few, has_network=False), 1.0))
        other = halves[1 - number]
        there = [images[i] for i in other], [masks[i] for i in other]
        for name, checkpoint, weight in rows:
            found = measure_method(*there, replace(config, saliency=str(checkpoint), prior_weight=weight), device)
            found_by.setdefault(name, []).append((len(other) / len(images), found))
            harness.print_progress(name, found)
    return [
        {"method": name, **{score: sum(share * found[score] for share, found in of) for score in of[0][1]}}
        for name, of in found_by.items()
    ]


if __name__ == "__main__":
    main()
