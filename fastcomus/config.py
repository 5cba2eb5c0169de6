"""Every setting, its default and its help sentence: one frozen dataclass per stage, the presets, TOML in and out.

A default lives here and nowhere else. The command line is generated from these fields, a stage receives its own
dataclass, and `run.json` stores all of them. Fields hold int, float, bool or str only, so that TOML can say them.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastcomus.addresses import check_no_secrets, is_url
from fastcomus.errors import InputError

PRECISIONS = ("float32", "bf16")
AUTOMATIC_PRECISIONS = ("auto", *PRECISIONS)
CLUSTER_METHODS = ("spectral", "kmeans", "minibatch-kmeans", "leiden", "agglomerative")
IMAGE_TRANSFERS = ("link", "copy")  # how an export gets its images; the first is the default
GRAPHLESS_METHODS = ("kmeans", "minibatch-kmeans")
METRICS = ("euclidean", "cosine")
ASSIGNMENTS = ("qr", "normalized", "kmeans")
COUNT_CRITERIA = ("leiden", "modularity", "eigengap")
SCHEDULES = ("constant", "cosine")
SALIENCY_PRIORS = ("background-prior", "minimum-barrier", "absorbing-markov-chain")


def setting(default: Any, help: str, zero: str = "") -> Any:
    """A dataclass field with its default and its sentence of help. `zero`: a word that stands for 0."""
    return field(default=default, metadata={"help": help, "zero": zero})


@dataclass(frozen=True)
class EmbedConfig:
    """Images to objects: saliency, boxes, crops, embeddings (the paper's steps 1 to 3)."""

    saliency: str = setting(
        "background-prior",
        "How objects are found: background-prior, minimum-barrier, absorbing-markov-chain (no weights needed), "
        "basnet-unsupervised, basnet-supervised, dinoseg, lost, tokencut, maskcut, found, or a checkpoint file of "
        "train-saliency.",
    )
    saliency_size: int = setting(
        256, "Side in pixels at which published networks look for objects; those of train-saliency bring their own."
    )
    saliency_precision: str = setting(
        "auto",
        "Of networks that look for objects: float32, bf16, or auto (bf16 where the device has instructions for it, "
        "twice as fast; bench/saliency.py measures what it changes).",
    )
    prior_weight: float = setting(
        0.5,
        "Share, in maps of a network of train-saliency, of the priors it learnt from, which know outlines better; "
        "[0, 1], 0: the network alone.",
    )
    masks: str = setting("", "Folder of your own object masks (above 0 is object) to use instead of saliency.")
    theta: str = setting("otsu", "Saliency above it is object: 'otsu' (a threshold per image) or a number in [0, 1).")
    min_area: int = setting(400, "Objects of fewer pixels are left out.")
    encoder: str = setting("vit_small_patch8_224.dino", "What embeds a crop: efficientnet-lite0 or any timm name.")
    encoder_weights: str = setting("", "Checkpoint file for the encoder, instead of its published weights.")
    crop_size: int = setting(256, "Side in pixels to which every object's box is stretched.")
    normalize: bool = setting(False, "Scale every embedding to unit length.")
    precision: str = setting(
        "float32",
        "float32, or bf16: about twice as fast on processors with bf16 instructions, slower without; "
        "embeddings change slightly, and objects between two clusters may change theirs (bench/embed.py measures it).",
    )
    embed_batch: int = setting(
        32, "Crops per pass of the encoder; fewer where memory is short. 0: as many as the free memory of a GPU holds."
    )
    compile: bool = setting(
        False,
        "Compile the networks (torch.compile; on a GPU CUDA graphs): minutes at the start, faster batches after.",
    )
    shard_images: int = setting(256, "Images per Parquet file; a killed run goes on at the last whole file.")
    max_pixels: int = setting(100_000_000, "Images of more pixels than this are skipped.")


@dataclass(frozen=True)
class SaliencyConfig:
    """Images to a saliency network of one's own, without any label (train-saliency)."""

    priors: str = setting(
        "background-prior, minimum-barrier, absorbing-markov-chain",
        "Saliency methods without weights whose maps are the first labels, with commas between them.",
    )
    refine_backbone: str = setting("dino_resnet50", "Backbone of the network that refines the maps of the priors.")
    confident_share: float = setting(
        0.5, "Share of the images, those whose maps agree most clearly, that the networks learn from; (0, 1]."
    )
    refine_epochs: int = setting(
        8, "Passes over these to refine the maps, predictions averaged over the last; 0 does not."
    )
    moving_average: float = setting(0.5, "Weight of the epochs before in that average; [0, 1).")
    network: str = setting("basnet", "What learns the refined maps: basnet, or a backbone for a small network.")
    epochs: int = setting(8, "Passes over these in which it learns them.")
    size: int = setting(256, "Side in pixels of what the networks see.")
    scale_min: float = setting(0.4, "Smallest area of a training crop, as a share of the image's.")
    scale_max: float = setting(1.0, "Largest area of a training crop.")
    learning_rate: float = setting(1e-4, "Adam's learning rate at the start; it falls to 0 (cosine).")
    batch_size: int = setting(16, "Images per training step.")
    precision: str = setting("auto", "float32, bf16, or auto (bf16 where the device has instructions for it).")


@dataclass(frozen=True)
class ClusterConfig:
    """Objects to clusters (steps 4 to 7)."""

    k: int = setting(0, "Number of clusters; auto finds one, as choose_k says (suggest-k shows more).", zero="auto")
    choose_k: str = setting(
        "leiden",
        "How k is found when it is auto: leiden (communities of the graph), modularity (the k whose clusters have the "
        "highest) or eigengap (the largest step in the eigenvalues).",
    )
    max_k: int = setting(60, "Most clusters that modularity and eigengap look at.")
    method: str = setting(
        "spectral",
        "spectral (the paper's), kmeans or minibatch-kmeans (straight on the embeddings), leiden (communities of the "
        "graph) or agglomerative (Ward's, joining neighbours in the graph).",
    )
    resolution: float = setting(1.0, "Leiden's: above 1 gives more communities, below 1 fewer.")
    metric: str = setting("euclidean", "Distance between embeddings in the graph: euclidean or cosine.")
    n_neighbors: int = setting(30, "Neighbours of each object in the graph, itself included.")
    recall: float = setting(0.95, "Share of true neighbours that the search among many objects must reach; 1 is exact.")
    n_components: int = setting(0, "Eigenvectors used; 0 takes as many as clusters.")
    assign: str = setting(
        "qr",
        "Labels from the eigenvectors: qr (column-pivoted QR), normalized (k-means on rows of unit length, started by "
        "qr) or kmeans (the paper's).",
    )
    n_init: int = setting(10, "Restarts of kmeans; the best is kept.")
    filter: float = setting(0.2, "Share of each cluster, farthest from its centre, kept out of training; [0, 1).")


@dataclass(frozen=True)
class TrainConfig:
    """Class maps to a trained DeepLabv3, several times over (steps 9 and 10)."""

    backbone: str = setting("dino_resnet50", "Backbone of DeepLabv3: dino_resnet50, efficientnet-lite0, any timm name.")
    backbone_weights: str = setting("", "Checkpoint file for the backbone, instead of its published weights.")
    output_stride: int = setting(8, "Pixels per step of the backbone's last feature map: 8, 16 or 32.")
    iterations: int = setting(2, "Rounds of training; each starts from the backbone's own weights.")
    epochs: int = setting(10, "Passes over the images in the first iteration.")
    next_epochs: int = setting(5, "Passes over the images in every later iteration.")
    extend: str = setting("", "More images for the iterations after the first: a folder, tars or a list, as for embed.")
    train_size: int = setting(512, "Side in pixels of the training crops.")
    scale_min: float = setting(0.5, "Smallest area of a training crop, as a share of the image's.")
    scale_max: float = setting(2.0, "Largest area of a training crop; draws that do not fit give the largest window.")
    learning_rate: float = setting(6e-5, "Adam's learning rate at the start.")
    schedule: str = setting("constant", "Learning rate over an iteration: constant, or cosine (falling to 0).")
    head_learning_rate: float = setting(0.0, "Learning rate of the DeepLab head; 0 takes that of the backbone.")
    batch_size: int = setting(56, "Images per training step, over all processes.")
    images_at_once: int = setting(
        0, "Images that a process passes through the network at once; a step adds up several passes. 0: all of a step."
    )
    precision: str = setting("auto", "float32, bf16, or auto (bf16 where the device has instructions for it).")
    compile: bool = setting(False, "Compile the network (torch.compile): minutes at the start, faster steps after.")
    cache_gb: float = setting(2.0, "Memory in GB for decoded images, which are then read once; 0 reads them each time.")
    weight_average: float = setting(
        0.0, "Train to the moving average of the weights, which keeps this share of itself in a step; [0, 1), 0: none."
    )
    min_confidence: float = setting(
        0.0, "Later iterations do not learn from pixels of whose label the network before was less sure; [0, 1)."
    )
    mask_weight: float = setting(
        0.0,
        "Share that an image's first object masks, which know outlines better, have in where objects are when a "
        "network labels it; [0, 1), 0: the network alone. predict has no such masks.",
    )
    stop_agreement: float = setting(
        0.0, "No further iteration once the masks of two agree on this share of their object pixels; [0, 1], 0: never."
    )


@dataclass(frozen=True)
class PredictConfig:
    """Images to class maps by the trained network."""

    predict_size: int = setting(512, "Shorter side in pixels at which the network sees an image.")
    scales: str = setting("1", "Sizes to predict at and average, as multiples of predict_size: '1' or '0.75, 1, 1.5'.")
    flip: bool = setting(False, "Average the prediction with that of the mirrored image.")
    predict_batch: int = setting(
        4,
        "Images of equal size per pass of the network (with flip, and their mirror images); more suit a GPU, fewer are "
        "taken where memory is short. 0: as many as the free memory of a GPU holds.",
    )


@dataclass(frozen=True)
class AssignConfig:
    """New objects to clusters that are there already."""

    outliers: float = setting(
        0.01,
        "A new object farther from its neighbours than all but this share of the clustered objects are from theirs is "
        "flagged as unlike anything; [0, 1).",
    )


@dataclass(frozen=True)
class ReportConfig:
    """What a person looks at: the pages of `report`."""

    map_objects: int = setting(3_000, "Most objects on the map; of more, some of every cluster.")
    shown_images: int = setting(2_000, "Most images on the image pages; of more, some of every cluster.")
    samples: int = setting(12, "Core samples on a cluster's card; half as many of what was filtered.")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    preset: str = setting(
        "auto",
        "Set of defaults: auto, dino (the paper's models), voc, coco (the paper's recipes) or offline (no download).",
    )
    seed: int = setting(0, "Seed of everything random; the same seed gives the same bytes.")
    saliency: SaliencyConfig = SaliencyConfig()
    embed: EmbedConfig = EmbedConfig()
    cluster: ClusterConfig = ClusterConfig()
    train: TrainConfig = TrainConfig()
    predict: PredictConfig = PredictConfig()
    assign: AssignConfig = AssignConfig()
    report: ReportConfig = ReportConfig()


STAGES: dict[str, type] = {
    "saliency": SaliencyConfig,
    "embed": EmbedConfig,
    "cluster": ClusterConfig,
    "train": TrainConfig,
    "predict": PredictConfig,
    "assign": AssignConfig,
    "report": ReportConfig,
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


def preset_config(preset: str) -> Config:
    """The configuration of a preset by name ('voc', 'coco', 'dino' or 'offline')."""
    if preset not in PRESETS:
        raise InputError(
            f"preset must be one of {', '.join(['auto', *PRESETS])}; got {preset!r}{nearest(preset, PRESETS)}"
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
        _typed("preset", wanted, str)
    if stored is not None and wanted in (None, stored.get("preset")):
        config = from_dict(stored)
    else:
        config = preset_config(choose_preset() if wanted in (None, "auto") else wanted)
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
                    raise InputError(f"{name} has no setting {key!r}{nearest(key, known)}")
                if given and given == known[key].metadata["zero"]:
                    given = 0
                value = {**value, key: _typed(f"{name}.{key}", given, type(getattr(stage, key)))}
            changed[name] = replace(stage, **value)
        elif name in ("preset", "seed"):
            changed[name] = _typed(name, value, type(getattr(config, name)))
        else:
            raise InputError(f"there is no setting {name!r}{nearest(name, [*STAGES, 'preset', 'seed'])}")
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
            raise InputError(f"{name} must be one of {', '.join(choices)}; got {given!r}{nearest(given, choices)}")
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
    saliency_priors(saliency)
    prediction_scales(predict)
    for stage in (getattr(config, name) for name in STAGES):
        for value in dataclasses.asdict(stage).values():
            if is_url(str(value)):  # all settings stand in run.json and in the report
                check_no_secrets(value)


def prediction_scales(config: PredictConfig) -> list[float]:
    """The numbers in `config.scales`; InputError unless each is a number in [0.1, 10]."""
    try:
        scales = [float(one) for one in config.scales.split(",")]
    except ValueError:
        scales = []
    valid = bool(scales) and all(0.1 <= scale <= 10 for scale in scales)
    _require(valid, "scales", "be numbers in [0.1, 10] with commas between them", config.scales)
    return scales


def saliency_priors(config: SaliencyConfig) -> list[str]:
    """The names in `config.priors`; InputError unless each is a method without weights, named once."""
    names = [name.strip() for name in config.priors.split(",")]
    for name in names:
        if name not in SALIENCY_PRIORS:
            raise InputError(
                f"priors must be of {', '.join(SALIENCY_PRIORS)}; got {name!r}{nearest(name, SALIENCY_PRIORS)}"
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


def nearest(name: str, known: Any) -> str:
    """How a sentence ends: '; did you mean X?' for the known names nearest to `name`, else '.'."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else "."


def _typed(name: str, value: Any, kind: type) -> Any:
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
