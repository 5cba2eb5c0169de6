"""How objects are found in an image: a table of names, one file per family of methods.

A proposer is called as `proposer(name, pixels)`, with the image's name in its folder and its pixels (H, W, 3) uint8,
and returns saliency maps (M, H, W) float32 in [0, 1], one per object hypothesis (most methods: M = 1), or masks
(M, H, W) bool that need no threshold. It is called from several threads at once and must depend on that image alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fastcomus.config import nearest
from fastcomus.errors import InputError

Proposer = Callable[[str, np.ndarray], np.ndarray]


def _background_prior() -> Proposer:
    try:
        from fastcomus.saliency.background_prior import BackgroundPrior
    except ImportError as error:
        raise InputError(
            'saliency background-prior needs scikit-image; run pip install "fastcomus[offline]".'
        ) from error
    return BackgroundPrior()


PROPOSERS: dict[str, Callable[[], Proposer]] = {"background-prior": _background_prior}


def load_proposer(saliency: str, masks: str) -> Proposer:
    """The proposer named `saliency`, or one that reads the folder `masks` when that is not empty.

    Raises InputError for an unknown name or a folder that is not there.
    """
    if masks:
        from fastcomus.saliency.mask_folder import MaskFolder

        return MaskFolder(Path(masks))
    if saliency not in PROPOSERS:
        raise InputError(
            f"saliency must be one of {', '.join(PROPOSERS)}; got {saliency!r}{nearest(saliency, PROPOSERS)}"
        )
    return PROPOSERS[saliency]()
