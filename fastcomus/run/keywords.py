"""The settings that `Run`'s methods take by name, for editors and type checkers.

The fields, their types and their order are those of the dataclasses in `config.py`, which also say what each means; a
test compares the two.
"""

from __future__ import annotations

from typing import TypedDict


class SaliencySettings(TypedDict, total=False):
    """See `SaliencyConfig`."""

    priors: str
    max_images: int
    least_images: int
    refine_backbone: str
    confident_share: float
    refine_epochs: int
    moving_average: float
    frozen_stride: int
    common_features: bool
    network: str
    epochs: int
    size: int
    train_size: int
    scale_min: float
    scale_max: float
    learning_rate: float
    batch_size: int
    precision: str


class EmbedSettings(TypedDict, total=False):
    """See `EmbedConfig`."""

    saliency: str
    every_seconds: float
    saliency_size: int
    saliency_precision: str
    prior_weight: float
    map_power: float
    map_edges: bool
    objects: str
    masks: str
    theta: str
    min_area: int
    encoder: str
    encoder_weights: str
    crop_size: int
    normalize: bool
    precision: str
    embed_batch: int
    compile: bool
    shard_images: int
    max_pixels: int


class ClusterOptions(TypedDict, total=False):
    """Those of `ClusterConfig` but for k, which `fastcomus.cluster` takes by place."""

    choose_k: str
    max_k: int
    method: str
    metric: str
    n_neighbors: int
    recall: float
    n_components: int
    assign: str
    n_init: int
    fit_on: int
    filter: float


class ClusterSettings(ClusterOptions, total=False):
    """See `ClusterConfig`."""

    k: int


class TrainSettings(TypedDict, total=False):
    """See `TrainConfig`."""

    backbone: str
    backbone_weights: str
    output_stride: int
    frozen_stride: int
    iterations: int
    epochs: int
    next_epochs: int
    extend: str
    train_size: int
    start_size: int
    scale_min: float
    scale_max: float
    learning_rate: float
    schedule: str
    head_learning_rate: float
    batch_size: int
    images_at_once: int
    precision: str
    compile: bool
    cache_gb: float
    weight_average: float
    min_confidence: float
    mask_weight: float
    cluster_weight: float
    stop_agreement: float


class PredictSettings(TypedDict, total=False):
    """See `PredictConfig`."""

    predict_size: int
    scales: str
    flip: bool
    follow_edges: bool
    region_weight: float
    least_part: float
    predict_batch: int


class AssignSettings(TypedDict, total=False):
    """See `AssignConfig`."""

    outliers: float


class ReportSettings(TypedDict, total=False):
    """See `ReportConfig`."""

    map_objects: int
    shown_images: int
    gallery_objects: int
    samples: int


class TrainAndPredictSettings(TrainSettings, PredictSettings, total=False):
    """What `Run.train` takes, which trains networks and labels with them."""
