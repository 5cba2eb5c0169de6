"""Speed of `predict` against a bare PyTorch loop.

    OMP_NUM_THREADS=2 python bench/prediction.py --data ../shared/data/msrc14/JPEGImages

What `fastcomus predict` does (read JPEGs, resize, network, enlarge the logits, write PNGs) against a loop over tensors
of the same images, already resized and batched, in memory: the same network on the same batches, once alone and once
with enlarging by `F.interpolate` and the argmax, as masks need them. Labels are compared first. The sides take turns; a
ratio is that of images per second (wall) or per CPU-second, which other work disturbs less, turn by turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from fastcomus.backends.choose import select
from fastcomus.config import PredictConfig
from fastcomus.images.folder import find_images
from fastcomus.segmentation.labelling import label_images
from fastcomus.segmentation.prediction import WINDOW, Prediction, _resize_shorter_side
from fastcomus.segmentation.segmenter import Segmenter, build_segmenter
from fastcomus.settings import get_preset_config, parse_scales
from fastcomus.store.masks import get_mask_file_name, read_class_map, write_class_map
from fastcomus.store.run_folder import RunFolder

Batch = tuple[list[torch.Tensor], list[tuple[int, int]], list[str]]
K = 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=int, default=64, help="images to use")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--workers", type=int, default=2, help="threads that read and write")
    parser.add_argument("--json", type=Path, default=Path("bench/results/prediction.json"))
    arguments = parser.parse_args()
    numbers = measure(arguments.data, arguments.count, arguments.repeats, arguments.workers)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")
    Console().print(build_table(numbers))


def measure(data: Path, count: int, repeats: int, workers: int) -> dict:
    backend = select("cpu")
    config = get_preset_config("offline")
    found = find_images(data)
    names = found.names[:count]
    torch.manual_seed(0)
    segmenter = build_segmenter("efficientnet-lite0", "", K, 16).eval()
    pixels = {name: backend.decode(str(found.root / name), config.embed.max_pixels) for name in names}
    batches = _make_batches(pixels, config.predict, segmenter.output_stride)

    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(scratch)

        def write(prediction: Prediction) -> None:
            write_class_map(folder, get_mask_file_name(prediction.image), prediction.compute_labels())

        def pipeline() -> None:
            for _ in label_images(segmenter, found.root, names, (), write, config, backend, workers, "predict"):
                pass

        sides: dict[str, Callable[[], object]] = {
            "predict": pipeline,
            "network": lambda: _run_bare(segmenter, batches, config.predict.flip, False),
            "network and labels": lambda: _run_bare(segmenter, batches, config.predict.flip, True),
        }
        pipeline()  # warm, and checked:
        bare = _run_bare(segmenter, batches, config.predict.flip, True)
        agreement = [(read_class_map(folder, get_mask_file_name(name)) == bare[name]).mean() for name in names]
        assert min(agreement) > 0.9, min(agreement)  # interpolate does not know where strided logits lie: half a stride
        times: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for _ in range(repeats):
            for side, work in sides.items():
                started, cpu = time.perf_counter(), time.process_time()
                work()
                times[side].append((time.perf_counter() - started, time.process_time() - cpu))
    numbers: dict = {"images": len(names), "threads": torch.get_num_threads(), "agreement": float(np.mean(agreement))}
    for side, taken in times.items():
        for unit, column in (("wall", 0), ("cpu", 1)):
            numbers[f"{side}, images per {unit} second"] = _summarise_spread(
                [len(names) / one[column] for one in taken]
            )
            if side != "predict":
                ratios = [b[column] / p[column] for b, p in zip(taken, times["predict"], strict=True)]
                numbers[f"predict over {side}, {unit}"] = _summarise_spread(ratios)
    return numbers


def build_table(numbers: dict) -> Table:
    made = Table("what", "median", "least", "most", title=f"{numbers['images']} images, {numbers['threads']} threads")
    for name, value in numbers.items():
        if isinstance(value, dict):
            made.add_row(name, *(f"{value[key]:.3g}" for key in ("median", "least", "most")))
    made.add_row("agreement of labels", f"{numbers['agreement']:.4f}", "", "")
    return made


@torch.inference_mode()
def _run_bare(segmenter: Segmenter, batches: list[Batch], flip: bool, with_labels: bool) -> dict[str, np.ndarray]:
    made = {}
    for images, sizes, names in batches:
        logits = []
        for one in images:
            found = segmenter(torch.cat([one, one.flip(-1)]) if flip else one)
            logits.append((found[: len(one)] + found[len(one) :].flip(-1)) / 2 if flip else found)
        if with_labels:
            for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
                wide = [F.interpolate(one[place, None], size, mode="bilinear", align_corners=True) for one in logits]
                made[name] = sum(one.softmax(1) for one in wide).argmax(1)[0].numpy()  # type: ignore[union-attr]
    return made


def _make_batches(pixels: dict[str, np.ndarray], config: PredictConfig, output_stride: int) -> list[Batch]:
    """The batches that `predict` makes, in memory."""
    made: list[Batch] = []
    names = list(pixels)
    sides = [scale * config.predict_size for scale in parse_scales(config)]
    for start in range(0, len(names), WINDOW):
        groups: dict[tuple[torch.Size, ...], list[tuple[str, list[torch.Tensor]]]] = defaultdict(list)
        for name in names[start : start + WINDOW]:
            images = [_resize_shorter_side(pixels[name], side, output_stride) for side in sides]
            groups[tuple(image.shape for image in images)].append((name, images))
        for group in groups.values():
            for first in range(0, len(group), config.predict_batch):
                part = group[first : first + config.predict_batch]
                stacked = [torch.stack(list(one)) for one in zip(*(images for _, images in part), strict=True)]
                made.append((stacked, [pixels[name].shape[:2] for name, _ in part], [name for name, _ in part]))
    return made


def _summarise_spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


if __name__ == "__main__":
    main()
