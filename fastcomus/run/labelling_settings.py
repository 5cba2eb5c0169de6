"""Settings of labelling: what `--fast` and `--best` make of them, and what fingerprints hold of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastcomus.config import PredictConfig
from fastcomus.settings import get_preset_config, parse_scales

QUALITIES = ("", "fast", "best")


def choose_quality(quality: str, preset: str) -> dict[str, Any]:
    """Return what `predict` lays over the settings of a run when it is to be fast or at its best.

    Sizes are shares of the preset's, since a run folder of an earlier version remembers others.

    Args:
        quality: "fast": the smallest of the preset's sizes, or three quarters of a single one; "best": all of them, or
            one on each side of a single one, and their mirror images; "": nothing.
        preset: 'voc', 'coco', 'dino' or 'offline'.
    """
    if not quality:
        return {}
    usual = get_preset_config(preset).predict
    sizes = parse_scales(usual)
    smaller, larger = (f"{share * sizes[0]:g}" for share in (0.75, 1.125))
    has_several = len(sizes) > 1
    scales = {
        "fast": f"{min(sizes):g}" if has_several else smaller,
        "best": usual.scales if has_several else f"{smaller}, {larger}",
    }
    return {"predict_size": usual.predict_size, "scales": scales[quality], "flip": quality == "best"}


def describe_prediction(config: PredictConfig) -> dict[str, Any]:
    """Return the settings that labels depend on, as fingerprints hold them."""
    settings = asdict(config)
    for setting in ("follow_edges", "region_weight", "least_part"):  # which versions before did not know
        if not settings[setting]:
            del settings[setting]
    return settings
