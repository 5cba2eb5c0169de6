"""Speed of `predict` against a bare PyTorch loop.

    OMP_NUM_THREADS=2 python -m bench.prediction --data ../shared/data/msrc14/JPEGImages

What `fastcomus predict` does (read JPEGs, resize, network, enlarge the logits, write PNGs) against a loop over tensors
of the same images, already resized and batched, in memory: the same network on the same batches, once alone and once
with enlarging by `F.interpolate` and the argmax, as masks need them. Labels are compared first. The sides take turns; a
ratio is that of images per second (wall) or per CPU-second, which other work disturbs less, turn by turn.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from bench import harness
from fastcomus.backends.choose import select
from fastcomus.config import PredictConfig
from fastcomus.images.folder import find_images
from fastcomus.segmentation.class_scores import Prediction
from fastcomus.segmentation.prediction import WINDOW, label_images, resize_shorter_side
from fastcomus.segmentation.segmenter import Segmenter, build_segmenter
from fastcomus.settings import get_preset_config, parse_scales
from fastcomus.store.masks import get_mask_file_name, read_class_map, write_class_map
from fastcomus.store.run_folder import RunFolder

Batch = tuple[list[torch.Tensor], list[tuple[int, int]], list[str]]
K = 14


def main() -> None:
    arguments = harness.make_parser(__doc__, "prediction", data=None, count=64, repeats=5, workers=2).parse_args()
    backend, config, found = select("cpu"), get_preset_config("offline"), find_images(arguments.data)
    names = found.names[: arguments.count]
    torch.manual_seed(0)
    segmenter = build_segmenter("efficientnet-lite0", "", K, 16).eval()
    pixels = {name: backend.decode(str(found.root / name), config.embed.max_pixels) for name in names}
    batches = make_batches(pixels, config.predict, segmenter.output_stride)
    with tempfile.TemporaryDirectory() as scratch:
        folder = RunFolder(scratch)

        def write(prediction: Prediction) -> None:
            write_class_map(folder, get_mask_file_name(prediction.image), prediction.compute_labels())

        def predict() -> None:
            given = (segmenter, found.root, names, (), write, config, backend, arguments.workers, "predict")
            for _ in label_images(*given):
                pass

        sides = {
            "predict": predict,
            "network": lambda: run_bare(segmenter, batches, config.predict.flip, False),
            "network and labels": lambda: run_bare(segmenter, batches, config.predict.flip, True),
        }
        times = harness.time_sides(sides, arguments.repeats)
        bare = times["network and labels"].result
        agreement = [(read_class_map(folder, get_mask_file_name(name)) == bare[name]).mean() for name in names]
    assert min(agreement) > 0.9, min(agreement)  # interpolate does not know where strided logits lie: half a stride
    numbers: harness.Row = {"images": len(names), "agreement": float(np.mean(agreement))}
    for side, taken in times.items():
        for unit in ("wall", "cpu"):
            seconds, ours = getattr(taken, f"{unit}_s"), getattr(times["predict"], f"{unit}_s")
            numbers[f"{side}, images per {unit} second"] = harness.summarise(len(names) / one for one in seconds)
            if side != "predict":
                ratios = [bare_s / own_s for bare_s, own_s in zip(seconds, ours, strict=True)]
                numbers[f"predict over {side}, {unit}"] = harness.summarise(ratios)
    harness.finish(arguments, "predict", numbers)


@torch.inference_mode()
def run_bare(segmenter: Segmenter, batches: list[Batch], flip: bool, with_labels: bool) -> dict[str, np.ndarray]:
    made = {}
    for images, sizes, names in batches:
        logits = []
        for one in images:
            found = segmenter(torch.cat([one, one.flip(-1)]) if flip else one)
            logits.append((found[: len(one)] + found[len(one) :].flip(-1)) / 2 if flip else found)
        if with_labels:
            for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
                wide = [F.interpolate(one[place, None], size, mode="bilinear", align_corners=True) for one in logits]
                made[name] = torch.stack([one.softmax(1) for one in wide]).sum(0).argmax(1)[0].numpy()
    return made


def make_batches(pixels: dict[str, np.ndarray], config: PredictConfig, output_stride: int) -> list[Batch]:
    """The batches that `predict` makes, in memory."""
    made: list[Batch] = []
    names = list(pixels)
    sides = [scale * config.predict_size for scale in parse_scales(config)]
    for start in range(0, len(names), WINDOW):
        groups: dict[tuple[torch.Size, ...], list[tuple[str, list[torch.Tensor]]]] = defaultdict(list)
        for name in names[start : start + WINDOW]:
            images = [resize_shorter_side(pixels[name], side, output_stride) for side in sides]
            groups[tuple(image.shape for image in images)].append((name, images))
        for group in groups.values():
            for first in range(0, len(group), config.predict_batch):
                part = group[first : first + config.predict_batch]
                stacked = [torch.stack(list(one)) for one in zip(*(images for _, images in part), strict=True)]
                made.append((stacked, [pixels[name].shape[:2] for name, _ in part], [name for name, _ in part]))
    return made


if __name__ == "__main__":
    main()
