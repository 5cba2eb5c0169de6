"""The pipeline as one would write it with scikit-image, timm, scikit-learn and torchvision alone, in a short script.

It does the same steps in the plainest way: an object is what differs in colour from the image's border, superpixel by
superpixel; its crop goes through the encoder; neighbours, spectral embedding and labels are scikit-learn's; the four
fifths of every cluster that lie nearest to its centre teach torchvision's DeepLabv3 head on the same backbone; the
network labels every image once. Crops, epochs, batches and rates are those of the preset `offline`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.measure import label as label_parts
from skimage.segmentation import slic
from sklearn.cluster import SpectralClustering
from sklearn.neighbors import kneighbors_graph
from torch import nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.transforms.v2 import RandomResizedCrop, Resize
from torchvision.transforms.v2 import functional as transforms
from torchvision.tv_tensors import Mask

from fastcomus.networks.weights import load

BACKBONE = "efficientnet-lite0"
CROP, TRAIN, SHOWN = 224, 256, 384  # px
EPOCHS, BATCH, RATE = 3, 8, 5e-4
FILTERED, NEIGHBOURS = 0.2, 30


def find_object(image: np.ndarray) -> np.ndarray:
    """The largest part (H, W) bool whose superpixels differ in colour from those at the border."""
    superpixels = slic(image, n_segments=250, compactness=20, start_label=0)
    colours = rgb2lab(image)
    count = superpixels.max() + 1
    sizes = np.bincount(superpixels.ravel(), minlength=count)
    means = np.stack([np.bincount(superpixels.ravel(), colours[..., c].ravel(), count) / sizes for c in range(3)], 1)
    border = np.unique(np.concatenate([superpixels[0], superpixels[-1], superpixels[:, 0], superpixels[:, -1]]))
    contrast = np.linalg.norm(means[:, None] - means[None, border], axis=2).mean(1)[superpixels]
    parts = label_parts(contrast > threshold_otsu(contrast))
    largest: np.ndarray = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return largest


def embed_objects(images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Normalised features (N, D) float32 of the bounding boxes of the masks."""
    network = load(BACKBONE, num_classes=0).eval()
    rows = []
    with torch.inference_mode():
        for image, mask in zip(images, masks, strict=True):
            (top, left), (bottom, right) = np.argwhere(mask).min(0), np.argwhere(mask).max(0)
            crop = to_tensor(image[top : bottom + 1, left : right + 1])[None]
            rows.append(network(normalise(transforms.resize(crop, [CROP, CROP], antialias=True))))
    return functional.normalize(torch.cat(rows)).numpy()


def cluster_objects(rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) from 1 on, and whether each object is among the four fifths nearest to its cluster's centre."""
    graph = kneighbors_graph(rows, NEIGHBOURS, include_self=False)
    labels = SpectralClustering(k, affinity="precomputed", assign_labels="cluster_qr", random_state=0).fit_predict(
        (graph + graph.T) / 2
    )
    is_core = np.zeros(len(rows), bool)
    for one in range(k):
        members = np.flatnonzero(labels == one)
        distance = np.linalg.norm(rows[members] - rows[members].mean(0), axis=1)
        is_core[members[distance <= np.quantile(distance, 1 - FILTERED)]] = True
    return labels + 1, is_core


class Network(nn.Module):
    """torchvision's DeepLabv3 head on the backbone."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.backbone = load(BACKBONE, features_only=True, out_indices=(-1,), output_stride=16)
        self.head = DeepLabHead(self.backbone.feature_info.channels()[-1], k + 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.backbone(normalise(images))[-1])
        return functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


def train_network(images: Sequence[np.ndarray], class_maps: Sequence[np.ndarray], k: int) -> Network:
    """Adam with a cosine schedule on random resized crops, mirrored at random."""
    torch.manual_seed(0)
    network = Network(k).train()
    crop = RandomResizedCrop((TRAIN, TRAIN), scale=(0.4, 1.0))
    steps = len(images) // BATCH * EPOCHS
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
            pairs = [crop(to_tensor(images[i]), Mask(torch.from_numpy(class_maps[i])[None])) for i in batch.tolist()]
            shown, truth = (torch.stack(list(side)) for side in zip(*pairs, strict=True))
            if torch.rand(()) < 0.5:
                shown, truth = shown.flip(-1), truth.flip(-1)
            loss = functional.cross_entropy(network(shown), truth[:, 0].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


@torch.inference_mode()
def label_images(network: Network, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Class maps (H, W) uint8 of the images' own sizes."""
    network.eval()
    resize = Resize(SHOWN, antialias=True)
    for image in images:
        logits = network(resize(to_tensor(image))[None])
        yield functional.interpolate(logits, image.shape[:2], mode="bilinear")[0].argmax(0).to(torch.uint8).numpy()


def read_images(files: Sequence[Path]) -> list[np.ndarray]:
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """(3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Pixels as this backbone takes them: in [-1, 1]."""
    return images * 2 - 1
