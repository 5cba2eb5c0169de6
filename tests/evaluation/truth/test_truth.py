import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import MSRC14

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.read import read_truth
from fastcomus.evaluation.truth.truth import read_mask

needs_msrc14 = pytest.mark.skipif(not MSRC14.is_dir(), reason="the data set msrc14 is not here")


def save_mask(path: Path, labels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 3), np.uint8) if labels is None else labels).save(path)
    return path


def test_full_file_name_goes_before_the_stem(tmp_path: Path) -> None:
    for mask in ("sub/a.jpg.png", "sub/a.png", "b.png", "no image.png"):
        save_mask(tmp_path / mask)
    truth = read_truth(tmp_path, None, ["sub/a.jpg", "b.webp", "no mask.jpg", "sub/b.jpg"])
    assert truth.files == {"sub/a.jpg": tmp_path / "sub/a.jpg.png", "b.webp": tmp_path / "b.png"}
    assert truth.classes == ()


def test_an_image_whose_name_leaves_no_room_for_an_ending_has_its_mask_by_the_stem(tmp_path: Path) -> None:
    name = f"{'a' * 250}.jpg"
    save_mask(tmp_path / f"{'a' * 250}.png")
    assert [mask.name for mask in read_truth(tmp_path, None, [name, "b.jpg"]).files.values()] == [f"{'a' * 250}.png"]


def test_equal_stems_with_a_mask_each(tmp_path: Path) -> None:
    for mask in ("a.jpg.png", "a.png.png", "b.jpg.png", "b.png"):
        save_mask(tmp_path / mask)
    truth = read_truth(tmp_path, None, ["a.jpg", "a.png", "b.jpg", "b.png"])
    assert {name: path.name for name, path in truth.files.items()} == {
        "a.jpg": "a.jpg.png", "a.png": "a.png.png", "b.jpg": "b.jpg.png", "b.png": "b.png",
    }  # fmt: skip


def test_a_mask_named_in_full_is_not_taken_by_a_stem(tmp_path: Path) -> None:
    save_mask(tmp_path / "a.jpg.png")
    truth = read_truth(tmp_path, None, ["a.jpg.webp", "a.jpg"])
    assert list(truth.files) == ["a.jpg"]


def test_equal_stems_with_one_mask_are_ambiguous(tmp_path: Path) -> None:
    save_mask(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png .*a\.jpg or to a\.png.*a\.png\.png"):
        read_truth(tmp_path, None, ["a.jpg", "a.png"])


def test_non_ascii_and_dotted_names(tmp_path: Path) -> None:
    for mask in ("Größe/日本.png", "v1.2.jpg.png"):
        save_mask(tmp_path / mask)
    truth = read_truth(tmp_path, None, ["Größe/日本.jpg", "v1.2.jpg", "v1.jpg"])
    assert set(truth.files) == {"Größe/日本.jpg", "v1.2.jpg"}


def test_no_match_names_an_example_of_both_sides(tmp_path: Path) -> None:
    save_mask(tmp_path / "train/x.png")
    with pytest.raises(InputError, match=r"train/x\.png .*photos/y\.jpg needs photos/y\.jpg\.png or "):
        read_truth(tmp_path, None, ["photos/y.jpg"])
    with pytest.raises(InputError, match="no images"):
        read_truth(tmp_path, None, [])


def test_a_folder_without_masks_or_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no PNG masks"):
        read_truth(tmp_path, None, ["a.jpg"])
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match=r"does not exist; did you mean .*/masks\?"):
        read_truth(tmp_path / "maskss", None, ["a.jpg"])
    (tmp_path / "names.txt").write_text("background\n")
    save_mask(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"does not exist; did you mean .*/names\.txt\?"):
        read_truth(tmp_path, tmp_path / "name.txt", ["a.jpg"])
    with pytest.raises(InputError, match=r"no list file .*did you mean .*/names\.txt\?"):
        read_truth(f"{tmp_path}@{tmp_path}/namess.txt", None, ["a.jpg"])


def test_classes_file(tmp_path: Path) -> None:
    save_mask(tmp_path / "a.png")
    names = tmp_path / "classes.txt"
    names.write_bytes("\ufeffbackground\r\ncoffee cup\r\nKatze \r\n\r\n".encode())
    assert read_truth(tmp_path, names, ["a.jpg"]).classes == ("background", "coffee cup", "Katze")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"background\n\ncat\n", "Line 2 .* is blank"),
        (b"background\ncat\ndog\ncat\n", "Lines 2 and 4 .* are both 'cat'"),
        (b"background\n\xff\n", "cannot be read as UTF-8"),
        ("\n".join(f"name {i}" for i in range(256)).encode(), "has 256 names where 255 at most"),
    ],
)
def test_unusable_classes_file(tmp_path: Path, content: bytes, message: str) -> None:
    save_mask(tmp_path / "a.png")
    names = tmp_path / "classes.txt"
    names.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_truth(tmp_path, names, ["a.jpg"])


def test_absent_classes_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; give"):
        read_truth(tmp_path, tmp_path / "classes.txt", ["a.jpg"])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_indices_are_kept_at_every_depth(tmp_path: Path, bits: int) -> None:
    labels = (np.arange(35).reshape(5, 7) * 7 % 2**bits).astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(list(range(255, -1, -1)) * 3)  # colours that differ from their indices
    assert image.mode == "P"
    image.save(tmp_path / "a.png", bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), labels)


def test_grey_masks_of_one_eight_and_sixteen_bits(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    wide = labels.astype(np.uint16) * np.uint16(300)
    for values in (labels, labels.astype(bool), labels * np.uint8(255), wide):
        save_mask(tmp_path / "a.png", values)
        read = read_mask(tmp_path / "a.png")
        np.testing.assert_array_equal(read, values)
        assert np.issubdtype(read.dtype, np.integer)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_two_and_four_bits(tmp_path: Path, bits: int) -> None:
    """Pillow cannot write these, so the file is put together by hand."""
    labels = (np.arange(16).reshape(2, 8) % 2**bits).astype(np.uint8)
    per_byte = 8 // bits
    shifts = np.arange(per_byte - 1, -1, -1) * bits
    packed = (labels.reshape(2, -1, per_byte).astype(int) << shifts).sum(axis=2).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(grey_png(8, 2, bits, packed))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), labels)


def grey_png(width: int, height: int, bits: int, rows: np.ndarray) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_mask(path, np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"a\.png has colours .*RGB"):
        read_mask(path)
    noise = np.random.default_rng(0).integers(0, 20, (200, 200), dtype=np.uint8)
    content = save_mask(path, noise).read_bytes()
    for broken in (b"", b"no picture", content[: len(content) // 2]):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"a\.png cannot be read as a PNG"):
            read_mask(path)
    Image.fromarray(noise).save(path, format="JPEG")  # lossy: its labels would be wrong
    with pytest.raises(InputError, match="cannot be read as a PNG"):
        read_mask(path)
    with pytest.raises(InputError, match="cannot be read as a PNG"):
        read_mask(tmp_path / "absent.png")


@needs_msrc14
def test_msrc14_masks_are_found_by_stem() -> None:
    names = [f"{line}.jpg" for line in (MSRC14 / "objects.txt").read_text().split()]
    truth = read_truth(MSRC14 / "SegmentationClass", MSRC14 / "classes.txt", names)
    assert len(truth.files) == len(names) == 494
    assert len(truth.classes) == 15 and truth.classes[0] == "background"
    seen = set(np.unique(read_mask(truth.files[names[0]])).tolist())
    assert seen <= {*range(15), 255} and len(seen) > 1
