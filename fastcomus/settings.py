"""Settings of a run: presets, checks, TOML in and out."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastcomus.config import SALIENCY_PRIORS, STAGES, Config, PredictConfig, SaliencyConfig
from fastcomus.errors import InputError, suggest_names, suggest_path
from fastcomus.images.addresses import check_no_secrets, is_url

LEIDEN_IS_GONE = "is no more, since its results differed by chance"
_ANSWERS = {
    "n_clusters": "; the number of clusters is k.",
    "random_state": "; the seed is called seed, and is no setting of a stage.",
    "resolution": "; it was Leiden's, and suggest-k shows coarser and finer numbers of clusters.",
    "leiden": f", which {LEIDEN_IS_GONE}; --method communities and --choose-k mixing took its place.",
}

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
        "embed": {"saliency": "found"},  # ahead of all others by published figures that downloads alone allow
        "saliency": {"network": "dino_resnet50"},
        "train": {"train_size": 256},
        "predict": {"predict_size": 320},
    },
    "offline": {
        "saliency": {
            "refine_backbone": "efficientnet-lite0",
            "refine_epochs": 0,  # on 494 photographs refinement lost more than it gained
            "frozen_stride": 8,  # with the prior's maps as good as learning whole
            "epochs": 0,
            "batch_size": 8,
            "train_size": 192,  # half the time of 256, and outlines as good
            "network": "efficientnet-lite0",
            "learning_rate": 5e-4,
            "common_features": True,
            "least_images": 10,  # even of six the network's masks are mostly better than the priors'
        },
        "embed": {
            "encoder": "efficientnet-lite0",
            "crop_size": 224,
            "normalize": True,
            "map_power": 1.0,
            "map_edges": True,
        },
        "train": {
            "backbone": "efficientnet-lite0",
            "output_stride": 16,
            "frozen_stride": 8,  # with all layers learning neither better nor worse
            "iterations": 0,  # a second one on the same images gained nothing
            "train_size": 256,  # 320 takes 1.6 times as long and gains nothing
            "start_size": 192,  # a fifth less time, and better
            "scale_min": 0.4,
            "scale_max": 1.0,
            "epochs": 0,
            "next_epochs": 0,
            "learning_rate": 5e-4,
            "schedule": "cosine",
            "batch_size": 8,  # with 16 and as many passes half the steps, and worse
            "weight_average": 0.98,
            "mask_weight": 0.2,
            "cluster_weight": 0.1,
        },
        # The coarse size knows the object, the fine one its outline, the more so the farther they lie apart.
        # Whole parts know their cluster better than pixels; with a half, pixels that are sure stay what they are.
        "predict": {"scales": "0.5, 0.75", "follow_edges": True, "region_weight": 0.5, "least_part": 0.001},
    },
}


def find_changed_settings(config: Config) -> dict[str, tuple[Any, Any]]:
    """Find the settings, by STAGE.NAME, that differ from the preset's: what they are here, and what they are there."""
    own, usual = to_dict(config), to_dict(get_preset_config(config.preset))
    pairs = {f"{stage}.{name}": (value, usual[stage][name]) for stage in STAGES for name, value in own[stage].items()}
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def get_preset_config(preset: str) -> Config:
    """Return the configuration of a preset.

    Args:
        preset: 'voc', 'coco', 'dino' or 'offline'.

    Raises:
        InputError: There is no such preset.
    """
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
    choose_config: Callable[[], Config],
) -> Config:
    """Return a run's configuration: that of its folder or its preset, with the settings given now laid over it.

    Args:
        stored: The configuration in run.json, if any. It is ignored if another preset is asked for.
        preset: Name of the preset, which overrides the one in `settings`.
        seed: The seed, which overrides the one in `settings`.
        settings: Values as `with_settings` takes them.
        choose_config: Returns the configuration to begin with where no preset is given or it is "auto".

    Raises:
        InputError: A setting does not exist, or its value is of the wrong type or out of its range.
    """
    wanted = preset or settings.get("preset")
    if wanted is not None:
        _convert_value("preset", wanted, str)
    if wanted is None and stored is not None:
        config = from_dict(stored)
    else:
        config = choose_config() if wanted in (None, "auto") else get_preset_config(str(wanted))
        if stored is not None and config.preset == stored.get("preset"):
            config = from_dict(stored)
    given = {name: value for name, value in settings.items() if name != "preset"}
    return with_settings(config, given if seed is None else {**given, "seed": seed})


def with_settings(config: Config, settings: Mapping[str, Mapping[str, Any] | Any]) -> Config:
    """Lay settings over a configuration and check the result.

    Args:
        config: The configuration, which stays as it is.
        settings: Values by stage and name, such as {"cluster": {"k": 14}, "seed": 3}.

    Returns:
        The new configuration.

    Raises:
        InputError: A setting does not exist, or its value is of the wrong type or out of its range.
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
                    raise InputError(f"{name} has no setting {key!r}{_ANSWERS.get(key) or suggest_names(key, known)}")
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
    stages = [getattr(config, name) for name in STAGES]
    for part in (config, *stages):
        for field in dataclasses.fields(part):
            if field.metadata:
                _check_field(field, getattr(part, field.name))
    theta = config.embed.theta
    if theta != "otsu":
        try:
            theta_is_valid = 0 <= float(theta) < 1
        except ValueError:
            theta_is_valid = False
        _require(theta_is_valid, "theta", "be 'otsu' or a number in [0, 1)", theta)
    for stage in (config.saliency, config.train):
        in_order = 0 < stage.scale_min <= stage.scale_max
        _require(in_order, "scale_min", "be above 0 and at most scale_max", stage.scale_min)
        for name in ("scale_max", "learning_rate"):
            _require(math.isfinite(getattr(stage, name)), name, "be a finite number", getattr(stage, name))
        _require(stage.learning_rate > 0, "learning_rate", "be above 0", stage.learning_rate)
    parse_priors(config.saliency)
    parse_scales(config.predict)
    for stage in stages:
        for value in dataclasses.asdict(stage).values():
            if is_url(str(value)):  # all settings stand in run.json and in the report
                check_no_secrets(value)


def parse_scales(config: PredictConfig) -> list[float]:
    """Return the numbers in `config.scales`. Raises InputError unless each is a number in [0.1, 10]."""
    try:
        scales = [float(one) for one in config.scales.split(",")]
    except ValueError:
        scales = []
    valid = bool(scales) and all(0.1 <= scale <= 10 for scale in scales)
    _require(valid, "scales", "be numbers in [0.1, 10] with commas between them", config.scales)
    return scales


def parse_priors(config: SaliencyConfig) -> list[str]:
    """Return the names in `config.priors`. Raises InputError unless each is a method without weights, named once."""
    names = [name.strip() for name in config.priors.split(",")]
    for name in names:
        if name not in SALIENCY_PRIORS:
            raise InputError(
                f"priors must be of {', '.join(SALIENCY_PRIORS)}; got {name!r}{suggest_names(name, SALIENCY_PRIORS)}"
            )
    _require(len(set(names)) == len(names), "priors", "name each method once", config.priors)
    return names


def to_dict(config: Config) -> dict[str, Any]:
    """Return every setting as a plain nested dictionary (for run.json)."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Return the configuration that `to_dict` turned into `values`; InputError as by `with_settings`."""
    return with_settings(Config(), values)


def read_toml(path: Path) -> dict[str, Any]:
    """Read settings, as `with_settings` takes them, from a TOML file with one table per stage; InputError if broken."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        remedy = suggest_path(path) or "; give a file of settings in TOML."
        raise InputError(f"there is no configuration file {path}{remedy}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"the configuration file {path} cannot be read: {told}.") from error


def to_toml(config: Config) -> str:
    """Return every setting as TOML, which `read_toml` reads."""
    import tomli_w

    return tomli_w.dumps(to_dict(config))


def _convert_value(name: str, value: Any, kind: type) -> Any:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of NumPy's or torch's
        value = value.item()
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # theta = 0.5 in TOML
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{name} must be of type {kind.__name__}; got {value!r}.")
    return value


def _check_field(field: dataclasses.Field[Any], value: Any) -> None:
    """Hold `value` to what the field's metadata (`config.define_setting`) allows."""
    facts = field.metadata
    least, within, choices, rule = (facts[key] for key in ("least", "within", "choices", "rule"))
    if least is not None and not (facts["zero"] and value == 0):
        _require(value >= least, field.name, f"be at least {least}", value)
    if within:
        low, high = (float(end) for end in within[1:-1].split(","))
        is_above = low <= value if within[0] == "[" else low < value
        is_below = value <= high if within[-1] == "]" else value < high
        _require(is_above and is_below, field.name, rule or f"lie in {within}", value)
    if choices and rule:
        _require(value in choices, field.name, rule, value)
    elif choices and value not in choices:
        raise InputError(
            f"{field.name} must be one of {', '.join(choices)}; got {value!r}"
            + (_ANSWERS.get(value) or suggest_names(value, choices))
        )


def _require(holds: bool, name: str, rule: str, value: Any) -> None:
    if not holds:
        raise InputError(f"{name} must {rule}; got {value!r}.")
