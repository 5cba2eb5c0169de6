"""Settings of a run: presets, checks, TOML in and out."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastcomus.config import (
    ASSIGNMENTS,
    AUTOMATIC_PRECISIONS,
    CLUSTER_METHODS,
    COUNT_CRITERIA,
    METRICS,
    PRECISIONS,
    SALIENCY_PRIORS,
    SCHEDULES,
    STAGES,
    Config,
    PredictConfig,
    SaliencyConfig,
)
from fastcomus.errors import InputError, suggest_names
from fastcomus.images.addresses import check_no_secrets, is_url

# What each preset changes. `voc` and `coco` are Tables 9 and 11 of the paper.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "voc": {
        "embed": {"saliency": "basnet-unsupervised", "theta": "0.5"},
        "cluster": {"k": 20, "assign": "kmeans"},
    },
    "coco": {
        "embed": {"saliency": "basnet-unsupervised", "theta": "0.5"},
        "cluster": {"k": 80, "assign": "kmeans"},
        "train": {"train_size": 256, "scale_min": 0.2, "scale_max": 1.0, "epochs": 1, "next_epochs": 1},
        "predict": {"predict_size": 256},
    },
    # Models of `voc` for people's own folders: k is theirs to say, and 256 px keeps training bearable.
    "dino": {
        "saliency": {"network": "dino_resnet50"},
        "train": {"train_size": 256},
        "predict": {"predict_size": 320},
    },
    "offline": {
        "saliency": {
            "refine_backbone": "efficientnet-lite0",
            "refine_epochs": 0,  # on 494 photographs refinement lost more than it gained
            "epochs": 12,
            "network": "efficientnet-lite0",
            "learning_rate": 5e-4,
        },
        "embed": {"encoder": "efficientnet-lite0", "crop_size": 224, "normalize": True},
        "train": {
            "backbone": "efficientnet-lite0",
            "output_stride": 16,
            "train_size": 320,  # logits of a coarse network are finer on enlarged images
            "scale_min": 0.4,
            "scale_max": 1.0,
            "epochs": 5,
            "learning_rate": 5e-4,
            "schedule": "cosine",
            "batch_size": 16,
            "weight_average": 0.98,
            "mask_weight": 0.2,
        },
        # Larger than in training, where random crops enlarge objects; the coarse size knows the object, the fine one
        # its outline.
        "predict": {"predict_size": 384, "scales": "1, 1.5", "flip": True},
    },
}


def get_preset_config(preset: str) -> Config:
    """The configuration of a preset by name ('voc', 'coco', 'dino' or 'offline')."""
    if preset not in PRESETS:
        raise InputError(
            f"preset must be one of {', '.join(['auto', *PRESETS])}; got {preset!r}{suggest_names(preset, PRESETS)}"
        )
    return with_settings(Config(preset=preset), PRESETS[preset])


def resolve(
    stored: Mapping[str, Any] | None,
    preset: str | None,
    seed: int | None,
    settings: Mapping[str, Any],
    choose_preset: Callable[[], str],
) -> Config:
    """A run's configuration: what its folder has `stored` (else the preset's), under what is given now.

    `choose_preset` is asked when the preset is to be "auto". A preset other than the stored one starts afresh.
    """
    wanted = preset or settings.get("preset")
    if wanted is not None:
        _convert_value("preset", wanted, str)
    if stored is not None and wanted in (None, stored.get("preset")):
        config = from_dict(stored)
    else:
        config = get_preset_config(choose_preset() if wanted in (None, "auto") else wanted)
    given = {name: value for name, value in settings.items() if name != "preset"}
    return with_settings(config, given if seed is None else {**given, "seed": seed})


def with_settings(config: Config, settings: Mapping[str, Mapping[str, Any] | Any]) -> Config:
    """`config` with `settings` ({"cluster": {"k": 14}, "seed": 3}) laid over it, checked.

    Raises InputError for a name that does not exist, a value of the wrong type or out of its range.
    """
    changed: dict[str, Any] = {}
    for name, value in settings.items():
        if name in STAGES:
            if not isinstance(value, Mapping):
                raise InputError(f"[{name}] must be a table of settings; got {value!r}.")
            stage = getattr(config, name)
            known = {f.name: f for f in dataclasses.fields(stage)}
            for key, given in value.items():
                if key not in known:
                    raise InputError(f"{name} has no setting {key!r}{suggest_names(key, known)}")
                if given and given == known[key].metadata["zero"]:
                    given = 0
                value = {**value, key: _convert_value(f"{name}.{key}", given, type(getattr(stage, key)))}
            changed[name] = replace(stage, **value)
        elif name in ("preset", "seed"):
            changed[name] = _convert_value(name, value, type(getattr(config, name)))
        else:
            raise InputError(f"there is no setting {name!r}{suggest_names(name, [*STAGES, 'preset', 'seed'])}")
    result = replace(config, **changed)
    check(result)
    return result


def check(config: Config) -> None:
    """Raise InputError for the first value that is out of its range."""
    saliency, embed, cluster = config.saliency, config.embed, config.cluster
    train, predict, report = config.train, config.predict, config.report
    # NumPy, scikit-learn and torch each take their seed from it; every iteration adds its number.
    _require(0 <= config.seed < 2**31, "seed", "lie in [0, 2147483647]", config.seed)
    if embed.theta != "otsu":
        try:
            theta_is_valid = 0 <= float(embed.theta) < 1
        except ValueError:
            theta_is_valid = False
        _require(theta_is_valid, "theta", "be 'otsu' or a number in [0, 1)", embed.theta)
    for stage, name, least in (
        (embed, "min_area", 1),
        (saliency, "refine_epochs", 0),
        (saliency, "epochs", 1),
        (saliency, "size", 32),
        (saliency, "batch_size", 2),
        (embed, "saliency_size", 32),
        (embed, "crop_size", 8),
        (embed, "embed_batch", 0),
        (embed, "shard_images", 1),
        (embed, "max_pixels", 1),
        (cluster, "max_k", 2),
        (cluster, "n_neighbors", 2),
        (cluster, "n_components", 0),
        (cluster, "n_init", 1),
        (train, "iterations", 1),
        (train, "epochs", 1),
        (train, "next_epochs", 1),
        (train, "train_size", 32),
        (train, "batch_size", 2),
        (train, "images_at_once", 0),
        (predict, "predict_size", 32),
        (predict, "predict_batch", 0),
        (report, "map_objects", 4),
        (report, "shown_images", 1),
        (report, "samples", 2),
    ):
        _require(getattr(stage, name) >= least, name, f"be at least {least}", getattr(stage, name))
    _require(cluster.k == 0 or cluster.k >= 2, "k", "be at least 2", cluster.k)
    for stage, name, choices in (
        (saliency, "precision", AUTOMATIC_PRECISIONS),
        (embed, "precision", PRECISIONS),
        (embed, "saliency_precision", AUTOMATIC_PRECISIONS),
        (train, "precision", AUTOMATIC_PRECISIONS),
        (cluster, "method", CLUSTER_METHODS),
        (cluster, "metric", METRICS),
        (cluster, "assign", ASSIGNMENTS),
        (cluster, "choose_k", COUNT_CRITERIA),
        (train, "schedule", SCHEDULES),
    ):
        given = getattr(stage, name)
        if given not in choices:
            raise InputError(
                f"{name} must be one of {', '.join(choices)}; got {given!r}{suggest_names(given, choices)}"
            )
    _require(0 < cluster.recall <= 1, "recall", "lie in (0, 1]", cluster.recall)
    _require(0 < cluster.resolution < math.inf, "resolution", "be above 0", cluster.resolution)
    _require(0 <= cluster.filter < 1, "filter", "lie in [0, 1): the share of each cluster to leave out", cluster.filter)
    _require(0 <= config.assign.outliers < 1, "outliers", "lie in [0, 1)", config.assign.outliers)
    _require(train.output_stride in (8, 16, 32), "output_stride", "be 8, 16 or 32", train.output_stride)
    for stage in (saliency, train):
        in_order = 0 < stage.scale_min <= stage.scale_max
        _require(in_order, "scale_min", "be above 0 and at most scale_max", stage.scale_min)
        for name in ("scale_max", "learning_rate"):
            _require(math.isfinite(getattr(stage, name)), name, "be a finite number", getattr(stage, name))
        _require(stage.learning_rate > 0, "learning_rate", "be above 0", stage.learning_rate)
    head_rate = train.head_learning_rate
    _require(0 <= head_rate < math.inf, "head_learning_rate", "be a finite number of at least 0", head_rate)
    _require(0 <= train.cache_gb < math.inf, "cache_gb", "be a finite number of at least 0", train.cache_gb)
    for name in ("weight_average", "min_confidence", "mask_weight"):
        _require(0 <= getattr(train, name) < 1, name, "lie in [0, 1)", getattr(train, name))
    _require(0 <= train.stop_agreement <= 1, "stop_agreement", "lie in [0, 1]", train.stop_agreement)
    _require(0 <= embed.prior_weight <= 1, "prior_weight", "lie in [0, 1]", embed.prior_weight)
    _require(0 < saliency.confident_share <= 1, "confident_share", "lie in (0, 1]", saliency.confident_share)
    _require(0 <= saliency.moving_average < 1, "moving_average", "lie in [0, 1)", saliency.moving_average)
    parse_priors(saliency)
    parse_scales(predict)
    for stage in (getattr(config, name) for name in STAGES):
        for value in dataclasses.asdict(stage).values():
            if is_url(str(value)):  # all settings stand in run.json and in the report
                check_no_secrets(value)


def parse_scales(config: PredictConfig) -> list[float]:
    """The numbers in `config.scales`; InputError unless each is a number in [0.1, 10]."""
    try:
        scales = [float(one) for one in config.scales.split(",")]
    except ValueError:
        scales = []
    valid = bool(scales) and all(0.1 <= scale <= 10 for scale in scales)
    _require(valid, "scales", "be numbers in [0.1, 10] with commas between them", config.scales)
    return scales


def parse_priors(config: SaliencyConfig) -> list[str]:
    """The names in `config.priors`; InputError unless each is a method without weights, named once."""
    names = [name.strip() for name in config.priors.split(",")]
    for name in names:
        if name not in SALIENCY_PRIORS:
            raise InputError(
                f"priors must be of {', '.join(SALIENCY_PRIORS)}; got {name!r}{suggest_names(name, SALIENCY_PRIORS)}"
            )
    _require(len(set(names)) == len(names), "priors", "name each method once", config.priors)
    return names


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dictionary of every setting (for run.json)."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`."""
    return with_settings(Config(), values)


def read_toml(path: Path) -> dict[str, Any]:
    """Settings from a TOML file with the tables [embed], [cluster], [train], [predict]."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"the configuration file {path} cannot be read: {error}.") from error


def to_toml(config: Config) -> str:
    """Every setting as TOML, readable by `read_toml`."""
    import tomli_w

    return tomli_w.dumps(to_dict(config))


def _convert_value(name: str, value: Any, kind: type) -> Any:
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # theta = 0.5 in TOML
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{name} must be of type {kind.__name__}; got {value!r}.")
    return value


def _require(holds: bool, name: str, rule: str, value: Any) -> None:
    if not holds:
        raise InputError(f"{name} must {rule}; got {value!r}.")
