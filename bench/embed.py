"""Speed of `embed`: the saliency prior, the bare encoder, what the pipeline costs beyond the two, and a plain loop.

    python bench/embed.py --data ../shared/data/msrc14/JPEGImages

Three parts, each on the same images: the prior alone on decoded images, the encoder alone on crops in memory, and
`Run.embed` end to end (reading JPEGs, saliency or own masks, crops, encoder, Parquet). The overhead is what the whole
takes beyond its parts. The pipeline's embeddings are compared with the bare ones first.

Beside the pipeline on masks of one's own stands the loop that a user would write: a Dataset that opens image and mask
with Pillow, cuts and resizes, in a DataLoader, and the same timm network. Its embeddings are compared too; it stores
nothing. Then bfloat16 against float32, and peak memory and time per image on folders of two sizes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from measurement import describe_machine, measure_peak_mib, parse_device, write_numbers
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fastcomus.backends.choose import select
from fastcomus.clusters.cluster import cluster_embeddings
from fastcomus.config import EmbedConfig
from fastcomus.images.folder import find_images
from fastcomus.networks import weights
from fastcomus.networks.encoders import Encoder, get_pixel_statistics, load_encoder
from fastcomus.objects.saliency.methods import load_proposer
from fastcomus.run.run import Run
from fastcomus.settings import get_preset_config, with_settings
from fastcomus.store.embeddings import extract_embeddings
from fastcomus.store.masks import write_class_map
from fastcomus.store.run_folder import RunFolder

REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--count", type=int, default=256, help="images to use")
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 4000], help="folder sizes for peak memory")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--json", type=Path, default=Path("bench/results/embed.json"))
    parser.add_argument("--one-run", type=Path, help=argparse.SUPPRESS)  # in a process of its own: peak memory
    arguments = parser.parse_args()
    if arguments.one_run:
        _run_once(arguments.data, arguments.one_run, arguments.device)
        return
    device = parse_device(arguments.device)
    with tempfile.TemporaryDirectory() as scratch:
        images = _link_photographs(arguments.data, arguments.count, Path(scratch) / "images")
        numbers = {
            **describe_machine(device, "timm", "faiss-cpu", "faiss-gpu"),
            **measure(images, Path(scratch), device),
        }
        numbers["folders"] = [_measure_folder(arguments.data, size, Path(scratch), device) for size in arguments.memory]
    write_numbers(arguments.json, numbers)
    Console().print(build_table(numbers))


def measure(images: Path, scratch: Path, device: str) -> dict:
    """Seconds of each part and of the whole: the best of several repeats, since other work only ever adds."""
    config = get_preset_config("offline").embed
    backend = select(device)
    names = find_images(images).names
    pixels = [backend.decode(str(images / name), config.max_pixels) for name in names]
    proposer = load_proposer(config, backend.device)
    # `Run.embed` loads the network anew, so that this belongs to both sides.
    load_s, encoder = _time_best(lambda: load_encoder(config.encoder, "", config.crop_size, "float32", backend.device))

    workers = torch.get_num_threads()
    with ThreadPoolExecutor(workers) as pool:
        saliency_s, maps = _time_best(lambda: list(pool.map(proposer, names, pixels)))
    found = [backend.find_masks(m, config.theta, config.min_area) for m in maps]
    crops = torch.cat([backend.crop_resize(p, f.boxes, config.crop_size) for p, f in zip(pixels, found, strict=True)])
    encoder_s, bare = _time_best(lambda: _encode(encoder, crops, config.embed_batch or 32))
    bare /= np.linalg.norm(bare, axis=1, keepdims=True)

    masks = RunFolder(scratch / "masks")
    for name, objects in zip(names, found, strict=True):
        write_class_map(masks, f"{name}.png", objects.masks.any(axis=0).astype(np.uint8))

    def end_to_end(**settings: str) -> tuple[float, np.ndarray]:
        times = []
        for repeat in range(REPEATS):
            run = Run(scratch / f"run-{'-'.join(settings)}-{repeat}", preset="offline", device=device)
            started = time.perf_counter()
            run.embed(images, **settings)
            times.append(time.perf_counter() - started)
        return min(times), extract_embeddings(run.objects())

    whole_s, rows = end_to_end()
    with_masks_s, mask_rows = end_to_end(masks=str(scratch / "masks"))
    plain = weights.load(config.encoder, "", num_classes=0).eval().to(backend.device)
    loop_s, loop_rows = _time_best(lambda: _run_plain_loop(images, names, masks.path, plain, config, workers))
    loop_rows /= np.linalg.norm(loop_rows, axis=1, keepdims=True)
    for embedded in (rows, mask_rows):
        assert embedded.shape == bare.shape and np.abs(embedded - bare).max() < (1e-4 if device == "cpu" else 1e-2)
    n = len(names)
    return {
        "images": n,
        "objects": len(bare),
        "encoder_load_s": load_s,
        "saliency_images_per_s": n / saliency_s,
        "encoder_crops_per_s": len(bare) / encoder_s,
        "embed_images_per_s": n / whole_s,
        "overhead_over_saliency_and_encoder": whole_s / (load_s + saliency_s + encoder_s) - 1,
        "embed_own_masks_images_per_s": n / with_masks_s,
        "overhead_own_masks_over_encoder": with_masks_s / (load_s + encoder_s) - 1,
        "plain_loop_own_masks_images_per_s": n / (load_s + loop_s),
        "embed_own_masks_over_plain_loop": (load_s + loop_s) / with_masks_s,
        "plain_loop_least_cosine_to_embed": float((loop_rows * mask_rows).sum(axis=1).min()),
        **_compare_bf16(crops, bare, device),
    }


class _Crops(Dataset):
    """The object of every image by its mask, as a tensor for a timm network, in the way of the libraries' tutorials."""

    def __init__(self, images: Path, names: Sequence[str], masks: Path, network: nn.Module, side: int) -> None:
        self.images, self.names, self.masks, self.side = images, names, masks, side
        self.normalise = transforms.Normalize(*get_pixel_statistics(network))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(self.images / self.names[index]).convert("RGB")
        rows, columns = np.nonzero(np.array(Image.open(self.masks / f"{self.names[index]}.png")))
        crop = image.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        crop = crop.resize((self.side, self.side), Image.Resampling.BILINEAR)
        return self.normalise(transforms.functional.to_tensor(crop))


@torch.inference_mode()
def _run_plain_loop(
    images: Path, names: Sequence[str], masks: Path, network: nn.Module, config: EmbedConfig, workers: int
) -> np.ndarray:
    crops = _Crops(images, names, masks, network, config.crop_size)
    device = next(network.parameters()).device
    loader = DataLoader(crops, config.embed_batch or 32, num_workers=workers, pin_memory=device.type == "cuda")
    return torch.cat([network(batch.to(device)) for batch in loader]).cpu().numpy()


def build_table(numbers: dict) -> Table:
    made = Table("what", "measured", title=numbers["hardware"])
    percent = {name for name in numbers if name.startswith("overhead")}
    for name, value in numbers.items():
        if isinstance(value, int | float) and name != "threads":
            shown = f"{100 * value:+.1f} %" if name in percent else f"{value:.4g}"
            made.add_row(name.replace("_per_s", "/s").replace("_", " "), shown)
    for folder in numbers["folders"]:
        shown = f"{folder['peak_memory_mib']:.0f} MiB, {folder['ms_per_image']:.1f} ms an image"
        made.add_row(f"embed, folder of {folder['images']}", shown)
    return made


def _compare_bf16(crops: torch.Tensor, float32: np.ndarray, device: str) -> dict:
    """What bfloat16 does to embeddings and labels, and its speed here."""
    settings = get_preset_config("offline")
    embed = settings.embed
    encoder = load_encoder(embed.encoder, "", embed.crop_size, "bf16", torch.device(device))
    elapsed_s, rows = _time_best(lambda: _encode(encoder, crops, embed.embed_batch or 32), repeats=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    config = with_settings(settings, {"cluster": {"k": 14}}).cluster
    labels = [cluster_embeddings(r, config, 0, select("cpu")).clusters.labels for r in (float32, rows)]
    return {
        "bf16_crops_per_s": len(crops) / elapsed_s,
        "bf16_least_cosine_to_float32": float((rows * float32).sum(axis=1).min()),
        "bf16_labels_ari_to_float32": adjusted_rand_score(*labels),
    }


def _measure_folder(data: Path, size: int, scratch: Path, device: str) -> dict:
    """Peak memory and time per image of `embed` on a folder of `size` images, in a process of its own."""
    images = _link_photographs(data, size, scratch / f"images-{size}")
    command = [sys.executable, __file__, "--data", str(images), "--one-run", str(scratch / f"memory-{size}")]
    command += ["--device", device]
    reply = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"images": size, **json.loads(reply.stdout.splitlines()[-1])}


def _run_once(images: Path, folder: Path, device: str) -> None:
    run = Run(folder, preset="offline", device=device)
    run.embed(_link_first_image(images, folder.with_name(folder.name + "-warm")))  # loads the libraries and the network
    started = time.perf_counter()
    objects = run.embed(images)
    elapsed_s = time.perf_counter() - started
    ms = 1000 * elapsed_s / len(list(images.iterdir()))
    print(json.dumps({"objects": objects.objects, "peak_memory_mib": measure_peak_mib(), "ms_per_image": ms}))


def _link_first_image(images: Path, folder: Path) -> Path:
    return _link_photographs(images, 1, folder)


def _link_photographs(data: Path, count: int, folder: Path) -> Path:
    """A folder of `count` hard copies of the photographs in `data`, repeated under other names when there are fewer."""
    folder.mkdir(parents=True)
    found = find_images(data)
    for i in range(count):
        source = found.root / found.names[i % len(found.names)]
        (folder / f"{i:05d}{source.suffix}").write_bytes(source.read_bytes())
    return folder


def _encode(encoder: Encoder, crops: torch.Tensor, batch: int) -> np.ndarray:
    return torch.cat([encoder(part) for part in crops.split(batch)]).cpu().numpy()


def _time_best(work, repeats: int = REPEATS):  # type: ignore[no-untyped-def]
    work()  # warm
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - started)
    return min(times), result


if __name__ == "__main__":
    main()
