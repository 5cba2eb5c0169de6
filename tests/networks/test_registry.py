"""Names of networks: which are known, what they were trained with, under which licence, and where they come from."""

from __future__ import annotations

import pytest

from fastcomus.errors import InputError
from fastcomus.networks.registry import (
    SALIENCY,
    SOURCES,
    check_any_name,
    check_name,
    get_licence,
    get_timm_name,
    get_weights_address,
    is_on_hub,
    is_supervised,
)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_smal_patch8_224.dino", "vit_small_patch8_224.dino"),
        ("efficientnet-lite", "efficientnet-lite0"),
        ("dino_resnet", "dino_resnet50"),
        ("resnet50.a1_in2k", "resnet50.a1_in1k"),
    ],
)
def test_unknown_names_list_near_ones(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"did you mean .*{near}"):
        check_name(name)
    with pytest.raises(InputError, match=r"there is no network 'zzzzqqqq'; see timm.list_models"):
        check_name("zzzzqqqq")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "dino_resnet50", "resnet50", "vit_small_patch8_224.dino"])
def test_known_names_pass(name: str) -> None:
    check_name(name)


def test_supervised_weights_are_told() -> None:
    unsupervised = [
        "dino_resnet50",
        "vit_small_patch8_224.dino",
        "vit_small_patch14_dinov2.lvd142m",
        "vit_small_patch14_dinov2",
        "vit_small_patch16_dinov3.lvd1689m",
        "vit_base_patch16_224.mae",
        "vit_huge_patch14_gap_224.in1k_ijepa",
        "convnextv2_tiny.fcmae",
    ]
    supervised = [
        "efficientnet-lite0",
        "resnet50",
        "resnet50.a1_in1k",
        "convnextv2_tiny.fcmae_ft_in1k",
        "vit_small_patch16_224.augreg_in21k",
    ]
    for name in unsupervised + supervised:
        check_name(name)
        assert is_supervised(name) == (name in supervised), name


def test_every_source_says_what_its_users_must_know() -> None:
    for name, source in SOURCES.items():
        check_any_name(name)
        assert source.about and get_licence(name) == source.licence != ""
        assert get_weights_address(name).startswith("https://")
        places = [bool(place) for place in (source.url, source.package, source.page, is_on_hub(name))]
        assert sum(places) == 1, name
        if source.kind != SALIENCY:
            check_name(get_timm_name(name))


def test_saliency_networks_are_no_encoders() -> None:
    with pytest.raises(InputError, match=r"found is a saliency network.*--saliency"):
        check_name("found")
    check_any_name("found")
    with pytest.raises(InputError, match="did you mean basnet-unsupervised"):
        check_any_name("basnet-unsupervise")


def test_licences_that_bind_are_named() -> None:
    assert "DINOv3 License" in get_licence("vit_small_patch16_dinov3.lvd1689m")
    assert all("NC" in get_licence(name) for name in ("swav_resnet50", "basnet-unsupervised"))
    assert get_licence("resnet18") == "apache-2.0" and get_licence("vit_base_patch16_224.mae") == "cc-by-nc-4.0"


def test_addresses_are_those_of_the_hub_or_of_the_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    dino = "vit_small_patch8_224.dino"
    assert get_weights_address(dino) == f"https://hub.example/timm/{dino}/resolve/main/model.safetensors"
    assert get_weights_address("dino_resnet50").endswith("dino_resnet50_pretrain.pth")
    assert not is_on_hub("flexivit_base.300ep_in1k")  # its file needs a program of timm's
