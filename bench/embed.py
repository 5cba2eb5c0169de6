"""Speed of `embed`: the saliency prior, the bare encoder, what the pipeline costs beyond the two, and a plain loop.

    python -m bench.embed --data ../shared/data/msrc14/JPEGImages

Three parts, each on the same images: the prior alone on decoded images, the encoder alone on crops in memory, and
`Run.embed` end to end (reading JPEGs, saliency or own masks, crops, encoder, Parquet). The overhead is what the whole
takes beyond its parts. The pipeline's embeddings are compared with the bare ones first.

Beside the pipeline on masks of one's own stands the loop that a user would write: a Dataset that opens image and mask
with Pillow, cuts and resizes, in a DataLoader, and the same timm network. Its embeddings are compared too; it stores
nothing. Last comes bfloat16 against float32. The memory of `embed` is in bench/scale.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import adjusted_rand_score
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench import harness
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


def main() -> None:
    arguments = harness.make_parser(__doc__, "embed", data=None, count=256, repeats=3, device="cpu").parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = find_images(arguments.data)
        photographs = [found.root / name for name in found.names[: arguments.count]]
        images = harness.link_images(photographs, Path(scratch, "images"))
        numbers = measure(images, Path(scratch), harness.select_device(arguments.device), arguments.repeats)
    harness.finish(arguments, "embed", numbers, "timm", "faiss-cpu", "faiss-gpu")


def measure(images: Path, scratch: Path, device: str, repeats: int) -> harness.Row:
    """Seconds of each part and of the whole: the best of several repeats, since other work only ever adds."""
    config = replace(get_preset_config("offline").embed, saliency="background-prior")
    backend = select(device)
    names = find_images(images).names
    pixels = [backend.decode(str(images / name), config.max_pixels) for name in names]
    proposer = load_proposer(config, backend.device)
    workers, batch = torch.get_num_threads(), config.embed_batch or 32

    def time_best(work: Callable[[], Any], repeats: int = repeats) -> tuple[float, Any]:
        times = harness.time_sides({"": work}, repeats, device)[""]
        return min(times.wall_s), times.result

    def load(precision: str) -> Encoder:
        return load_encoder(config.encoder, "", config.crop_size, precision, backend.device)

    def embed(**settings: str) -> np.ndarray:
        run = Run(tempfile.mkdtemp(dir=scratch), preset="offline", device=device)
        run.embed(images, saliency=config.saliency, **settings)
        return extract_embeddings(run.objects())

    load_s, encoder = time_best(lambda: load("float32"))  # `Run.embed` loads it too: this belongs to both sides
    with ThreadPoolExecutor(workers) as pool:
        saliency_s, maps = time_best(lambda: list(pool.map(proposer, names, pixels)))
    found = [backend.find_masks(m, config.theta, config.min_area) for m in maps]
    crops = torch.cat([backend.crop_resize(p, f.boxes, config.crop_size) for p, f in zip(pixels, found, strict=True)])
    encoder_s, bare = time_best(lambda: encode(encoder, crops, batch))
    masks = RunFolder(scratch / "masks")
    for name, objects in zip(names, found, strict=True):
        write_class_map(masks, f"{name}.png", objects.masks.any(axis=0).astype(np.uint8))
    whole_s, rows = time_best(embed)
    with_masks_s, mask_rows = time_best(lambda: embed(masks=str(masks.path)))
    plain = weights.load(config.encoder, "", num_classes=0).eval().to(backend.device)
    loop_s, loop_rows = time_best(lambda: run_plain_loop(images, names, masks.path, plain, config, workers))
    for embedded in (rows, mask_rows):
        assert embedded.shape == bare.shape
        assert np.abs(embedded - bare).max() < (1e-4 if device == "cpu" else 1e-2)
    half_encoder = load("bf16")
    half_s, half = time_best(lambda: encode(half_encoder, crops, batch), 1)
    clustering = with_settings(get_preset_config("offline"), {"cluster": {"k": 14}}).cluster
    labels = [cluster_embeddings(r, clustering, 0, select("cpu")).clusters.labels for r in (bare, half)]
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
        "bf16_crops_per_s": len(crops) / half_s,
        "bf16_least_cosine_to_float32": float((half * bare).sum(axis=1).min()),
        "bf16_labels_ari_to_float32": adjusted_rand_score(*labels),
    }


class Crops(Dataset):
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
def run_plain_loop(
    images: Path, names: Sequence[str], masks: Path, network: nn.Module, config: EmbedConfig, workers: int
) -> np.ndarray:
    crops = Crops(images, names, masks, network, config.crop_size)
    device = next(network.parameters()).device
    loader = DataLoader(crops, config.embed_batch or 32, num_workers=workers, pin_memory=device.type == "cuda")
    return normalise_rows(torch.cat([network(batch.to(device)) for batch in loader]))


def encode(encoder: Encoder, crops: torch.Tensor, batch: int) -> np.ndarray:
    return normalise_rows(torch.cat([encoder(part) for part in crops.split(batch)]))


def normalise_rows(rows: torch.Tensor) -> np.ndarray:
    found = rows.cpu().numpy()
    return found / np.linalg.norm(found, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
