"""Enlarging logits against torch's interpolation; predictions in order, mirrored, of unreadable and odd images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional as F

from fastcomus import prediction
from fastcomus.backends import select
from fastcomus.config import PredictConfig
from fastcomus.images import UnreadableImage
from fastcomus.prediction import Prediction, enlarged_argmax, predict
from fastcomus.segmenter import Segmenter, build_segmenter

CPU = select("cpu")


@pytest.fixture(scope="module")
def segmenter(mobilenet: str) -> Segmenter:
    """A network at random whose class maps of photographs hold several labels."""
    torch.manual_seed(0)
    made = build_segmenter("mobilenetv3_small_050", mobilenet, 6, 16)
    images = torch.from_numpy(np.stack([data.astronaut()[:257, :257], data.coffee()[:257, :257]])).permute(0, 3, 1, 2)
    with torch.no_grad():
        for _ in range(30):  # batch statistics, without which random networks answer with one label
            made.train()(images)
        logits = made.eval().coarse_logits(images)
        made.head[-1].bias -= logits.mean((0, 2, 3))
    return made.eval()


def assert_equals_torchs(logits: torch.Tensor, height: int, width: int, output_stride: int = 1) -> None:
    ours = enlarged_argmax([logits], height, width, output_stride)
    assert ours.shape == (height, width) and ours.dtype == torch.uint16
    wide = logits[None].double()
    if output_stride > 1:  # logits at pixels 0, s, 2 s, ... of the network's input, which is the image resized
        size = [(side - 1) * output_stride + 1 for side in logits.shape[1:]]
        wide = F.interpolate(wide, size, mode="bilinear", align_corners=True)
    enlarged = F.interpolate(wide, (height, width), mode="bilinear", align_corners=False)[0]
    best = enlarged.topk(2, dim=0).values if len(logits) > 1 else torch.stack([enlarged[0], enlarged[0] - 1])
    is_clear = best[0] - best[1] > 1e-5
    assert is_clear.float().mean() > 0.99 and (ours.int() == enlarged.argmax(0).int())[is_clear].all()


SIZES = [(1, 1), (1, 9), (5, 7), (16, 16), (50, 33), (97, 200), (3, 300)]


@pytest.mark.parametrize("source", [(1, 1), (1, 5), (4, 1), (5, 7), (17, 13)])
@pytest.mark.parametrize("band_values", [1, 500, 2**25])
def test_enlarging_equals_torchs(source: tuple[int, int], band_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_BAND_VALUES", band_values)
    logits = torch.randn(5, *source, generator=torch.Generator().manual_seed(0))
    for height, width in SIZES:
        assert_equals_torchs(logits, height, width)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_strided_logits_lie_on_their_own_pixels(output_stride: int) -> None:
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    height, width = 2 * output_stride + 1, 4 * output_stride + 1
    same_size = enlarged_argmax([logits], height, width, output_stride)
    assert (same_size[::output_stride, ::output_stride].int() == logits.argmax(0)).all()
    aligned = F.interpolate(logits[None], (height, width), mode="bilinear", align_corners=True)[0].argmax(0)
    assert (same_size.int() == aligned).float().mean() > 0.999
    # The image twice as large as the network's input: the input's pixel grid enlarged by half-pixel centres.
    assert_equals_torchs(logits, 2 * height, 2 * width, output_stride)


@pytest.mark.parametrize("band_values", [1, 500, 2**25])
def test_several_sizes_are_averaged_as_probabilities(band_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "_BAND_VALUES", band_values)
    random = torch.Generator().manual_seed(0)
    logits = [3 * torch.randn(5, *size, generator=random) for size in ((4, 5), (8, 9), (13, 17))]
    ours = enlarged_argmax(logits, 40, 50, 1)
    enlarged = [F.interpolate(one[None], (40, 50), mode="bilinear", align_corners=False)[0] for one in logits]
    mean = torch.stack([one.softmax(0) for one in enlarged]).mean(0)
    assert (ours.int() == mean.argmax(0)).float().mean() > 0.999
    assert all((ours != enlarged_argmax([one], 40, 50, 1)).float().mean() > 0.1 for one in logits)


def test_more_labels_than_a_byte_holds() -> None:
    logits = torch.zeros(400, 2, 2)
    logits[399] = 1
    assert (enlarged_argmax([logits], 3, 3, 1).int() == 399).all()


def predictions(
    segmenter: Segmenter, images: dict[str, np.ndarray | UnreadableImage], workers: int = 2, **settings: object
) -> list[Prediction]:
    def read(name: str) -> np.ndarray:
        image = images[name]
        if isinstance(image, UnreadableImage):
            raise image
        return image

    config = PredictConfig(predict_size=129, **settings)  # type: ignore[arg-type]
    return list(predict(segmenter, list(images), read, config, "float32", CPU, workers))


def photographs() -> dict[str, np.ndarray]:
    return {
        "astronaut": data.astronaut()[:300, :401],
        "coffee": data.coffee()[:256, :256],
        "cat": data.chelsea()[:150:, :450],
    }


def test_predictions_come_in_order_at_the_images_size(segmenter: Segmenter) -> None:
    images: dict[str, np.ndarray | UnreadableImage] = {**photographs()}
    names = ["broken", *images, "again"]
    images["broken"] = UnreadableImage("truncated", "cut")
    images["again"] = images["astronaut"]
    images["dot"], images["line"] = np.full((1, 1, 3), 200, np.uint8), np.full((1, 3000, 3), 90, np.uint8)
    images = {name: images[name] for name in [*names, "dot", "line"]}
    made = predictions(segmenter, images)
    assert [one.image for one in made] == list(images)
    for one in made:
        source = images[one.image]
        if isinstance(source, UnreadableImage):
            assert one.labels is None and one.error is source
        else:
            assert one.labels is not None and one.error is None
            assert one.labels.shape == source.shape[:2] and one.labels.dtype == np.uint16 and one.labels.max() <= 6
    by_name = {one.image: one.labels for one in made}
    assert (by_name["again"] == by_name["astronaut"]).all()
    assert len(np.unique(by_name["astronaut"])) > 2  # else the tests below would compare constants


def test_workers_and_neighbours_change_nothing(segmenter: Segmenter) -> None:
    images = photographs()
    together = predictions(segmenter, images, workers=1)
    for one, other in zip(together, predictions(segmenter, images, workers=4), strict=True):
        assert (one.labels == other.labels).all()
    for one in together:
        (alone,) = predictions(segmenter, {one.image: images[one.image]})
        assert (one.labels == alone.labels).all()


def test_prediction_is_the_network_on_the_resized_image(segmenter: Segmenter) -> None:
    pixels = np.ascontiguousarray(data.astronaut()[:129, :193])  # already of an aligned size
    (made,) = predictions(segmenter, {"a": pixels})
    with torch.inference_mode():
        expected = segmenter(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].argmax(0).numpy()
    assert (made.labels == expected).mean() > 0.999


def test_mirrored_image_gives_the_mirrored_prediction(segmenter: Segmenter) -> None:
    images = photographs()
    mirrored = {name: np.ascontiguousarray(pixels[:, ::-1]) for name, pixels in images.items()}
    plain, flipped = predictions(segmenter, images), predictions(segmenter, images, flip=True)
    of_mirrored = predictions(segmenter, mirrored, flip=True)
    for one, other in zip(flipped, of_mirrored, strict=True):
        assert one.labels is not None and other.labels is not None
        # All but pixels where two labels tie up to rounding.
        assert (one.labels == other.labels[:, ::-1]).mean() > 0.9995
    assert any((one.labels != other.labels).mean() > 0.01 for one, other in zip(plain, flipped, strict=True))
