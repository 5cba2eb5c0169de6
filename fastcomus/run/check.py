"""What `run` checks before it computes anything."""

from __future__ import annotations

from pathlib import Path

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
    check_name(config.train.backbone)
    if config.train.extend:
        find_listed_images(config.train.extend)
    if truth:
        read_truth(str(truth), Path(classes) if classes else None, found.names)
    return found
