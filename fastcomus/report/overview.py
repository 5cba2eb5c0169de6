"""The first part of the report: what went in, what was left out and why, with which settings and networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fastcomus.config import STAGES
from fastcomus.errors import escape_invalid_utf8
from fastcomus.report.findings import Findings
from fastcomus.settings import get_preset_config, to_toml

_SKIPPED_SHOWN = 200


@dataclass(frozen=True)
class StageTime:
    """`seconds`: on the clock."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class Setting:
    """A setting that is not what its preset says."""

    name: str
    value: Any
    usual: Any


@dataclass(frozen=True)
class Overview:
    """`reasons`: why images were left out, most often first; `skipped`: the first of them. `networks`: what was used
    for what. `toml`: all settings."""

    images: int
    objects: int
    clusters: int
    filtered: int
    folder: str
    preset: str
    device: str
    networks: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    times: tuple[StageTime, ...]
    reasons: tuple[tuple[str, int], ...]
    skipped: tuple[dict[str, Any], ...]
    changed: tuple[Setting, ...]
    toml: str


def make_overview(found: Findings, curves: Mapping[int, Sequence[Mapping[str, float]]]) -> Overview:
    config = found.config
    networks = []
    if found.objects:
        networks = [
            ("objects found by", "masks of your own" if config.embed.masks else config.embed.saliency),
            ("embedded by", config.embed.encoder),
        ]
    if curves:
        networks.append(("segmentation trained on", config.train.backbone))
    left_out = [row for row in found.skipped]
    return Overview(
        images=len(found.image_names) + sum(not row["width"] for row in left_out),
        objects=len(found.rows),
        clusters=len(found.clusters.sizes),
        filtered=int((~found.clusters.is_core).sum()),
        folder=escape_invalid_utf8(str(found.objects.root)) if found.objects else "",
        preset=config.preset,
        device=found.device,
        networks=tuple((what, escape_invalid_utf8(name)) for what, name in networks),
        notes=found.notes,
        times=_list_stage_times(found.seconds, curves),
        reasons=tuple(Counter(row["reason"] for row in left_out).most_common()),
        skipped=tuple(left_out[:_SKIPPED_SHOWN]),
        changed=_list_changed_settings(found),
        toml=escape_invalid_utf8(to_toml(config)),
    )


def _list_stage_times(
    seconds: Mapping[str, float], curves: Mapping[int, Sequence[Mapping[str, float]]]
) -> tuple[StageTime, ...]:
    """Of every stage but the report itself, and what training.csv tells of each iteration."""
    stages = [StageTime(escape_invalid_utf8(stage), taken) for stage, taken in seconds.items() if stage != "report"]
    iterations = (
        StageTime(f"training, iteration {iteration}", sum(line["images"] / line["images_per_s"] for line in lines))
        for iteration, lines in curves.items()
        if all(line["images_per_s"] > 0 for line in lines)
    )
    return (*stages, *iterations)


def _list_changed_settings(found: Findings) -> tuple[Setting, ...]:
    usual = get_preset_config(found.config.preset)
    changed = []
    for stage, kind in STAGES.items():
        for field in fields(kind):
            given, default = (
                getattr(getattr(found.config, stage), field.name),
                getattr(getattr(usual, stage), field.name),
            )
            if given != default:
                changed.append(Setting(f"{stage}.{field.name}", _format_setting(given), _format_setting(default)))
    return tuple(changed)


def _format_setting(value: Any) -> str:
    return escape_invalid_utf8(str(value)) if value != "" else "none"
