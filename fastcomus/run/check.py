"""What `run` checks before it computes anything."""

from __future__ import annotations

from pathlib import Path

from fastcomus.errors import InputError
from fastcomus.images.found import ImageList
from fastcomus.images.listing import Images, find_listed_images
from fastcomus.networks.registry import check_name
from fastcomus.run.workplace import Workplace


def check_run(at: Workplace, images: Images, truth: Path | str, classes: Path | str) -> ImageList:
    """List the images, and check what later stages need of the settings, of `extend` and of the truth.

    Raises:
        InputError: If any of them is of no use.
    """
    from fastcomus.evaluation.truth.read import read_truth

    found = at.list_images(images)  # first, since the settings may have to seek weights
    config = at.config
    finds_one = config.embed.objects == "one" and config.embed.saliency != "maskcut" and not config.embed.masks
    if len(found.names) < 2 and finds_one:
        raise InputError(f"clusters need at least 2 photographs; got {len(found.names)}. Add some.")
    k, photographs = config.cluster.k, len(found.names)
    if k > photographs and finds_one:
        raise InputError(f"{k} clusters need at least as many photographs; got {photographs}. Lower --k or add some.")
    check_name(config.train.backbone)
    if config.train.extend:
        find_listed_images(config.train.extend, config.embed.every_seconds)
    if truth:
        read_truth(str(truth), Path(classes) if classes else None, found.names)
    return found
