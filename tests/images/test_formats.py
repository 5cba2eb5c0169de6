"""Every format that Pillow reads is found and read with its pixels; what is left out is counted and said."""

from __future__ import annotations

import io
import logging
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from fastcomus.errors import InputError
from fastcomus.images import formats
from fastcomus.images.folder import find_images
from fastcomus.images.formats import describe_others, explain_no_decoder, has_image_ending
from fastcomus.images.listing import find_listed_images
from fastcomus.images.reading import read_image

rows, columns = np.mgrid[:24, :32]
PHOTOGRAPH = Image.fromarray(np.stack([rows * 9, columns * 7, (rows * columns) % 256], axis=2).astype(np.uint8))
KNOWN = {ending.removeprefix("."): kind for ending, kind in Image.registered_extensions().items()}
WRITABLE = sorted(ending for ending, kind in KNOWN.items() if kind in Image.SAVE and has_image_ending(f"a.{ending}"))


@pytest.mark.parametrize("ending", WRITABLE)
def test_what_pillow_writes_is_found_and_read_with_its_pixels(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{ending.upper()}"
    try:
        PHOTOGRAPH.save(file, format=KNOWN[ending])
    except (OSError, ValueError, KeyError):  # a format of other modes, or without an encoder
        PHOTOGRAPH.convert("1" if KNOWN[ending] in ("MSP", "XBM") else "P").save(file, format=KNOWN[ending])
    assert find_images(tmp_path).names == find_listed_images(file).names == (file.name,)
    with Image.open(file) as image:
        expected = np.asarray(image.convert("F" if image.mode == "F" else "RGB"))
    assert np.array_equal(read_image(file, 10**7), expected)


def test_the_endings_are_those_that_pillow_decodes_by_itself() -> None:
    for ending in ("jfif", "mpo", "avif", "jp2", "ppm", "tga", "psd", "qoi", "JPG"):
        assert has_image_ending(f"a.{ending}")
    for ending in ("eps", "ps", "pdf", "wmf", "emf", "h5", "grib", "bufr", "mpg", "palm", "txt", "mp4"):
        assert not has_image_ending(f"a.{ending}")
    assert not has_image_ending("jpg") and not has_image_ending(".jpg")


def test_a_file_is_not_taken_for_a_format_without_a_mark_of_its_own(tmp_path: Path) -> None:
    PHOTOGRAPH.save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.jpg")
    with pytest.raises(Exception, match="not an image that Pillow reads"):
        read_image(tmp_path / "a.jpg", 10**6)


OTHERS = ("film.MP4", "sub/film.mp4", "a.CR2", "b.nef", "drawing.svg", "notes", "list.txt", "Thumbs.db", ".DS_Store")


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from a camera on a machine without pillow-heif."""
    for ending in formats._HEIC:
        monkeypatch.delitem(formats._find_endings(), ending, raising=False)
    folder = tmp_path / "camera"
    (folder / "sub").mkdir(parents=True)
    for name in ("0.jpg", "c.jfif", "e.jp2"):
        PHOTOGRAPH.save(folder / name)
    for name in (*OTHERS, "phone.heic", "sub/phone.heic"):
        (folder / name).write_bytes(b"\0\1")
    return folder


def test_other_files_are_counted_in_a_line_and_pictures_among_them_listed(
    camera: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fastcomus"):
        found = find_listed_images(camera)
    assert found.names == ("0.jpg", "c.jfif", "e.jp2")
    assert found.others == {".mp4": 2, ".heic": 2, ".cr2": 1, ".nef": 1, ".svg": 1, "(no ending)": 1}
    (line,) = caplog.messages
    assert "2 .mp4" in line and "2 .heic" in line and line.endswith("(run pip install pillow-heif)")
    assert {one.image: one.reason for one in found.skipped} == dict.fromkeys(
        ("a.CR2", "b.nef", "drawing.svg", "phone.heic", "sub/phone.heic"), formats.NO_DECODER
    )
    caplog.clear()
    assert find_listed_images(found) is found and not caplog.messages


def test_what_cannot_be_read_is_said_where_it_is_all_there_is(camera: Path) -> None:
    for name in ("0.jpg", "c.jfif", "e.jp2"):
        (camera / name).unlink()
    with pytest.raises(InputError, match=r"no image.*5 left out, such as a\.CR2 .*raw file.*2 \.heic.*pillow-heif"):
        find_listed_images(camera)
    with pytest.raises(InputError, match=r"phone\.heic cannot be read: run pip install pillow-heif\."):
        find_listed_images(camera / "phone.heic")
    with pytest.raises(InputError, match=r"a\.CR2 cannot be read: a camera's raw file; convert it to TIFF or JPEG\."):
        find_listed_images(camera / "a.CR2")


def test_pictures_without_a_decoder_are_listed_in_tars_too(camera: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(camera, "camera")
    found = find_listed_images(tmp_path / "a.tar")
    assert len(found.names) == 3
    assert {one.image for one in found.skipped if one.reason == formats.NO_DECODER} >= {
        "a.tar/camera/a.CR2",
        "a.tar/camera/sub/phone.heic",
    }


def test_the_page_names_no_ending_that_is_not_read() -> None:
    page = (ROOT / "docs/image-sources.md").read_text(encoding="utf-8").partition("Those whose ending")[2]
    named = re.findall(r"`\.(\w+)`", page.partition("with\n`pip install")[0])
    assert len(named) > 30 and all(has_image_ending(f"a.{ending}") for ending in named)


def test_many_kinds_of_other_files_stay_one_line() -> None:
    told = describe_others({f".{number}": number for number in range(1, 21)})
    assert told.startswith("20 .20, 19 .19, ") and told.endswith("78 of 12 other endings")


def test_heic_is_read_with_the_extra(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    PHOTOGRAPH.save(tmp_path / "a.heic", format="HEIF", quality=-1)
    assert find_images(tmp_path).names == ("a.heic",) and not explain_no_decoder("a.heic")
    with Image.open(tmp_path / "a.heic") as image:
        assert np.array_equal(read_image(tmp_path / "a.heic", 10**6), np.asarray(image.convert("RGB")))


def test_a_phones_picture_of_two_parts_is_its_first(tmp_path: Path) -> None:
    PHOTOGRAPH.save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[PHOTOGRAPH.rotate(180)])
    plain = io.BytesIO()
    PHOTOGRAPH.save(plain, "JPEG")
    assert np.array_equal(read_image(tmp_path / "a.mpo", 10**6), np.asarray(Image.open(plain)))
