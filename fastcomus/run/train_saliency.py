"""`train-saliency`: a saliency network of one's own, made of unlabelled images."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcomus.images.listing import Images
from fastcomus.run.stage import stage
from fastcomus.run.workplace import Workplace
from fastcomus.settings import with_settings
from fastcomus.store.run_folder import RunFolder

log = logging.getLogger("fastcomus")


@stage()
def train_saliency(at: Workplace, images: Images, output: Path | str, *, settings: Mapping[str, Any]) -> Path:
    """Train a saliency network on the images, with no label; see `Run.train_saliency`."""
    config = with_settings(at.config, {"saliency": settings})
    found = at.list_images(images)
    from fastcomus.run.saliency_network import check_backbones, obtain_network  # only now: it takes seconds

    check_backbones(config)
    at.remember(config)
    made = obtain_network(found, at)
    log.info("train-saliency: use it with --saliency %s", made)
    if not output:
        return made
    with RunFolder(Path(output).parent).replace_file(Path(output).name) as path:
        shutil.copyfile(made, path)
    return Path(output)
