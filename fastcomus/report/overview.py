"""First part of the report: the images, those left out and why, the settings and the networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastcomus.clusters.cluster import MANY
from fastcomus.config import Config
from fastcomus.errors import escape_invalid_utf8
from fastcomus.report.findings import Findings
from fastcomus.settings import find_changed_settings, to_toml

_SKIPPED_SHOWN = 200


@dataclass(frozen=True)
class StageTime:
    """Seconds by the clock that a stage took."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class Setting:
    """A setting whose value differs from that of its preset, `usual`."""

    name: str
    value: Any
    usual: Any


@dataclass(frozen=True)
class Overview:
    """What the first part of the report shows.

    Attributes:
        images: Number of images looked at.
        images_with_objects: Number of those that gave an object.
        objects: Number of objects found.
        clusters: Number of clusters.
        filtered: Number of objects that did not pass the filter.
        folder: Where the images lie; "" without images.
        preset: Name of the preset.
        device: Where the run was computed.
        networks: Pairs of a purpose and the network used for it.
        notes: Remarks for the reader.
        times: Of the stages.
        reasons: Why images were left out and how many, the most frequent first.
        skipped: The first of the images left out.
        changed: Settings that differ from the preset.
        toml: All settings.
        few_kinds: Whether many objects fell into two clusters that nobody asked for.
    """

    images: int
    images_with_objects: int
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
    few_kinds: bool


def make_overview(found: Findings, curves: Mapping[int, Sequence[Mapping[str, float]]]) -> Overview:
    """Collect what the first part of the report shows.

    Args:
        found: The run's contents.
        curves: Lines of training.csv by iteration.

    Returns:
        The overview.
    """
    config = found.config
    networks = []
    if found.objects:
        networks = [
            ("objects found by", "masks of your own" if config.embed.masks else _name_saliency(found)),
            ("embedded by", config.embed.encoder),
        ]
        if config.embed.objects != "one" and not config.embed.masks:
            networks.insert(1, ("looked for in each", _name_objects(found)))
    if curves:
        networks.append(("segmentation trained on", config.train.backbone))
    return Overview(
        images=len(found.image_names) + sum(not row["width"] for row in found.skipped),
        images_with_objects=len(set(found.objects.images)) if found.objects else 0,
        objects=len(found.rows),
        clusters=len(found.clusters.sizes),
        filtered=int((~found.clusters.is_core).sum()),
        folder=escape_invalid_utf8(str(found.objects.root)) if found.objects else "",
        preset=config.preset,
        device=found.device,
        networks=tuple((what, escape_invalid_utf8(name)) for what, name in networks),
        notes=found.notes,
        times=_list_stage_times(found.seconds, curves),
        reasons=tuple(Counter(row["reason"] for row in found.skipped).most_common()),
        skipped=found.skipped[:_SKIPPED_SHOWN],
        changed=_list_changed_settings(config),
        toml=escape_invalid_utf8(to_toml(config)),
        few_kinds=not config.cluster.k and len(found.clusters.sizes) == 2 and len(found.rows) >= MANY,
    )


def _name_objects(found: Findings) -> str:
    """Return how many objects were looked for in each photograph, and that a verdict says so where it does."""
    looked_for = str((found.folder.read_manifest("objects") or {}).get("objects", "several"))
    return "one object, by a verdict on the photographs" if looked_for == "one" else "several objects"


def _name_saliency(found: Findings) -> str:
    """Return what found the objects; where that was chosen automatically, what it was."""
    saliency = found.config.embed.saliency
    if saliency != "auto":
        return saliency
    manifest = found.folder.read_manifest("objects") or {}
    made_by = str(manifest.get("saliency", saliency))
    if not made_by.startswith("saliency/"):
        return made_by
    if manifest.get("is_taught", True):  # which versions before did not write
        return "a network that these photographs taught"
    return "three-priors, weighed by what the objects of these photographs have in common"


def _list_stage_times(
    seconds: Mapping[str, float], curves: Mapping[int, Sequence[Mapping[str, float]]]
) -> tuple[StageTime, ...]:
    """Times of all stages but the report itself, and of each iteration's training by training.csv."""
    stages = [StageTime(escape_invalid_utf8(stage), taken) for stage, taken in seconds.items() if stage != "report"]
    iterations = (
        StageTime(f"training, iteration {iteration}", sum(line["images"] / line["images_per_s"] for line in lines))
        for iteration, lines in curves.items()
        if all(line["images_per_s"] > 0 for line in lines)
    )
    return (*stages, *iterations)


def _list_changed_settings(config: Config) -> tuple[Setting, ...]:
    changed = find_changed_settings(config).items()
    return tuple(Setting(name, _format_setting(given), _format_setting(usual)) for name, (given, usual) in changed)


def _format_setting(value: Any) -> str:
    return escape_invalid_utf8(str(value)) if value != "" else "none"
