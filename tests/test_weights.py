"""Names, presence, the probe of the network, and downloads from a real server on this machine."""

from __future__ import annotations

import io
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch

from fastcomus import weights
from fastcomus.errors import InputError


class Server:
    """An HTTP server: `replies[path]` is (status, body, promised length)."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[int, bytes, int]] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self, with_body: bool) -> None:
                server.asked.append(f"{self.command} {self.path}")
                status, body, length = server.replies.get(self.path, (404, b"", 0))
                self.send_response(status)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def do_GET(self) -> None:
                self._answer(True)

            def do_HEAD(self) -> None:
                self._answer(False)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def holds(self, path: str, body: bytes, length: int | None = None) -> None:
        self.replies[path] = (200, body, len(body) if length is None else length)

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


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


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:
    """Empty caches, a network that may be asked, and no proxy on the way to this machine."""
    monkeypatch.setenv("FASTCOMUS_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("FASTCOMUS_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def dino(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """`server`, as the place that dino_resnet50 comes from."""
    source = replace(weights.SOURCES["dino_resnet50"], url=f"{server.address}/dino.pth")
    monkeypatch.setitem(weights.SOURCES, "dino_resnet50", source)
    return server


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, torch.Tensor]:
    """A ResNet50 without a classifier, as DINO's file is."""
    torch.manual_seed(0)
    return timm.create_model("resnet50", num_classes=0).state_dict()


def saved(state: object) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


class Malicious:
    """Unpickling it would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.file),)


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
        weights.check_name(name)
    with pytest.raises(InputError, match=r"there is no network 'zzzzqqqq'; see timm.list_models"):
        weights.check_name("zzzzqqqq")


@pytest.mark.parametrize("name", ["efficientnet-lite0", "dino_resnet50", "resnet50", "vit_small_patch8_224.dino"])
def test_known_names_pass(name: str) -> None:
    weights.check_name(name)


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
        weights.check_name(name)
        assert weights.is_supervised(name) == (name in supervised), name


def test_presence_is_looked_up_on_this_machine_alone(own_caches: Path, dino: Server) -> None:
    assert weights.is_present("efficientnet-lite0")
    assert not weights.is_present("dino_resnet50") and not weights.is_present("vit_small_patch8_224.dino")
    own_caches.mkdir()
    (own_caches / "dino.pth").write_bytes(b"x")
    assert weights.is_present("dino_resnet50")
    assert dino.asked == []


@pytest.mark.parametrize("variable", ["FASTCOMUS_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(variable: str, dino: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    dino.holds("/dino.pth", b"x")
    started = time.monotonic()
    assert not weights.can_be_had(["dino_resnet50"])
    assert weights.can_be_had(["efficientnet-lite0"])
    assert time.monotonic() - started < 1 and dino.asked == []


def test_silent_address_counts_as_absent_in_time(black_hole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", black_hole)
    monkeypatch.setitem(
        weights.SOURCES, "dino_resnet50", replace(weights.SOURCES["dino_resnet50"], url=f"{black_hole}/dino.pth")
    )
    started = time.monotonic()
    assert weights.choose_preset() == "offline"
    assert time.monotonic() - started < weights.PROBE_SECONDS + 0.5


def test_answering_addresses_choose_dino(dino: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", dino.address)
    dino.holds("/dino.pth", b"x")
    assert weights.choose_preset() == "offline"  # one of the two answers 404
    dino.holds("/timm/vit_small_patch8_224.dino/resolve/main/model.safetensors", b"x")
    assert weights.choose_preset() == "dino"
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
        assert not weights.can_be_had(["dino_resnet50"])
        thread.join(5)


def test_dino_resnet50_is_fetched_once_and_loads(
    dino: Server, own_caches: Path, resnet_state: dict[str, torch.Tensor]
) -> None:
    dino.holds("/dino.pth", saved(resnet_state))
    encoder = weights.load("dino_resnet50", num_classes=0)
    backbone = weights.load("dino_resnet50", features_only=True, out_indices=(-1,), output_stride=8)
    assert dino.asked == ["GET /dino.pth"]
    assert sorted(file.name for file in own_caches.iterdir()) == ["dino.pth", "dino.sha256"]
    for network in (encoder, backbone):
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, resnet_state[name]), name
        assert network.pretrained_cfg["state_dict"] is None
    assert len(encoder.state_dict()) == len(resnet_state)
    assert backbone(torch.zeros(1, 3, 65, 65))[-1].shape == (1, 2048, 9, 9)


def test_changed_file_is_refused(dino: Server, own_caches: Path, resnet_state: dict[str, torch.Tensor]) -> None:
    dino.holds("/dino.pth", saved(resnet_state))
    weights.load("dino_resnet50", num_classes=0)
    with (own_caches / "dino.pth").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match="has changed since it was downloaded; delete it"):
        weights.load("dino_resnet50", num_classes=0)
    (own_caches / "dino.pth").unlink()
    weights.load("dino_resnet50", num_classes=0)


@pytest.mark.parametrize("reply", ["404", "cut short", "no server"])
def test_failed_download_leaves_nothing(reply: str, dino: Server, own_caches: Path) -> None:
    if reply == "cut short":
        dino.holds("/dino.pth", b"x" * 1000, length=5000)
    if reply == "no server":
        dino.close()
    with pytest.raises(InputError) as raised:
        weights.load("dino_resnet50", num_classes=0)
    sentence = str(raised.value)
    assert "could not be downloaded" in sentence and "--preset offline" in sentence and "\n" not in sentence
    assert reply != "cut short" or "1000 of 5000 bytes" in sentence
    assert not own_caches.exists() or list(own_caches.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["plain pickle", "torch.save"])
def test_pickles_are_never_executed(form: str, dino: Server, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    payload = {"conv1.weight": Malicious(trap)}
    body = pickle.dumps(payload) if form == "plain pickle" else saved(payload)
    pickle.loads(pickle.dumps(Malicious(trap)))
    trap.rmdir()  # the trap works
    dino.holds("/dino.pth", body)
    with pytest.raises(InputError, match="not a checkpoint"):
        weights.load("dino_resnet50", num_classes=0)
    file = tmp_path / "own.pth"
    file.write_bytes(body)
    with pytest.raises(InputError, match=r"own\.pth could not be loaded"):
        weights.load("resnet18", str(file), num_classes=0)
    assert not trap.exists()


def test_page_instead_of_weights_is_refused(dino: Server) -> None:
    dino.holds("/dino.pth", b"<html>please log in</html>")
    with pytest.raises(InputError, match=r"not a checkpoint that can be read .*delete it"):
        weights.load("dino_resnet50", num_classes=0)


def test_weights_of_another_network_are_refused(dino: Server, tmp_path: Path) -> None:
    other = timm.create_model("resnet18").state_dict()
    torch.save(other, tmp_path / "resnet18.pth")
    for options in ({"num_classes": 0}, {"features_only": True}):
        with pytest.raises(InputError, match=r"resnet18\.pth"):
            weights.load("resnet50", str(tmp_path / "resnet18.pth"), **options)
        renamed = {f"student.{name}": tensor for name, tensor in other.items()}
        torch.save(renamed, tmp_path / "renamed.pth")
        with pytest.raises(InputError, match=r"does not hold the weights of resnet18|could not be loaded"):
            weights.load("resnet18", str(tmp_path / "renamed.pth"), **options)


def test_checkpoint_inside_a_training_state_is_found(tmp_path: Path) -> None:
    own = timm.create_model("resnet18").state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in own.items()}, "epoch": 3}, tmp_path / "state.pth")
    loaded = weights.load("resnet18", str(tmp_path / "state.pth"), num_classes=0).state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.items())
