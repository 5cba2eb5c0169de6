"""Every setting with its default, its help sentence and its range: one frozen dataclass per stage.

Defaults are defined only here. The command line is generated from these fields, each stage receives its own dataclass,
and `run.json` stores all of them. Fields are int, float, bool or str, which TOML can hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PRECISIONS = ("float32", "bf16")
AUTOMATIC_PRECISIONS = ("auto", *PRECISIONS)
INFERENCES = ("auto", "torch", "openvino")  # what runs networks
CLUSTER_METHODS = ("spectral", "kmeans", "minibatch-kmeans", "communities", "agglomerative")
IMAGE_TRANSFERS = ("link", "copy")  # how an export gets its images; the first is the default
GRAPHLESS_METHODS = ("kmeans", "minibatch-kmeans")
METRICS = ("euclidean", "cosine")
ASSIGNMENTS = ("qr", "normalized", "kmeans")
COUNT_CRITERIA = ("mixing", "modularity", "eigengap")
SCHEDULES = ("constant", "cosine")
LEAST_PASSES, SALIENCY_STEPS, TRAINING_STEPS = 3, 36, 60  # where epochs are auto; more are no better, fewer are worse
SALIENCY_PRIORS = ("background-prior", "minimum-barrier", "absorbing-markov-chain")


def define_setting(
    default: Any,
    help: str,
    *,
    zero: str = "",
    least: int | None = None,
    within: str = "",
    choices: tuple[Any, ...] = (),
    rule: str = "",
) -> Any:
    """Make a dataclass field of a setting; `settings.check` holds it to what stands here.

    Args:
        default: Its default.
        help: Its sentence of help.
        zero: A word that stands for 0, which is then allowed whatever `least` says.
        least: The smallest number allowed.
        within: The interval of numbers allowed, such as "[0, 1)" or "(0, inf)".
        choices: The values allowed.
        rule: What an error says of `within` or `choices`; "lie in" or "be one of" them by default.
    """
    allowed = {"least": least, "within": within, "choices": choices, "rule": rule}
    return field(default=default, metadata={"help": help, "zero": zero, **allowed})


@dataclass(frozen=True)
class EmbedConfig:
    """Images to objects: saliency, boxes, crops, embeddings (the paper's steps 1 to 3)."""

    saliency: str = define_setting(
        "auto",
        "How objects are found: auto (the photographs first teach a saliency network of their own, as train-saliency "
        "does; fewer than least_images of them: three-priors, weighed where common_features is on), background-prior, "
        "minimum-barrier, absorbing-markov-chain, three-priors (their mean; no weights needed), "
        "basnet-unsupervised, basnet-supervised, dinoseg, lost, tokencut, maskcut, found, or a checkpoint file of "
        "train-saliency.",
    )
    every_seconds: float = define_setting(
        1.0, "Of a video, seconds from one frame that is taken to the next; 0 takes all.", within="[0, inf)"
    )
    saliency_size: int = define_setting(
        256,
        "Side in pixels at which published networks look for objects; those of train-saliency bring their own.",
        least=32,
    )
    saliency_precision: str = define_setting(
        "auto",
        "Of networks that look for objects: float32, bf16, or auto (bf16 where the device has instructions for it, "
        "twice as fast; bench/saliency.py measures what it changes).",
        choices=AUTOMATIC_PRECISIONS,
    )
    prior_weight: float = define_setting(
        0.5,
        "Share, in saliency maps of a network of train-saliency, of the priors it learnt from, which know outlines "
        "better; [0, 1], 0: the network alone. What too few images for a network taught has the priors alone.",
        within="[0, 1]",
    )
    map_power: float = define_setting(
        1.5,
        "Power to which saliency maps of a network of train-saliency, in [0, 1], are raised before the threshold: they "
        "are blurred around objects, and above 1 leaves more of the surroundings out. Other methods do without.",
        within="(0, inf)",
        rule="be above 0",
    )
    map_edges: bool = define_setting(
        False,
        "Let saliency maps of a network of train-saliency follow the edges of the photograph (a guided filter); those "
        "of the priors do by themselves.",
    )
    objects: str = define_setting(
        "one",
        "one object per photograph, all that stands out; or several: what differs from its surroundings in colour and "
        "in the encoder's patch features, up to eight, weighed by saliency. From 30 photographs on, several looks at "
        "up to 150 both ways first, and takes one after all if they show one each; always-several does not. maskcut "
        "and masks of your own say themselves how many.",
        choices=("one", "several", "always-several"),
    )
    masks: str = define_setting(
        "",
        "Your own objects instead of saliency: a folder of masks (PNG, above 0 is object), a COCO JSON of masks or "
        "boxes, several for an image (.json), or a table of objects with their embeddings (.parquet).",
    )
    theta: str = define_setting(
        "otsu", "Saliency above it is object: 'otsu' (a threshold per image) or a number in [0, 1)."
    )
    min_area: int = define_setting(400, "Objects of fewer pixels are left out.", least=1)
    encoder: str = define_setting(
        "vit_small_patch8_224.dino", "What embeds a crop: efficientnet-lite0 or any timm name."
    )
    encoder_weights: str = define_setting("", "Checkpoint file for the encoder, instead of its published weights.")
    crop_size: int = define_setting(256, "Side in pixels to which every object's box is stretched.", least=8)
    normalize: bool = define_setting(False, "Scale every embedding to unit length.")
    precision: str = define_setting(
        "float32",
        "float32, or bf16: about twice as fast on processors with bf16 instructions, slower without; "
        "embeddings change slightly, and objects between two clusters may change theirs (bench/embed.py measures it).",
        choices=PRECISIONS,
    )
    embed_batch: int = define_setting(
        0,
        "Crops per pass of the encoder; fewer where memory is short. 0: 32 on a CPU, up to 256 that fit on a GPU.",
        least=0,
    )
    compile: bool = define_setting(
        False,
        "Compile the networks (torch.compile; on a GPU CUDA graphs): minutes at the start, faster batches after.",
    )
    shard_images: int = define_setting(
        256, "Images per Parquet file; a killed run goes on at the last whole file.", least=1
    )
    max_pixels: int = define_setting(100_000_000, "Images of more pixels than this are skipped.", least=1)


@dataclass(frozen=True)
class SaliencyConfig:
    """Images to a saliency network of one's own, without any label (train-saliency)."""

    priors: str = define_setting(
        "background-prior, minimum-barrier, absorbing-markov-chain",
        "Saliency methods without weights whose saliency maps are the first labels, with commas between them.",
    )
    max_images: int = define_setting(
        600, "Most images that it learns from; of more, a random choice by the seed. 0: all.", least=0
    )
    least_images: int = define_setting(
        80,
        "Fewest images with which --saliency auto makes such a network; fewer teach, with common_features, how to "
        "weigh the priors.",
        least=2,
    )
    refine_backbone: str = define_setting(
        "dino_resnet50", "Backbone of the network that refines the maps of the priors."
    )
    confident_share: float = define_setting(
        0.5,
        "Share of the images, those whose maps agree most clearly, that the networks learn from; (0, 1].",
        within="(0, 1]",
    )
    refine_epochs: int = define_setting(
        8, "Passes over these to refine the maps, predictions averaged over the last; 0 does not.", least=0
    )
    moving_average: float = define_setting(0.5, "Weight of the epochs before in that average; [0, 1).", within="[0, 1)")
    frozen_stride: int = define_setting(
        0, "As for train, of the backbones of both networks; BASNet, which has none, learns whole.", least=0
    )
    common_features: bool = define_setting(
        False,
        "Lower the priors' maps where a place does not look like what they find in all images together, judged by "
        "features of refine_backbone. The network learns the lowered maps, and embed joins its own with them.",
    )
    network: str = define_setting("basnet", "What learns the refined maps: basnet, or a backbone for a small network.")
    epochs: int = define_setting(
        8,
        "Passes over these in which it learns them; auto: 3, and more over few images, until there are 36 steps.",
        zero="auto",
        least=1,
    )
    size: int = define_setting(256, "Side in pixels of what the networks see when they look for objects.", least=32)
    train_size: int = define_setting(
        0,
        "Side in pixels of the training crops, at most size, since crops show objects larger than whole images do; "
        "full: size.",
        zero="full",
        least=32,
    )
    scale_min: float = define_setting(0.4, "Smallest area of a training crop, as a share of the image's.")
    scale_max: float = define_setting(1.0, "Largest area of a training crop.")
    learning_rate: float = define_setting(1e-4, "Adam's learning rate at the start; it falls to 0 (cosine).")
    batch_size: int = define_setting(16, "Images per training step.", least=2)
    precision: str = define_setting(
        "auto", "float32, bf16, or auto (bf16 where the device has instructions for it).", choices=AUTOMATIC_PRECISIONS
    )


@dataclass(frozen=True)
class ClusterConfig:
    """Objects to clusters (steps 4 to 7)."""

    k: int = define_setting(
        0, "Number of clusters; auto finds one, as choose_k says (suggest-k shows more).", zero="auto", least=2
    )
    choose_k: str = define_setting(
        "mixing",
        "How k is found when it is auto: mixing (fine communities of the graph, joined while two of them mix), "
        "modularity (the k whose clusters have the highest) or eigengap (the largest step in the eigenvalues).",
        choices=COUNT_CRITERIA,
    )
    max_k: int = define_setting(
        60, "Most clusters that modularity and eigengap look at first; they look on while that finds more.", least=2
    )
    method: str = define_setting(
        "spectral",
        "spectral (the paper's), kmeans or minibatch-kmeans (straight on the embeddings), communities (of the graph, "
        "joined while two of them mix) or agglomerative (Ward's, joining neighbours in the graph).",
        choices=CLUSTER_METHODS,
    )
    metric: str = define_setting(
        "euclidean", "Distance between embeddings in the graph: euclidean or cosine.", choices=METRICS
    )
    n_neighbors: int = define_setting(
        30,
        "Neighbours of each object in the graph, itself included; no more than an average cluster has objects.",
        least=2,
    )
    recall: float = define_setting(
        0.95, "Share of true neighbours that the search among many objects must reach; 1 is exact.", within="(0, 1]"
    )
    n_components: int = define_setting(0, "Eigenvectors used; 0 takes as many as clusters.", least=0)
    assign: str = define_setting(
        "qr",
        "Labels from the eigenvectors: qr (column-pivoted QR), normalized (k-means on rows of unit length, started by "
        "qr) or kmeans (the paper's).",
        choices=ASSIGNMENTS,
    )
    n_init: int = define_setting(10, "Restarts of kmeans; the best is kept.", least=1)
    fit_on: int = define_setting(
        0,
        "Cluster a random sample of so many objects; the others link its graph and are then put into its clusters. "
        "auto takes as many as memory bears.",
        zero="auto",
        least=2,
    )
    filter: float = define_setting(
        0.2,
        "Share of each cluster, farthest from its centre, kept out of training; [0, 1).",
        within="[0, 1)",
        rule="lie in [0, 1): the share of each cluster to leave out",
    )


@dataclass(frozen=True)
class TrainConfig:
    """Class maps to a trained DeepLabv3, several times over (steps 9 and 10)."""

    backbone: str = define_setting(
        "dino_resnet50", "Backbone of DeepLabv3: dino_resnet50, efficientnet-lite0, any timm name."
    )
    backbone_weights: str = define_setting("", "Checkpoint file for the backbone, instead of its published weights.")
    output_stride: int = define_setting(
        8,
        "Pixels per step of the backbone's last feature map: 8, 16 or 32.",
        choices=(8, 16, 32),
        rule="be 8, 16 or 32",
    )
    frozen_stride: int = define_setting(
        0,
        "The backbone's layers of up to so many pixels per step keep their published weights, which takes a third off "
        "the time on a CPU; 0 trains all.",
        least=0,
    )
    iterations: int = define_setting(
        2,
        "Rounds of training, each from the backbone's own weights; auto: 1, or 2 where extend brings more images.",
        zero="auto",
        least=1,
    )
    epochs: int = define_setting(
        10,
        "Passes over the images in the first iteration; auto: 3, and more over few images, until there are 60 steps.",
        zero="auto",
        least=1,
    )
    next_epochs: int = define_setting(
        5, "Passes over the images in every later iteration; auto as for epochs.", zero="auto", least=1
    )
    extend: str = define_setting(
        "", "More images for the iterations after the first: a folder, tars or a list, as for embed."
    )
    train_size: int = define_setting(512, "Side in pixels of the training crops.", least=32)
    start_size: int = define_setting(
        0,
        "Side in pixels of the training crops in the first two thirds of the epochs, where it is below train_size: "
        "faster, and objects are seen at more sizes; off: train_size.",
        zero="off",
        least=32,
    )
    scale_min: float = define_setting(0.5, "Smallest area of a training crop, as a share of the image's.")
    scale_max: float = define_setting(
        2.0, "Largest area of a training crop; draws that do not fit give the largest window."
    )
    learning_rate: float = define_setting(6e-5, "Adam's learning rate at the start.")
    schedule: str = define_setting(
        "constant", "Learning rate over an iteration: constant, or cosine (falling to 0).", choices=SCHEDULES
    )
    head_learning_rate: float = define_setting(
        0.0,
        "Learning rate of the DeepLab head; 0 takes that of the backbone.",
        within="[0, inf)",
        rule="be a finite number of at least 0",
    )
    batch_size: int = define_setting(56, "Images per training step, over all processes.", least=2)
    images_at_once: int = define_setting(
        0,
        "Images that a process passes through the network at once; a step adds up several passes. 0: all of a step.",
        least=0,
    )
    precision: str = define_setting(
        "auto", "float32, bf16, or auto (bf16 where the device has instructions for it).", choices=AUTOMATIC_PRECISIONS
    )
    compile: bool = define_setting(
        False, "Compile the network (torch.compile): minutes at the start, faster steps after."
    )
    cache_gb: float = define_setting(
        2.0,
        "Memory in GB for decoded images, which are then read once; 0 reads them each time.",
        within="[0, inf)",
        rule="be a finite number of at least 0",
    )
    weight_average: float = define_setting(
        0.0,
        "Train to the moving average of the weights, which keeps this share of itself in a step; [0, 1), 0: none.",
        within="[0, 1)",
    )
    min_confidence: float = define_setting(
        0.0,
        "Later iterations do not learn from pixels of whose label the network before was less sure; [0, 1).",
        within="[0, 1)",
    )
    mask_weight: float = define_setting(
        0.0,
        "When a network labels an image, where objects are is a mean of the network and the first object masks, which "
        "know outlines better and count for this share; [0, 1), 0: the network alone. predict has no such masks.",
        within="[0, 1)",
    )
    cluster_weight: float = define_setting(
        0.0,
        "When a network labels an image, the clusters already given to its objects count for this share in the choice "
        "of its pixels' clusters; [0, 1), 0: the network alone. predict has no such objects.",
        within="[0, 1)",
    )
    stop_agreement: float = define_setting(
        0.0,
        "No further iteration once the masks of two agree on this share of their object pixels; [0, 1], 0: never.",
        within="[0, 1]",
    )


@dataclass(frozen=True)
class PredictConfig:
    """Images to class maps by the trained network."""

    predict_size: int = define_setting(512, "Shorter side in pixels at which the network sees an image.", least=32)
    scales: str = define_setting(
        "1", "Sizes to predict at and average, as multiples of predict_size: '1' or '0.75, 1, 1.5'."
    )
    flip: bool = define_setting(
        False,
        "Average the prediction with that of the mirrored image, at every size; without, every second size is seen "
        "mirrored.",
    )
    follow_edges: bool = define_setting(
        False,
        "Let outlines follow the edges of the image (a guided filter on the probability of the background), which the "
        "network knows to some 16 pixels.",
    )
    region_weight: float = define_setting(
        0.0,
        "Share of a mask's connected part in which cluster its pixels belong to; 0: each pixel for itself, 1: one "
        "cluster for each part.",
        within="[0, 1]",
    )
    least_part: float = define_setting(
        0.0, "Close parts and holes of masks below this share of the image; 0: none.", within="[0, 1)"
    )
    predict_batch: int = define_setting(
        0,
        "Images of equal size per pass of the network (with flip, and their mirror images); fewer where memory is "
        "short. 0: 1 on each core of a CPU, up to 64 that fit on a GPU.",
        least=0,
    )


@dataclass(frozen=True)
class AssignConfig:
    """New objects to clusters that are there already."""

    outliers: float = define_setting(
        0.01,
        "A new object farther from its neighbours than all but this share of the clustered objects are from theirs is "
        "flagged as unlike anything; [0, 1).",
        within="[0, 1)",
    )


@dataclass(frozen=True)
class ReportConfig:
    """What a person looks at: the pages of `report`."""

    map_objects: int = define_setting(
        3_000, "Most objects on the map of objects; of more, some of every cluster.", least=4
    )
    shown_images: int = define_setting(
        2_000, "Most images on the image pages; of more, some of every cluster.", least=1
    )
    gallery_objects: int = define_setting(
        10_000, "Most objects with a picture in the gallery; of more, some of every cluster.", least=1
    )
    samples: int = define_setting(12, "Core samples on a cluster's card; half as many of what was filtered.", least=2)


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    preset: str = define_setting(
        "auto",
        "Set of defaults: auto, dino (the paper's models), voc, coco (the paper's recipes) or offline (no download).",
    )
    # NumPy, scikit-learn and torch each take their seed from it; every iteration adds its number.
    seed: int = define_setting(
        0,
        "Seed of everything random; on the CPU the same seed gives the same bytes, on a GPU with --deterministic.",
        within="[0, 2147483647]",
    )
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
