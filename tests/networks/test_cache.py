"""The cache: fetching once, pinning, refusing what is no checkpoint, the hub, and machines without a network."""

from __future__ import annotations

import pickle
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save
from weight_server import Malicious, Server, saved

from fastcomus.errors import InputError
from fastcomus.networks import cache, weights
from fastcomus.networks.cache import is_present, list_added_names, obtain_checkpoint_file
from fastcomus.networks.registry import SOURCES
from fastcomus.objects.saliency.skeletons import create_saliency_network

DECODER = {"decoder": {"weight": torch.ones(1, 384, 1, 1), "bias": torch.zeros(1)}}

pytestmark = pytest.mark.usefixtures("weight_cache")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The place that FOUND's decoder and the hub's files come from."""
    made = Server()
    monkeypatch.setitem(SOURCES, "found", replace(SOURCES["found"], url=f"{made.address}/found.pt"))
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    yield made
    made.close()


def test_file_is_fetched_once_and_pinned(server: Server, weight_cache: Path) -> None:
    server.holds("/found.pt", saved(DECODER))
    file = obtain_checkpoint_file("found")
    assert obtain_checkpoint_file("found") == file == weight_cache / "found.pth" and len(server.asked) == 1
    assert weights.read_checkpoint(file)["decoder.weight"].shape == (1, 384, 1, 1)
    assert is_present("found") and list_added_names() == ["found"]


def test_file_that_changed_here_is_refused_and_can_be_fetched_again(server: Server, weight_cache: Path) -> None:
    server.holds("/found.pt", saved(DECODER))
    with obtain_checkpoint_file("found").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="has changed since it came; delete it"):
        obtain_checkpoint_file("found")
    (weight_cache / "found.pth").unlink()
    assert obtain_checkpoint_file("found").is_file()


def test_file_that_changed_at_its_publisher_is_refused(server: Server, weight_cache: Path) -> None:
    server.holds("/found.pt", saved(DECODER))
    obtain_checkpoint_file("found").unlink()
    server.holds("/found.pt", saved({"decoder": {"weight": torch.zeros(1, 384, 1, 1), "bias": torch.zeros(1)}}))
    with pytest.raises(InputError, match=r"SHA-256 .* instead of"):
        obtain_checkpoint_file("found")
    assert not is_present("found")
    (weight_cache / "found.pth.sha256").unlink()
    assert obtain_checkpoint_file("found").is_file()


def test_published_checksum_is_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "found", replace(SOURCES["found"], sha256="0" * 64))
    server.holds("/found.pt", saved(DECODER))
    with pytest.raises(InputError, match=f"instead of {'0' * 64}"):
        obtain_checkpoint_file("found")
    assert not is_present("found")


@pytest.mark.parametrize("reply", ["403", "404", "cut short", "no server"])
def test_failed_download_says_what_to_do(
    reply: str, server: Server, weight_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "download", partial(cache.download, pause_seconds=0.0))
    if reply == "403":
        server.holds("/found.pt", b"", status=403)
    if reply == "cut short":
        server.holds("/found.pt", b"x" * 1000, promised=5000)
    if reply == "no server":
        server.close()
    with pytest.raises(InputError) as raised:
        obtain_checkpoint_file("found")
    sentence = str(raised.value)
    assert "could not be downloaded" in sentence and "\n" not in sentence
    assert "fastcomus weights add found FILE" in sentence and f"{server.address}/found.pt" in sentence
    assert {"cut short": "1000 of 5000 bytes", "403": "403"}.get(reply, "") in sentence
    assert not is_present("found") and list_added_names() == []


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("body", ["plain pickle", "torch.save", "page"])
def test_what_is_no_checkpoint_does_not_enter(body: str, server: Server, weight_cache: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    payload = {"decoder": Malicious(trap)}
    bodies = {"plain pickle": pickle.dumps(payload), "torch.save": saved(payload), "page": b"<html>log in</html>"}
    server.holds("/found.pt", bodies[body])
    with pytest.raises(InputError, match=r"the file from http.*found\.pt is no checkpoint that can be read"):
        obtain_checkpoint_file("found")
    assert not trap.exists() and {file.name for file in weight_cache.iterdir()} <= {"found.pth.lock"}


def test_weights_come_from_the_hub_to_where_timm_finds_them(
    server: Server, weight_cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    own = timm.create_model("vit_small_patch16_dinov3").state_dict()
    name = "vit_small_patch16_dinov3.lvd1689m"
    server.holds(f"/timm/{name}/resolve/main/model.safetensors", save(own))
    with caplog.at_level("INFO", logger="fastcomus"):
        file = obtain_checkpoint_file(name)
    assert "DINOv3 License" in caplog.text
    assert file.is_relative_to(tmp_path / "hub") and is_present(name) and not weight_cache.exists()
    asked = len(server.asked)
    loaded = weights.load(name, num_classes=0).state_dict()
    assert loaded and all(torch.equal(tensor, own[key]) for key, tensor in loaded.items())
    assert len(server.asked) == asked


@pytest.mark.parametrize("variable", ["FASTCOMUS_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("name", ["found", "resnet18", "flexivit_base.300ep_in1k"])
def test_offline_asks_nobody(variable: str, name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    with pytest.raises(InputError, match=rf"{variable}.*forbids.*fetch them from .*fastcomus weights add {name} FILE"):
        obtain_checkpoint_file(name)
    assert server.asked == []


def test_hub_that_does_not_have_it_is_told(server: Server) -> None:
    with pytest.raises(InputError, match=r"resnet18.* could not be downloaded .*weights add resnet18 FILE"):
        obtain_checkpoint_file("resnet18")
    assert server.asked and not is_present("resnet18")


def test_hub_that_does_not_answer_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as bound:  # nothing listens
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{bound.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(InputError, match=r"resnet18.* could not be downloaded .*weights add resnet18 FILE"):
            obtain_checkpoint_file("resnet18")
    assert time.monotonic() - started < 10 and not caplog.messages


def test_unknown_names_list_near_ones() -> None:
    with pytest.raises(InputError, match=r"did you mean .*dino_resnet50"):
        obtain_checkpoint_file("dino_resnet")


def test_unwritable_cache_is_told(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTCOMUS_WEIGHTS", str(tmp_path / "file"))
    server.holds("/found.pt", saved(DECODER))
    with pytest.raises(InputError, match="could not be downloaded"):
        obtain_checkpoint_file("found")
    (tmp_path / "found.pt").write_bytes(saved(DECODER))
    with pytest.raises(InputError, match="could not be copied to"):
        weights.add("found", tmp_path / "found.pt", create_saliency_network)
