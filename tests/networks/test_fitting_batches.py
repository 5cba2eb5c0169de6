"""Batches halved and remembered where memory runs out: real allocations that fail, and a device of little memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from fastcomus.backends.choose import select
from fastcomus.backends.read_ahead import DecodedImage
from fastcomus.config import EmbedConfig, PredictConfig
from fastcomus.errors import InputError, is_out_of_memory
from fastcomus.networks.fitting_batches import FittingBatches, choose_batch_limit

HOST = torch.device("cpu")
MORE_THAN_ANY_MACHINE = 2**50  # bytes


class Recorder:
    """Doubles a batch; asks for more memory than there is when it holds more than `most` items."""

    def __init__(self, most: int) -> None:
        self.most, self.sizes = most, []  # type: ignore[var-annotated]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            torch.empty(MORE_THAN_ANY_MACHINE, dtype=torch.uint8)
        return 2 * batch


def test_a_batch_that_needs_too_much_is_halved_once_and_for_all(caplog: pytest.LogCaptureFixture) -> None:
    batches, double = FittingBatches(HOST), Recorder(most=3)
    batch = torch.arange(40.0).reshape(10, 4)
    with caplog.at_level(logging.WARNING, "fastcomus"):
        assert (torch.cat(batches.run(double, batch)) == 2 * batch).all()
    assert double.sizes == [10, 5, 2, 2, 2, 2, 2]
    assert "Out of memory on cpu: from here on 2 at once of shape (4,)." in caplog.text
    double.sizes.clear()
    assert (torch.cat(batches.run(double, batch[:5])) == 2 * batch[:5]).all()
    assert double.sizes == [2, 2, 1]


def test_larger_items_come_no_more_at_once_and_smaller_ones_as_they_did() -> None:
    batches, double = FittingBatches(HOST), Recorder(most=3)
    batches.run(double, torch.zeros(8, 100))
    double.sizes.clear()
    batches.run(double, torch.zeros(4, 200))
    assert double.sizes == [2, 2]
    double.sizes.clear()
    batches.run(double, torch.zeros(3, 10))
    assert double.sizes == [3]


def test_a_single_item_that_does_not_fit_is_told() -> None:
    told = r"cpu has too little memory for a single item of shape \(2, 5\); lower .*predict_size, or"
    with pytest.raises(InputError, match=told):
        FittingBatches(HOST).run(Recorder(most=0), torch.zeros(6, 2, 5))


def test_what_would_fit_is_told_of_an_image_that_does_not() -> None:
    def take(batch: torch.Tensor) -> torch.Tensor:
        if batch.shape[-1] * batch.shape[-2] > 50 * 50:
            torch.empty(MORE_THAN_ANY_MACHINE, dtype=torch.uint8)
        return batch

    with pytest.raises(InputError, match="predict_size to about 25 %, which would fit"):
        FittingBatches(HOST).run(take, torch.zeros(1, 3, 160, 160))


@pytest.mark.parametrize(("side", "told"), [(400, 22), (110, 80)])
def test_the_size_that_fits_follows_from_what_smaller_ones_take(side: int, told: int) -> None:
    class ByArea(SmallDevice):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            self.per_item = batch.shape[-1] * batch.shape[-2]
            return super().__call__(batch)

    device = ByArea(capacity=100 * 100, per_item=0)
    with pytest.raises(InputError, match=f"predict_size to about {told} %, which"):
        FittingBatches(HOST, device).run(device, torch.zeros(2, 3, side, side))


def test_other_errors_are_not_hidden() -> None:
    def broken(batch: torch.Tensor) -> torch.Tensor:
        return batch @ torch.zeros(7, 7)

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        FittingBatches(HOST).run(broken, torch.zeros(4, 5))
    assert FittingBatches(HOST).run(Recorder(most=1), torch.zeros(0, 5)) == []


def test_errors_of_memory_are_known_by_what_torch_really_raises() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(MORE_THAN_ANY_MACHINE, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2")) and not is_out_of_memory(ValueError("memory"))


class SmallDevice:
    """Stands in for a CUDA device: `capacity` bytes; an item takes `per_item`, several `unforeseen` more."""

    def __init__(self, capacity: int, per_item: int, unforeseen: int = 0) -> None:
        self.capacity, self.per_item, self.unforeseen = capacity, per_item, unforeseen
        self.sizes: list[int] = []
        self.releases = 0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) * self.per_item + (self.unforeseen if len(batch) > 1 else 0) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        return batch + 1

    def measure_free_bytes(self) -> int:
        return self.capacity

    def measure_peak_bytes(self, work: Callable[[], object]) -> int:
        work()
        return self.per_item

    def release(self) -> None:
        self.releases += 1


def test_the_first_item_tells_how_many_fit() -> None:
    device = SmallDevice(capacity=1000, per_item=100)
    batches = FittingBatches(HOST, device)
    for _ in range(2):
        assert (torch.cat(batches.run(device, torch.zeros(20, 3))) == 1).all()
    assert device.sizes == [1, 8, 8, 4, 8, 8, 4] and device.releases == 0  # four fifths of what is free


def test_what_was_not_foreseen_halves_the_batch() -> None:
    device = SmallDevice(capacity=1000, per_item=100, unforeseen=300)
    assert (torch.cat(FittingBatches(HOST, device).run(device, torch.zeros(9, 3))) == 1).all()
    assert device.sizes == [1, 8, 4, 4, 1] and device.releases == 1


def test_a_setting_of_0_takes_what_suits_the_device() -> None:
    assert choose_batch_limit(5, HOST, 256, 32) == 5
    assert choose_batch_limit(0, HOST, 256, 32) == 32 and choose_batch_limit(0, torch.device("cuda:1"), 256, 32) == 256


# -- embed and predict ------------------------------------------------------------------------------------------------


def test_embedding_and_prediction_go_on_with_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastcomus.objects.embedding import _Collector, _Proposal
    from fastcomus.segmentation.prediction import predict
    from fastcomus.segmentation.segmenter import build_segmenter

    embedded: list[int] = []

    class Mean:
        dimension = 3

        def __call__(self, crops: torch.Tensor) -> torch.Tensor:
            embedded.append(len(crops))
            if len(crops) > 2:
                torch.empty(MORE_THAN_ANY_MACHINE, dtype=torch.uint8)
            return crops.float().mean((2, 3))

    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.integers(0, 256, (7, 3, 8, 8), dtype=np.uint8))
    collector = _Collector(EmbedConfig(crop_size=8, embed_batch=4), Mean(), HOST)  # type: ignore[arg-type]
    names = ("width", "height", "x0", "y0", "x1", "y1", "area")
    row = {"image": "a", **dict.fromkeys(names, 1), "score": 1.0, "mask": ""}
    collector.add(_Proposal([row] * 7, crops, []))
    rows = np.stack(collector.finish().objects["embedding"].to_pylist())
    assert np.allclose(rows, crops.float().mean((2, 3)).numpy()) and embedded == [4, 2, 2, 2, 1]

    torch.manual_seed(0)
    segmenter = build_segmenter("efficientnet-lite0", "", 3, 16).eval()
    images = {str(i): rng.integers(0, 256, (65, 65, 3), dtype=np.uint8) for i in range(5)}
    backend, sizes = select("cpu"), []

    def decoded(windows: Sequence[Sequence[str]], then: Callable[[DecodedImage], Any]) -> Iterator[Any]:
        return (then(DecodedImage(name, images[name])) for name in chain.from_iterable(windows))

    def labels(config: PredictConfig) -> dict[str, np.ndarray]:
        found = predict(segmenter, list(images), decoded, config, "float32", backend)
        return {one.image: one.compute_labels() for one in found}

    usual = labels(PredictConfig(predict_size=65, predict_batch=5))
    forward = segmenter.forward

    def hungry(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) > 2:
            torch.empty(MORE_THAN_ANY_MACHINE, dtype=torch.uint8)
        return forward(batch)

    monkeypatch.setattr(segmenter, "forward", hungry)
    fitted = labels(PredictConfig(predict_size=65, predict_batch=5))
    assert sizes == [5, 2, 2, 1] and fitted.keys() == usual.keys()
    assert np.mean([(fitted[name] == usual[name]).mean() for name in images]) > 0.999
