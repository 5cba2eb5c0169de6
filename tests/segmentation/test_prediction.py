"""Enlarging logits against torch's interpolation; batches and what they must not change; mirrored and odd images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from tiny_segmenter import make_segmenter
from torch.nn import functional

from fastcomus.backends.choose import select
from fastcomus.backends.read_ahead import DecodedImage, read_ahead
from fastcomus.config import PredictConfig
from fastcomus.images.found import UnreadableImage
from fastcomus.segmentation import class_scores
from fastcomus.segmentation.class_scores import Prediction, compute_enlarged_argmax, with_second_opinion
from fastcomus.segmentation.prediction import WINDOW, predict
from fastcomus.segmentation.regions import OwnObjects
from fastcomus.segmentation.segmenter import Segmenter, enlarge_logits

CPU = select("cpu")


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return make_segmenter(6).eval()


def assert_equals_torchs(logits: torch.Tensor, height: int, width: int, output_stride: int = 1) -> None:
    ours = compute_enlarged_argmax([logits], height, width, output_stride)
    assert ours.shape == (height, width) and ours.dtype == torch.uint16
    wide = logits[None].double()
    if output_stride > 1:  # logits at pixels 0, s, 2 s, ... of the network's input, which is the image resized
        size = [(side - 1) * output_stride + 1 for side in logits.shape[1:]]
        wide = functional.interpolate(wide, size, mode="bilinear", align_corners=True)
    large = functional.interpolate(wide, (height, width), mode="bilinear", align_corners=False)[0]
    best = large.topk(2, dim=0).values if len(logits) > 1 else torch.stack([large[0], large[0] - 1])
    is_clear = best[0] - best[1] > 1e-5
    assert is_clear.float().mean() > 0.99 and (ours.int() == large.argmax(0).int())[is_clear].all()


SIZES = [(1, 1), (1, 9), (5, 7), (16, 16), (50, 33), (97, 200), (3, 300)]


@pytest.mark.parametrize("source", [(1, 1), (1, 5), (4, 1), (5, 7), (17, 13)])
@pytest.mark.parametrize("band_values", [1, 500, 2**25])
def test_enlarging_equals_torchs(source: tuple[int, int], band_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_scores, "_BAND_VALUES", band_values)
    logits = torch.randn(5, *source, generator=torch.Generator().manual_seed(0))
    for height, width in SIZES:
        assert_equals_torchs(logits, height, width)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_strided_logits_lie_on_their_own_pixels(output_stride: int) -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    height, width = 2 * output_stride + 1, 4 * output_stride + 1
    same_size = compute_enlarged_argmax([logits], height, width, output_stride)
    assert (same_size[::output_stride, ::output_stride].int() == logits.argmax(0)).all()
    aligned = functional.interpolate(logits[None], (height, width), mode="bilinear", align_corners=True)[0].argmax(0)
    assert (same_size.int() == aligned).float().mean() > 0.999
    # The image twice as large as the network's input: the input's pixel grid enlarged by half-pixel centres.
    assert_equals_torchs(logits, 2 * height, 2 * width, output_stride)


@pytest.mark.parametrize("band_values", [1, 500, 2**25])
def test_several_sizes_are_averaged_as_probabilities(band_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_scores, "_BAND_VALUES", band_values)
    random = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(5, *size, generator=random) for size in ((4, 5), (8, 9), (13, 17))]
    ours = compute_enlarged_argmax(logits, 40, 50, 1)
    enlarged = [functional.interpolate(one[None], (40, 50), mode="bilinear", align_corners=False)[0] for one in logits]
    mean = torch.stack([one.softmax(0) for one in enlarged]).mean(0)
    assert (ours.int() == mean.argmax(0)).float().mean() > 0.999
    assert all((ours != compute_enlarged_argmax([one], 40, 50, 1)).float().mean() > 0.1 for one in logits)


@pytest.mark.parametrize("sizes", [1, 2])
@pytest.mark.parametrize("weight", [0.0, 0.2, 0.9])
def test_a_second_opinion_counts_its_weight(sizes: int, weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the definition: the network's clusters, in the shares that it gives them, where an object is."""
    monkeypatch.setattr(class_scores, "_BAND_VALUES", 700)  # several bands
    random = torch.Generator().manual_seed(3)
    logits = tuple(3 * torch.randn(5, *size, generator=random) for size in ((6, 7), (12, 13))[:sizes])
    is_object = (torch.rand(40, 50, generator=random) < 0.5).numpy()
    one = Prediction("image", logits, 40, 50, 1)
    own = OwnObjects(is_object.astype(np.uint8), weight)
    labels, confidence = one.compute_labels_and_confidence(own)
    assert (labels == one.compute_labels(own)).all()
    enlarged = [functional.interpolate(each[None], (40, 50), mode="bilinear")[0] for each in logits]
    network = torch.stack([each.softmax(0) for each in enlarged]).mean(0).double()
    opinion = torch.from_numpy(is_object).double()
    shares = network[1:] / network[1:].sum(0)
    wanted = torch.cat([(1 - opinion)[None], opinion * shares])
    mixed = (1 - weight) * network + weight * wanted
    assert (labels == mixed.argmax(0).numpy()).mean() > 0.999
    np.testing.assert_allclose(confidence, 255 * mixed.amax(0).numpy(), atol=0.51)
    assert (one.compute_labels() != labels).any() == (weight > 0)
    assert (one.compute_labels_and_confidence()[0] == one.compute_labels()).all()


def test_a_second_opinion_against_a_sure_network_is_no_division_by_nothing() -> None:
    sure = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    mixed = with_second_opinion(sure, torch.ones(1, 1, dtype=torch.bool), 0.4)
    assert torch.isfinite(mixed).all() and mixed[0] == pytest.approx(0.6)


def test_more_labels_than_a_byte_holds() -> None:
    logits = torch.zeros(400, 2, 2)
    logits[399] = 1
    assert (compute_enlarged_argmax([logits], 3, 3, 1).int() == 399).all()


def predictions(
    segmenter: Segmenter,
    images: dict[str, np.ndarray | UnreadableImage],
    workers: int = 2,
    done: Collection[str] = (),
    **settings: object,
) -> dict[str, Prediction]:
    def decoded(windows: Sequence[Sequence[str]], then: Callable[[DecodedImage], Any]) -> Iterator[Any]:
        def work(name: str) -> Any:
            image = images[name]
            bad = isinstance(image, UnreadableImage)
            return then(DecodedImage(name, error=image) if bad else DecodedImage(name, image))

        return read_ahead(work, chain.from_iterable(windows), workers)

    config = PredictConfig(**{"predict_size": 129, **settings})  # type: ignore[arg-type]
    made = list(predict(segmenter, list(images), decoded, config, "float32", CPU, done))
    assert len({one.image for one in made}) == len(made)
    return {one.image: one for one in made}


def assert_same_but_for_rounding(one: Prediction, other: Prediction) -> None:
    for logits, others in zip(one.logits, other.logits, strict=True):
        assert torch.allclose(logits, others, atol=1e-4)


def photographs() -> dict[str, np.ndarray]:
    return {
        "astronaut": data.astronaut()[:300, :401],
        "coffee": data.coffee()[:256, :256],
        "cat": data.chelsea()[:150:, :450],
    }


def many_photographs() -> dict[str, np.ndarray | UnreadableImage]:
    """More than a window, of three sizes in no order."""
    random = np.random.default_rng(0)
    sizes = [(60, 90), (90, 60), (80, 80)]
    images: dict[str, np.ndarray | UnreadableImage] = {}
    for index in range(WINDOW + 20):
        height, width = sizes[random.integers(3)]
        top, left = random.integers(0, 512 - height), random.integers(0, 512 - width)
        images[f"{index:03}"] = np.ascontiguousarray(data.astronaut()[top : top + height, left : left + width])
    images["005"] = UnreadableImage("truncated", "cut")
    return images


def test_every_image_gets_labels_of_its_own_size(segmenter: Segmenter) -> None:
    images: dict[str, np.ndarray | UnreadableImage] = {**photographs()}
    images["broken"] = UnreadableImage("truncated", "cut")
    images["again"] = images["astronaut"]
    images["dot"], images["line"] = np.full((1, 1, 3), 200, np.uint8), np.full((1, 3000, 3), 90, np.uint8)
    made = predictions(segmenter, images)
    assert made.keys() == images.keys() and made["broken"].error is images.pop("broken")
    for name, source in images.items():
        labels = made[name].compute_labels()
        assert made[name].error is None and isinstance(source, np.ndarray)
        assert labels.shape == source.shape[:2] and labels.dtype == np.uint16 and labels.max() <= 6
    assert_same_but_for_rounding(made["again"], made["astronaut"])
    assert len(np.unique(made["astronaut"].compute_labels())) > 2  # else the tests below would compare constants


@pytest.mark.parametrize("predict_batch", [3, 16])
def test_neighbours_change_nothing_but_rounding(segmenter: Segmenter, predict_batch: int) -> None:
    images = dict(list(many_photographs().items())[:60])  # more than a batch of each size
    settings = {"predict_size": 65, "flip": True, "scales": "1, 1.5"}
    together = predictions(segmenter, images, predict_batch=predict_batch, **settings)
    for name in list(images)[::7]:
        alone = predictions(segmenter, {name: images[name]}, **settings)
        assert_same_but_for_rounding(together[name], alone[name])


@pytest.mark.parametrize("predict_batch", [1, 4])
def test_workers_change_nothing_and_what_was_interrupted_goes_on_to_the_same_bytes(
    segmenter: Segmenter, predict_batch: int
) -> None:
    images = many_photographs()
    settings = {"predict_size": 65, "predict_batch": predict_batch}
    whole = predictions(segmenter, images, workers=1, **settings)
    order = list(whole)
    for count, workers in ((0, 2), (7, 4), (len(order) - 1, 3)):
        random = np.random.default_rng(count)
        for done in (order[:count], random.permutation(order)[:count].tolist()):
            rest = predictions(segmenter, images, workers, done, **settings)
            assert [name for name in order if name not in done] == list(rest)
            assert_same_bytes(rest, whole)


def test_threads_of_torch_change_nothing(segmenter: Segmenter) -> None:
    images, before, made = many_photographs(), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.append(predictions(segmenter, images, predict_size=65))
    finally:
        torch.set_num_threads(before)
    assert list(made[0]) == list(made[1])
    assert_same_bytes(*made)


def assert_same_bytes(ones: dict[str, Prediction], others: dict[str, Prediction]) -> None:
    for name, made in ones.items():
        if made.error is None:
            assert all(torch.equal(a, b) for a, b in zip(made.logits, others[name].logits, strict=True))
            assert made.compute_labels().tobytes() == others[name].compute_labels().tobytes()


def test_images_of_equal_size_share_a_batch(segmenter: Segmenter) -> None:
    batches: list[tuple[int, ...]] = []
    hook = segmenter.backbone.register_forward_pre_hook(lambda _, given: batches.append(tuple(given[0].shape)))
    images = {f"{i:03}": np.zeros((150, 150 if i % 3 else 200, 3), np.uint8) for i in range(WINDOW + 2)}
    predictions(segmenter, images, predict_batch=16)
    hook.remove()
    counts = [(shape[0], shape[3] > shape[2]) for shape in batches]  # threads compute them in any order
    assert sorted(counts) == [(2, False), (6, True), (10, False), (16, False), (16, False), (16, True)]


def test_nothing_is_read_where_all_is_done(segmenter: Segmenter) -> None:
    images = {f"{i:03}": np.zeros((40, 40, 3), np.uint8) for i in range(2 * WINDOW)}
    read: list[str] = []

    def note(windows: Sequence[Sequence[str]], then: Callable[[DecodedImage], Any]) -> Iterator[Any]:
        read.extend(chain.from_iterable(windows))
        return (then(DecodedImage(name, images[name])) for name in read)

    done = {name for name in images if name != f"{WINDOW + 3:03}"}
    made = list(predict(segmenter, list(images), note, PredictConfig(predict_size=65), "float32", CPU, done))
    assert [one.image for one in made] == [f"{WINDOW + 3:03}"] and sorted(read) == list(images)[WINDOW:]


@pytest.mark.parametrize("scales", ["1", "0.75, 1.5"])
def test_probabilities_enlarged_give_the_labels(segmenter: Segmenter, scales: str) -> None:
    for made in predictions(segmenter, photographs(), scales=scales).values():
        probabilities = made.compute_probabilities()
        sides = [max(one.shape[axis] for one in made.logits) for axis in (1, 2)]
        assert probabilities.dtype == np.float16
        assert probabilities.shape == (7, *(((side - 1) * made.output_stride + 1) // 4 for side in sides))
        assert np.abs(probabilities.sum(0, dtype=np.float32) - 1).max() < 5e-3 and probabilities.min() >= 0
        wide = torch.from_numpy(probabilities).float()[None]
        large = functional.interpolate(wide, (made.height, made.width), mode="bilinear", align_corners=False)[0]
        assert (large.argmax(0).numpy() == made.compute_labels()).mean() > 0.96


def test_prediction_is_the_network_on_the_resized_image(segmenter: Segmenter) -> None:
    pixels = np.ascontiguousarray(data.astronaut()[:129, :193])  # already of an aligned size
    made = predictions(segmenter, {"a": pixels})["a"]
    with torch.inference_mode():
        logits = enlarge_logits(segmenter(torch.from_numpy(pixels).permute(2, 0, 1)[None]), pixels.shape[:2])
        expected = logits[0].argmax(0).numpy()
    assert (made.compute_labels() == expected).mean() > 0.999


def test_every_second_size_is_seen_mirrored(segmenter: Segmenter) -> None:
    images = photographs()
    mirrored = {name: np.ascontiguousarray(pixels[:, ::-1]) for name, pixels in images.items()}
    both = predictions(segmenter, images, scales="1, 1.5")
    first, second = predictions(segmenter, images, scales="1"), predictions(segmenter, mirrored, scales="1.5")
    for name, one in both.items():
        expected = first[name].logits[0], second[name].logits[0].flip(-1)
        for ours, theirs in zip(one.logits, expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-3 * float(theirs.abs().max()))


def test_mirrored_image_gives_the_mirrored_prediction(segmenter: Segmenter) -> None:
    images = photographs()
    mirrored = {name: np.ascontiguousarray(pixels[:, ::-1]) for name, pixels in images.items()}
    plain, flipped = predictions(segmenter, images), predictions(segmenter, images, flip=True)
    of_mirrored = predictions(segmenter, mirrored, flip=True)
    for name, one in flipped.items():
        # All but pixels where two labels tie up to rounding.
        assert (one.compute_labels() == of_mirrored[name].compute_labels()[:, ::-1]).mean() > 0.9995
    assert any((plain[name].compute_labels() != flipped[name].compute_labels()).mean() > 0.01 for name in images)
