"""What --truth may say, and lists of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.read import make_fitting_source, read_truth
from fastcomus.evaluation.truth.source import TruthSource, parse_source


def save_masks(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ones((2, 3), np.uint8)).save(folder / name)
    return folder


def test_kinds_splits_and_lists(tmp_path: Path) -> None:
    listed = tmp_path / "some.txt"
    listed.write_text("a\n")
    odd = tmp_path / "an@sign"
    odd.mkdir()
    for text, expected in {
        f"{tmp_path}": TruthSource("masks", tmp_path),
        f"masks:{tmp_path}": TruthSource("masks", tmp_path),
        f"masks:{tmp_path}@{listed}": TruthSource("masks", tmp_path, "", listed),
        f"{odd}@{listed}": TruthSource("masks", odd, "", listed),
        f"{odd}": TruthSource("masks", odd),
        f"voc:{odd}@val": TruthSource("voc", odd, "val"),
        f"voc:{tmp_path}@train@{listed}": TruthSource("voc", tmp_path, "train", listed),
        f"coco:{tmp_path}@val2017": TruthSource("coco", tmp_path, "val2017"),
        f"coco-voc:{tmp_path}@val2017": TruthSource("coco-voc", tmp_path, "val2017"),
        f"folders:{tmp_path}@{listed}": TruthSource("folders", tmp_path, "", listed),
    }.items():
        assert parse_source(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("voc:{there}", "does not say which split; write voc:.*@val"),
        ("coco:{there}", "does not say which split; write coco:.*@val2017"),
        ("voc:{there}/absent@val", "absent does not exist"),
        ("cocoo:{there}@val2017", "no kind of truth 'cocoo'; did you mean coco"),
        ("masks:{there}@no-list", "no list file no-list"),
        ("masks:{there}@a@b", "too many parts"),
        ("voc:{there}@a@b@c", "too many parts"),
    ],
)
def test_sources_that_cannot_be_used(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        parse_source(text.format(there=tmp_path))


def test_a_list_chooses_among_masks(tmp_path: Path) -> None:
    masks = save_masks(tmp_path / "masks", "a.png", "b.jpg.png", "sub/c.png", "d.png", "outside.png")
    listed = tmp_path / "list.txt"
    listed.write_text("\ufeffsub/c\n\nb.jpg\na.jpg\r\na.jpg\noutside\n")
    truth = read_truth(f"{masks}@{listed}", None, ["a.jpg", "b.jpg", "sub/c.webp", "d.jpg"])
    assert truth.files == {  # an image that the run lacks is kept, so that it is counted as missing
        "sub/c.webp": masks / "sub/c.png",
        "b.jpg": masks / "b.jpg.png",
        "a.jpg": masks / "a.png",
        "outside": masks / "outside.png",
    }


def test_a_list_that_may_mean_either_of_two_images(tmp_path: Path) -> None:
    masks = save_masks(tmp_path / "masks", "a.jpg.png", "a.png.png")
    listed = tmp_path / "list.txt"
    listed.write_text("a\n")
    with pytest.raises(InputError, match=r"The list names a, which may be a\.jpg or a\.png"):
        read_truth(f"{masks}@{listed}", None, ["a.jpg", "a.png"])
    listed.write_text("a.png\n")
    assert list(read_truth(f"{masks}@{listed}", None, ["a.jpg", "a.png"]).files) == ["a.png"]


def test_a_list_of_absent_masks_names_all_of_them(tmp_path: Path) -> None:
    masks = save_masks(tmp_path / "masks", "a.png")
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(["a", *(f"lost-{i}" for i in range(40))]))
    with pytest.raises(InputError) as raised:
        read_truth(f"masks:{masks}@{listed}", None, ["a.jpg", "lost-3.jpg"])
    assert all(f" lost-{i}" in str(raised.value) for i in range(40)) and "\n" not in str(raised.value)
    assert "names 40 images without a mask" in str(raised.value)
    listed.write_text("a")
    with pytest.raises(InputError, match=r"None of the images that .*list.txt names is in this run"):
        read_truth(f"masks:{masks}@{listed}", None, ["z.jpg"])
    for content in (b"\n \n", b"\xff\n"):
        listed.write_bytes(content)
        with pytest.raises(InputError, match=r"is empty|cannot be read"):
            read_truth(f"masks:{masks}@{listed}", None, ["a.jpg"])


def test_a_matching_may_be_fitted_on_another_list_or_split(tmp_path: Path) -> None:
    listed = tmp_path / "train.txt"
    listed.write_text("a\n")
    masks = parse_source(f"masks:{tmp_path}")
    assert make_fitting_source(masks, str(listed)) == TruthSource("masks", tmp_path, "", listed)
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text("{}")
    for kind, split, other in (("voc", "val", "train"), ("coco", "val2017", "train2017")):
        source = TruthSource(kind, tmp_path, split, listed)
        assert make_fitting_source(source, other) == TruthSource(kind, tmp_path, other)
        assert make_fitting_source(source, str(listed)) == source
    with pytest.raises(InputError, match=r"--fit-on nothing is neither a split of .* nor a list"):
        make_fitting_source(masks, "nothing")
