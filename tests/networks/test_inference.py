"""OpenVINO gives what torch gives, whatever it cannot run is run by torch, and its absence is told."""

from __future__ import annotations

import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ENCODER, Photographs
from tiny_segmenter import BACKBONE
from torch import nn

from fastcomus import InputError, Run
from fastcomus.backends import choose
from fastcomus.networks.encoders import load_encoder
from fastcomus.networks.inference import check_inference, choose_inference, compile_by_openvino, has_openvino
from fastcomus.segmentation.labelling_network import AcceleratedSegmenter, prepare_segmenter
from fastcomus.segmentation.segmenter import build_segmenter
from fastcomus.store.embeddings import normalise_rows

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")


@needs_openvino
def test_logits_are_torchs_at_every_size_and_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    segmenter = build_segmenter(BACKBONE, "", 3, 16, pretrained=False)
    fast = prepare_segmenter(segmenter, "float32", CPU, "openvino")
    assert isinstance(fast, AcceleratedSegmenter) and fast.output_stride == segmenter.output_stride
    generator = torch.Generator().manual_seed(1)
    for height, width in ((129, 193), (193, 129), (257, 257)):
        images = torch.randint(0, 256, (3, 3, height, width), generator=generator).to(torch.uint8)
        with torch.inference_mode():
            expected = prepare_segmenter(segmenter, "float32", CPU, "torch")(images)
        made = fast(images)
        assert made.shape == expected.shape and made.dtype == torch.float32
        assert (made - expected).abs().max() < 1e-4 * expected.abs().max()
        assert torch.equal(fast(images[1:2]), made[1:2])


@needs_openvino
def test_threads_that_label_at_once_get_what_one_gets() -> None:
    torch.manual_seed(0)
    fast = prepare_segmenter(build_segmenter(BACKBONE, "", 3, 16, pretrained=False), "float32", CPU, "openvino")
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (40, 3, 65, 97), generator=generator).to(torch.uint8)
    expected = fast(images)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(fast, images.split(3)))
    assert torch.equal(torch.cat(made), expected)


@needs_openvino
def test_embeddings_are_torchs_and_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino_telemetry

    monkeypatch.setattr(openvino_telemetry.Telemetry, "init", None)  # what would begin to send
    crops = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    slow, fast = (load_encoder(ENCODER["encoder"], "", 64, "float32", CPU, one) for one in ("torch", "openvino"))
    assert slow.accelerated is None and fast.accelerated is not None
    ours, theirs = (normalise_rows(one(crops).numpy()) for one in (fast, slow))
    assert np.abs(ours - theirs).max() < 1e-5


class _Unknown(nn.Module):
    """Makes what OpenVINO has no operation for."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(images.float() @ images.float().mT)


@needs_openvino
def test_a_network_that_it_cannot_run_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    example = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    with caplog.at_level(logging.WARNING, "fastcomus"):
        for _ in range(2):
            assert compile_by_openvino(_Unknown().eval(), example, "float32", True, "this one") is None
    (told,) = caplog.messages
    assert told.startswith("OpenVINO cannot run this one, so torch does: ")


def test_what_runs_networks_is_chosen_by_device_number_and_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    best = "openvino" if has_openvino() else "torch"
    assert [choose_inference("auto", device, images, 10) for device, images in (("cpu", 10), ("cpu", 9))] == [
        best,
        "torch",
    ]
    assert choose_inference("auto", "cuda:0", 10, 10) == choose_inference("torch", "cpu", 10, 10) == "torch"
    assert choose_inference("openvino", "cpu", 1, 10) == "openvino"
    with pytest.raises(InputError, match="runs on a CPU and the device is cuda:1"):
        choose_inference("openvino", "cuda:1", 10, 10)
    with pytest.raises(InputError, match="must be one of auto, torch, openvino; got 'opnvino'; did you mean openvino"):
        check_inference("opnvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert choose_inference("auto", "cpu", 10, 10) == "torch"
    with pytest.raises(InputError, match=r"needs openvino, which is not installed; run pip install openvino\.$"):
        Run(inference="openvino")


@needs_openvino
def test_compile_is_torchs(photographs: Photographs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--compile is torch's"):
        Run(tmp_path, preset="offline", inference="openvino").embed(photographs.images, compile=True)


@needs_openvino
def test_openvino_on_a_gpu_is_refused_when_the_device_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a network is trained, not when it labels for the first time."""
    monkeypatch.setattr(choose, "select", lambda *_: SimpleNamespace(device_name="cuda:0"))
    with pytest.raises(InputError, match="runs on a CPU and the device is cuda:0"):
        _ = Run(tmp_path, preset="offline", inference="openvino").workplace.backend
