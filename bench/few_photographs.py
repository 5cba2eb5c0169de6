"""What few photographs teach: the foreground's IoU of their own masks by weighed priors, and by the network they teach.

    python -m bench.few_photographs --data DIR/JPEGImages --masks DIR/Saliency --list DIR/objects.txt

As many photographs as `--counts` says are drawn, once for each of `--seeds`; they alone teach, and their own masks are
scored. `--masks` and `--list` as for bench/saliency.py. Means over the seeds, beside the seconds that teaching took.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import harness
from bench.saliency import add_mask_options, list_masked_images, measure_method, read_masks
from fastcomus.run.run import Run
from fastcomus.run.saliency_network import obtain_network


def main() -> None:
    parser = harness.make_parser(__doc__, "few_photographs", data=None, device="auto")
    add_mask_options(parser)
    parser.add_argument("--counts", type=int, nargs="*", default=[6, 10, 20, 40])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--preset", default="offline")
    arguments = parser.parse_args()
    images = list_masked_images(arguments)
    rows: list[harness.Row] = []
    for count in arguments.counts:
        found = []
        for seed in range(arguments.seeds):
            drawn = [images[index] for index in np.sort(np.random.default_rng(seed).permutation(len(images))[:count])]
            found.append(measure_teaching(drawn, read_masks(arguments, drawn), arguments.preset, arguments.device))
        rows.append({"photographs": count, **{name: float(np.mean([one[name] for one in found])) for name in found[0]}})
        rows[-1]["least_gain"] = min(one["taught"] - one["weighed"] for one in found)
        harness.print_progress(rows[-1])
    harness.finish(arguments, "Few photographs", {"rows": rows}, "timm")


def measure_teaching(images: Sequence[Path], masks: Sequence[np.ndarray], preset: str, device: str) -> dict[str, float]:
    """Foreground IoU in [0, 1] of the images' masks by what their objects have in common, and by their network, too."""
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        links = harness.link_images(images, Path(scratch) / "images")
        for name, has_network in (("weighed", False), ("taught", True)):
            at = Run(Path(scratch) / name, preset=preset, device=device).workplace
            times = harness.time_once(obtain_network, at.list_images(links), at, has_network)
            by = replace(at.config.embed, saliency=str(times.result))
            measured[name] = measure_method(images, masks, by, at.backend.device)["foreground_iou"]
            measured[f"{name}_s"] = times.wall_s[0]
    return measured


if __name__ == "__main__":
    main()
