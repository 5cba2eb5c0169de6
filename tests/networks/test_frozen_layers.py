"""Layers that keep their weights: which ones they are, and that training leaves them to the bit."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from fastcomus.backends.choose import select
from fastcomus.networks.frozen_layers import freeze_layers
from fastcomus.segmentation.training import SelfTraining
from fastcomus.settings import get_preset_config


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0", "convnext_atto", "regnetx_002"])
def test_what_is_frozen_are_the_layers_before_the_features_of_the_stride(backbone: str) -> None:
    network = timm.create_model(backbone, features_only=True)
    places = [one["reduction"] for one in network.feature_info.info]
    freeze_layers(network, 4)
    features = network(torch.randn(1, 3, 64, 64))
    learns = [one.requires_grad for one in features]
    assert learns == [stride > 4 for stride in places]


@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0"])
def test_dilated_layers_learn_whatever_the_stride_of_their_maps(backbone: str) -> None:
    usual, dilated = (timm.create_model(backbone, features_only=True, output_stride=stride) for stride in (32, 8))
    for network in (usual, dilated):
        freeze_layers(network, 8)
    learns = [[name for name, one in network.named_parameters() if one.requires_grad] for network in (usual, dilated)]
    assert learns[0] and learns[0] == learns[1]


def test_a_backbone_without_such_layers_learns_whole(caplog: pytest.LogCaptureFixture) -> None:
    network = timm.create_model("vit_tiny_patch16_224", features_only=True)
    with caplog.at_level(logging.WARNING, "fastcomus"):
        assert freeze_layers(network, 4) == [] and "so that all of them learn" in caplog.text
    assert all(one.requires_grad for one in network.parameters()) and freeze_layers(network, 0) == []


def test_training_changes_all_but_the_frozen_layers() -> None:
    config = replace(get_preset_config("offline").train, train_size=65, batch_size=4, frozen_stride=4)
    states = []
    training = SelfTraining(2, config, 1, 0, select("cpu"))
    for _ in range(2):
        states.append({name: tensor.clone() for name, tensor in training.segmenter.backbone.state_dict().items()})
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (4, 3, 65, 65), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, 3, (4, 65, 65), generator=generator)
        training._step([(images, labels)], 0, 0)
    changed = {name for name, before in states[0].items() if not torch.equal(before, states[1][name])}
    assert {name[: name.index(".", 7)] for name in changed} == {f"blocks.{stage}" for stage in range(2, 7)}
    frozen = [one for layer in training.frozen for one in layer.modules() if isinstance(one, nn.BatchNorm2d)]
    assert frozen and not any(one.training for one in frozen)
