"""The objects of a batch of images by torch alone, on any device: masks, boxes, run lengths, crops and class maps.

All maps of a batch are worked on together, each at the upper left of a rectangle that holds the largest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from fastcomus.backends.cpu import OTSU_BINS
from fastcomus.backends.interface import FoundObjects, Image, LabelledMasks
from fastcomus.backends.machine import move_to_device
from fastcomus.backends.run_lengths import encode_run_lengths

_MOST_PIXELS = 2**25  # of maps worked on together, unless a single one has more


def find_objects_by_torch(
    device: torch.device,
    images: Sequence[Image],
    maps: Sequence[np.ndarray | torch.Tensor],
    theta: str,
    min_area: int,
    crop_size: int,
) -> list[FoundObjects]:
    """See `Backend.find_objects`; crops stay on the device."""
    each = [one for own in maps for one in own]
    owners = np.repeat(np.arange(len(images)), [len(own) for own in maps])
    sizes = [(int(images[owner].shape[0]), int(images[owner].shape[1])) for owner in owners]
    masks = [found for part in _cut_into_parts(sizes) for found in _find_masks(each, sizes, part, theta, device)]
    objects = []
    for number, image in enumerate(images):
        own = [masks[place] for place in np.flatnonzero(owners == number)]
        kept = [one for one in own if one.area >= min_area]
        too_small = not kept and any(one.area for one in own)
        boxes = np.array([one.box for one in kept], np.int32).reshape(-1, 4)
        objects.append(
            FoundObjects(
                boxes,
                np.array([one.area for one in kept], np.int64),
                np.array([one.score for one in kept], np.float32),
                [encode_run_lengths(one.changes, (int(image.shape[0]), int(image.shape[1]))) for one in kept],
                _cut_crops(image, boxes, crop_size, device),
                too_small,
            )
        )
    return objects


def assemble_masks_by_torch(device: torch.device, image: LabelledMasks) -> np.ndarray:
    """Make the class map of one image; see `Backend.assemble_masks`."""
    if not len(image.masks):
        return np.zeros(image.shape, np.uint16)
    masks = move_to_device(torch.from_numpy(np.stack(image.masks)), device)
    numbers = torch.arange(1, len(masks) + 1, device=device, dtype=torch.int32)
    topmost = (masks * numbers[:, None, None]).amax(0)
    classes = torch.tensor([0, *(label + 1 for label in image.labels)], dtype=torch.int32).to(device)
    return classes[topmost].to(torch.uint16).cpu().numpy()


@dataclass(frozen=True)
class _Mask:
    """`changes`: the places x H + y where it changes, down the columns. `box` is undefined without an area."""

    area: int
    score: float
    box: tuple[int, int, int, int]
    changes: np.ndarray


def _cut_into_parts(sizes: Sequence[tuple[int, int]]) -> Iterator[slice]:
    """Cut maps into runs whose common rectangle is not too large."""
    start, height, width = 0, 0, 0
    for place, size in enumerate(sizes):
        taller, wider = max(height, size[0]), max(width, size[1])
        if place > start and (place + 1 - start) * taller * wider > _MOST_PIXELS:
            yield slice(start, place)
            start, (taller, wider) = place, size
        height, width = taller, wider
    if start < len(sizes):
        yield slice(start, len(sizes))


@torch.inference_mode()
def _find_masks(
    maps: Sequence[np.ndarray | torch.Tensor],
    all_sizes: Sequence[tuple[int, int]],
    part: slice,
    theta: str,
    device: torch.device,
) -> list[_Mask]:
    """Find the masks of some maps, each at its size."""
    sizes = all_sizes[part]
    given = [move_to_device(torch.as_tensor(one), device) for one in maps[part]]
    are_masks = given[0].dtype == torch.bool
    heights, widths = (torch.tensor(one).to(device) for one in zip(*sizes, strict=True))
    rows, columns = (torch.arange(max(one), device=device) for one in zip(*sizes, strict=True))
    is_inside = (rows < heights[:, None])[:, :, None] & (columns < widths[:, None])[:, None]
    is_at_size = all(tuple(one.shape) == size for one, size in zip(given, sizes, strict=True))
    if is_at_size:
        saliency = torch.zeros(is_inside.shape, device=device)
        for target, one, (height, width) in zip(saliency, given, sizes, strict=True):
            target[:height, :width] = one
    else:
        saliency = _enlarge(torch.stack(given).float(), heights, widths, rows, columns)
    if are_masks:
        masks = (saliency > 0.5) & is_inside
    else:
        saliency = saliency.clamp_(0, 1)
        limits = _find_thresholds(saliency, is_inside) if theta == "otsu" else float(theta)
        masks = (saliency > limits) & is_inside
    areas = masks.sum((1, 2))
    scores = (saliency.double() * masks).sum((1, 2)) / areas.clamp(min=1)
    if are_masks:  # a mask is sure of itself
        scores = torch.ones_like(scores)
    boxes = [*_find_ends(masks.any(1), columns), *_find_ends(masks.any(2), rows)]
    owners, places = _find_changes(masks, is_inside, heights)
    counts = torch.bincount(owners, minlength=len(masks))
    numbers = torch.stack([areas, *boxes, counts]).cpu().tolist()
    changes = np.split(places.cpu().numpy(), np.cumsum(numbers[5])[:-1])
    return [
        _Mask(area, score, (x0, y0, x1, y1), own)
        for area, x0, x1, y0, y1, score, own in zip(*numbers[:5], scores.cpu().tolist(), changes, strict=True)
    ]


def _enlarge(
    maps: torch.Tensor, heights: torch.Tensor, widths: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Resize maps (M, h, w) bilinearly, each to its own height and width, in (M, H, W); outside is undefined."""
    for sides, pixels, axis in ((heights, rows, 1), (widths, columns, 2)):
        source = maps.shape[axis]
        position = (pixels + 0.5) * (source / sides.double())[:, None] - 0.5
        position = position.clamp(0, source - 1)
        first = position.long()
        shape = list(maps.shape)
        shape[axis] = len(pixels)
        view = (-1, len(pixels), 1) if axis == 1 else (-1, 1, len(pixels))
        ahead = (position - first).float().view(view)
        here = maps.gather(axis, first.view(view).expand(shape))
        there = maps.gather(axis, (first + 1).clamp(max=source - 1).view(view).expand(shape))
        maps = here * (1 - ahead) + there * ahead
    return maps


def _find_thresholds(saliency: torch.Tensor, is_inside: torch.Tensor) -> torch.Tensor:
    """Find Otsu's threshold of every map, (M, 1, 1) float32; see `compute_otsu_threshold`."""
    bins = (saliency * (OTSU_BINS - 1) + 0.5).long()
    bins += OTSU_BINS * torch.arange(len(saliency), device=saliency.device)[:, None, None]
    bins = torch.where(is_inside, bins, OTSU_BINS * len(saliency))
    counts = torch.bincount(bins.flatten(), minlength=OTSU_BINS * len(saliency) + 1)[:-1].view(-1, OTSU_BINS)
    levels = torch.arange(OTSU_BINS, device=counts.device)
    below, sums = counts.cumsum(1), (counts * levels).cumsum(1)
    above = below[:, -1:] - below
    apart = sums.double() / below.clamp(min=1) - (sums[:, -1:] - sums).double() / above.clamp(min=1)
    between = below.double() * above * apart**2
    between = torch.where((below > 0) & (above > 0), between, -1.0)
    limits = ((between.argmax(1) + 0.5) / (OTSU_BINS - 1)).float()
    return torch.where(between.amax(1) < 0, 1.0, limits)[:, None, None]


def _find_ends(is_used: torch.Tensor, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the first number at which each row of (M, L) bool is true, and the number after the last."""
    first = torch.where(is_used, numbers, len(numbers)).amin(1)
    return first, torch.where(is_used, numbers + 1, 0).amax(1)


def _find_changes(
    masks: torch.Tensor, is_inside: torch.Tensor, heights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find where masks (M, H, W) change down their columns, one column after the other: mask and place x H + y of each.

    The pixel before the first one counts as outside of the mask, as in COCO's run lengths.
    """
    turned = masks.transpose(1, 2)
    last = turned.gather(2, (heights - 1)[:, None, None].expand(-1, turned.shape[1], 1))[:, :, 0]
    before = torch.cat([functional.pad(last[:, :-1], (1, 0))[:, :, None], turned[:, :, :-1]], dim=2)
    owners, x, y = ((turned != before) & is_inside.transpose(1, 2)).nonzero(as_tuple=True)
    return owners, (x * heights[owners] + y).int()


def _cut_crops(image: Image, boxes: np.ndarray, size: int, device: torch.device) -> torch.Tensor:
    """Cut boxes (M, 4) out of an image and resize them, antialiased, to (M, 3, size, size) uint8 on the device."""
    if not len(boxes):
        return torch.empty((0, 3, size, size), dtype=torch.uint8, device=device)
    pixels = torch.from_numpy(np.require(image, requirements="W")) if isinstance(image, np.ndarray) else image
    planes = move_to_device(pixels, device).permute(2, 0, 1)[None].float()
    crops = [
        functional.interpolate(
            planes[:, :, y0:y1, x0:x1], [size, size], mode="bilinear", align_corners=False, antialias=True
        )
        for x0, y0, x1, y1 in boxes.tolist()
    ]
    return torch.cat(crops).round_().clamp_(0, 255).to(torch.uint8)
