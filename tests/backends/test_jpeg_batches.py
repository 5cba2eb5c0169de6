"""Files sent to a device's decoder or to the CPU's reader; torchvision's decoder for the CPU stands for nvJPEG."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torchvision.io import ImageReadMode, decode_jpeg

from fastcomus.backends.jpeg_batches import REFUSED, JpegBatches, JpegFile, orient_planes
from fastcomus.images.found import UnreadableImage
from fastcomus.images.modes import _orient_pixels
from fastcomus.images.reading import read_image
from fastcomus.images.roots import StoredImage

HOST = torch.device("cpu")
MOST = 10**6
PICTURE = Image.fromarray(data.chelsea()[:200])


def jpeg(image: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, **options)
    return buffer.getvalue()


def files() -> dict[str, tuple[bytes, str]]:
    """Content by name, and who decodes it: "cpu", the device, or the reason why not."""
    png = io.BytesIO()
    PICTURE.save(png, "PNG")
    plain = jpeg(PICTURE)
    return {
        "plain": (plain, "cpu"),
        "all-colours": (jpeg(PICTURE, subsampling=0, quality=95), "cpu"),
        "progressive": (jpeg(PICTURE, progressive=True), "cpu"),
        **{f"turned-{turn}": (jpeg(PICTURE, turn), "cpu") for turn in range(2, 9)},
        "profile": (jpeg(PICTURE, icc_profile=b"a profile that nobody looks at"), "cpu"),
        "grey": (jpeg(PICTURE.convert("L")), "grey"),
        "cmyk": (jpeg(PICTURE.convert("CMYK")), "CMYK"),
        "rgb": (jpeg(PICTURE, keep_rgb=True), "RGB without conversion"),
        "png": (png.getvalue(), "no JPEG"),
    }


def written(folder: Path, contents: dict[str, bytes]) -> dict[str, str]:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in contents}


def test_every_file_gives_the_pixels_of_the_cpus_reader(tmp_path: Path) -> None:
    expected = files()
    paths = written(tmp_path, {name: content for name, (content, _) in expected.items()})
    decoder = JpegBatches(HOST)
    read = {name: decoder.read(path, MOST) for name, path in paths.items()}
    for name, file in read.items():
        assert isinstance(file, JpegFile) == (expected[name][1] == "cpu"), name
    images = dict(zip(paths, decoder.decode(list(read.values())), strict=True))
    for name, image in images.items():
        assert isinstance(image, torch.Tensor) and image.dtype == torch.uint8
        assert (image.numpy() == read_image(Path(paths[name]), MOST)).all(), name
    counts: dict[str, int] = {}
    for _, who in expected.values():
        counts[who] = counts.get(who, 0) + 1
    assert decoder.take_counts() == counts and decoder.take_counts() == {}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_planes_are_turned_as_the_reader_turns_pixels(orientation: int) -> None:
    pixels = data.chelsea()[:30, :41]
    turned = orient_planes(torch.from_numpy(pixels).permute(2, 0, 1), orientation)
    assert turned.is_contiguous() and (turned.permute(1, 2, 0).numpy() == _orient_pixels(pixels, orientation)).all()


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    whole = jpeg(PICTURE)
    contents = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"this is no image", "header": whole[:30]}
    paths = {**written(tmp_path, contents), "missing": str(tmp_path / "missing"), "folder": str(tmp_path)}
    decoder = JpegBatches(HOST)
    reasons = {}
    for name, path in paths.items():
        with pytest.raises(UnreadableImage) as raised:
            decoder.read(path, MOST)
        reasons[name] = raised.value.reason
    expected = {"cut": "truncated", "empty": "empty file", "text": "unreadable", "header": "truncated"}
    assert reasons == {**expected, "missing": "lost while reading", "folder": "not a regular file"}
    (path,) = written(tmp_path, {"large": whole}).values()
    with pytest.raises(UnreadableImage, match="too large"):
        decoder.read(path, 200 * 451 - 1)
    assert isinstance(decoder.read(path, 200 * 451), JpegFile) and decoder.take_counts() == {}


def refusing(refused: set[bytes], batches: list[int]) -> Any:
    """nvJPEG as torchvision calls it: one file that it cannot decode fails the whole batch."""

    def decode(batch: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        batches.append(len(batch))
        if any(one.numpy().tobytes() in refused for one in batch):
            raise RuntimeError("Error while decoding JPEG images: Failed to decode jpeg stream: 2")
        return decode_jpeg(batch, mode=ImageReadMode.RGB, device=device)

    return decode


def test_a_file_that_is_refused_goes_to_the_cpu_alone(tmp_path: Path) -> None:
    strange = jpeg(PICTURE, progressive=True)
    paths = written(tmp_path, {"a": jpeg(PICTURE), "b": strange, "c": jpeg(PICTURE, 6)})
    batches: list[int] = []
    decoder = JpegBatches(HOST, refusing({strange}, batches))
    images = decoder.decode([decoder.read(path, MOST) for path in paths.values()])
    assert batches == [3, 1, 1, 1] and decoder.take_counts() == {"cpu": 2, REFUSED: 1}
    for image, path in zip(images, paths.values(), strict=True):
        assert isinstance(image, torch.Tensor) and (image.numpy() == read_image(Path(path), MOST)).all()


class Fetched(StoredImage):
    """An image far away; counts how often it is fetched."""

    def __init__(self, data: bytes) -> None:
        self.data, self.times = data, 0

    def read_encoded(self, most_bytes: int) -> bytes:
        self.times += 1
        return self.data

    def __str__(self) -> str:
        return "far/away"


def test_images_that_are_no_files_are_fetched_once(tmp_path: Path) -> None:
    strange, png = jpeg(PICTURE, progressive=True), files()["png"][0]
    places = [Fetched(jpeg(PICTURE)), Fetched(strange), Fetched(png)]
    decoder = JpegBatches(HOST, refusing({strange}, []))
    images = decoder.decode([decoder.read(place, MOST) for place in places])
    for place, image in zip(places, images, strict=True):
        assert isinstance(image, torch.Tensor) and place.times == 1
        assert (image.numpy() == read_image(place, MOST)).all()
    assert decoder.take_counts() == {"cpu": 1, REFUSED: 1, "no JPEG": 1}


def test_a_file_that_is_gone_when_it_was_refused_is_told(tmp_path: Path) -> None:
    (path,) = written(tmp_path, {"a": jpeg(PICTURE)}).values()
    decoder = JpegBatches(HOST, refusing({jpeg(PICTURE)}, []))
    file = decoder.read(path, MOST)
    Path(path).unlink()
    (error,) = decoder.decode([file])
    assert isinstance(error, UnreadableImage) and error.reason == "lost while reading"


def test_want_of_memory_does_not_switch_a_decoder_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path in paths:
        path.write_bytes(jpeg(PICTURE))
    left = [5]  # calls that find no memory: the batch, and each file alone

    def decode(batch: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("nvjpegDecodeBatched failed: NVJPEG_STATUS_ALLOCATOR_FAILURE")
        return decode_jpeg(batch, mode=ImageReadMode.RGB, device=device)

    decoder = JpegBatches(HOST, decode)
    for counts in ({REFUSED: 4}, {"cpu": 4}):
        images = decoder.decode([decoder.read(path, MOST) for path in paths])
        assert all(isinstance(one, torch.Tensor) for one in images) and decoder.take_counts() == counts
    assert "decodes none" not in caplog.text


def test_a_decoder_that_takes_nothing_is_asked_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = written(tmp_path, {str(i): jpeg(PICTURE, quality=50 + i) for i in range(4)})
    batches: list[int] = []
    decoder = JpegBatches(HOST, refusing({Path(path).read_bytes() for path in paths.values()}, batches))
    with caplog.at_level(logging.WARNING, "fastcomus"):
        images = decoder.decode([decoder.read(path, MOST) for path in paths.values()])
    assert all(isinstance(one, torch.Tensor) for one in images) and "decodes none of 4 files" in caplog.text
    again = decoder.read(paths["0"], MOST)
    assert isinstance(again, np.ndarray) and batches == [4, 1, 1, 1, 1] and decoder.take_counts() == {REFUSED: 5}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nvjpeg_gives_nearly_the_pixels_of_the_cpus_reader(tmp_path: Path) -> None:
    expected = files()
    paths = written(tmp_path, {name: content for name, (content, _) in expected.items()})
    decoder = JpegBatches(torch.device("cuda:0"))
    for _ in range(3):  # memory of the batch before is used again
        images = decoder.decode([decoder.read(path, MOST) for path in paths.values()])
        for image, path in zip(images, paths.values(), strict=True):
            assert isinstance(image, torch.Tensor) and image.is_cuda
            difference = np.abs(image.cpu().numpy().astype(int) - read_image(Path(path), MOST))
            assert difference.mean() < 2, path
    assert decoder.take_counts()["cuda:0"] == 3 * sum(who == "cpu" for _, who in expected.values())
