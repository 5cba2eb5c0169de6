"""COCO's instances, on a small JSON in its own format: polygons, run lengths packed and plain, crowds."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from fastcomus.errors import InputError
from fastcomus.evaluation.truth.coco_masks import Annotation, check_segmentation, draw_masks
from fastcomus.evaluation.truth.read import read_truth
from fastcomus.evaluation.truth.voc import CLASSES

# Ids with gaps, as in COCO, and in no order. Then the 20 of VOC under COCO's names.
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 25, "name": "giraffe"}]
IN_COCO = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv",
)  # fmt: skip
HEIGHT, WIDTH = 40, 60


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def polygon(x0: int, y0: int, x1: int, y1: int) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def packed(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def plain(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths as COCO's JSON has them for crowds: down the columns, from a run of zeros."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, len(flat)]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts if flat[0] == 0 else [0, *counts]}


def annotation(number: int, image: int, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}


def save(
    root: Path,
    annotations: list[dict[str, Any]],
    categories: list[dict[str, Any]] | None = None,
    images: list[dict[str, Any]] | None = None,
) -> Path:
    file = root / "annotations/instances_val2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    images = images or [{"id": i, "file_name": f"{i:012d}.jpg", "license": 3} for i in (139, 285, 632)]
    images = [{"height": HEIGHT, "width": WIDTH, **one} for one in images]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories or CATEGORIES}
    file.write_text(json.dumps(content))
    return file


NAMES = [f"{i:012d}.jpg" for i in (139, 285, 632)]


def test_instances_are_merged_by_category_small_over_large_and_over_crowds(tmp_path: Path) -> None:
    annotations = [
        annotation(1, 139, 90, packed(rectangle(12, 12, 16, 16))),  # small, on the giraffe
        annotation(2, 139, 25, polygon(10, 10, 30, 30)),
        annotation(3, 139, 1, plain(rectangle(25, 15, 40, 20)), crowd=1),  # smaller than the giraffe, yet below it
        annotation(4, 139, 25, polygon(40, 25, 50, 35)),
        annotation(5, 285, 1, polygon(5, 5, 20, 20) + polygon(30, 5, 40, 20)),  # one object in two parts
    ]
    save(tmp_path, annotations)
    truth = read_truth(f"coco:{tmp_path}@val2017", None, NAMES)
    assert truth.classes == ("background", "person", "giraffe", "toothbrush")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[15:20, 25:40] = 1
    expected[10:30, 10:30] = 2
    expected[25:35, 40:50] = 2
    expected[12:16, 12:16] = 3
    np.testing.assert_array_equal(truth.read(NAMES[0]), expected)
    expected[:] = 0
    expected[5:20, 5:20] = expected[5:20, 30:40] = 1
    np.testing.assert_array_equal(truth.read(NAMES[1]), expected)
    assert not truth.read(NAMES[2]).any() and truth.read(NAMES[2]).shape == (HEIGHT, WIDTH)  # no annotation


def test_masks_are_those_of_pycocotools(tmp_path: Path) -> None:
    """Slanted polygons that do not overlap, against COCO.annToMask."""
    rng = np.random.default_rng(0)
    annotations = [
        annotation(i, 139, (1, 25, 90)[i % 3], [np.add(rng.uniform(0, 12, (5, 2)), (12 * i, 8)).ravel().tolist()])
        for i in range(4)
    ]
    file = save(tmp_path, annotations)
    reference = COCO(str(file))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    for one in reference.loadAnns(reference.getAnnIds(imgIds=139)):
        expected[reference.annToMask(one) > 0] = {1: 1, 25: 2, 90: 3}[one["category_id"]]
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(read_truth(f"coco:{tmp_path}@val2017", None, NAMES).read(NAMES[0]), expected)


def test_the_classes_of_voc_have_its_labels_and_all_else_is_background(tmp_path: Path) -> None:
    categories = [{"id": 10 + i, "name": name} for i, name in enumerate(("giraffe", *IN_COCO))]
    couch, giraffe = 10 + 1 + IN_COCO.index("couch"), 10
    annotations = [
        annotation(1, 139, couch, polygon(0, 0, 30, 30)),
        annotation(2, 139, giraffe, polygon(10, 10, 50, 20)),
    ]
    save(tmp_path, annotations, categories)
    truth = read_truth(f"coco-voc:{tmp_path}@val2017", None, NAMES)
    assert truth.classes == CLASSES
    np.testing.assert_array_equal(truth.read(NAMES[0]), rectangle(0, 0, 30, 30) * CLASSES.index("sofa"))
    save(tmp_path, annotations[:0], categories[2:])
    with pytest.raises(InputError, match="lacks these classes of VOC: aeroplane"):
        read_truth(f"coco-voc:{tmp_path}@val2017", None, NAMES)


def test_every_class_of_voc_is_found_in_coco(tmp_path: Path) -> None:
    categories = [{"id": i, "name": name} for i, name in enumerate(IN_COCO, start=1)]
    save(tmp_path, [annotation(i, 139, i, polygon(2 * i, 0, 2 * i + 2, 9)) for i in range(1, 21)], categories)
    row = read_truth(f"coco-voc:{tmp_path}@val2017", None, NAMES).read(NAMES[0])[4]
    assert row[2:42].tolist() == np.repeat(np.arange(1, 21), 2).tolist()


def test_a_list_narrows_a_split_and_names_all_that_is_absent(tmp_path: Path) -> None:
    save(tmp_path, [annotation(1, 139, 1, polygon(0, 0, 5, 5))])
    listed = tmp_path / "list.txt"
    listed.write_text("000000000285\n000000000139.jpg\n")
    assert list(read_truth(f"coco:{tmp_path}@val2017@{listed}", None, NAMES).files) == [NAMES[1], NAMES[0]]
    listed.write_text("000000000285\n7\n8.jpg\n")
    with pytest.raises(InputError, match=r"names 2 images without an entry in .*val2017\.json: 7, 8\.jpg;"):
        read_truth(f"coco:{tmp_path}@val2017@{listed}", None, NAMES)


def test_a_json_without_masks_is_told(tmp_path: Path) -> None:
    boxes = annotation(7, 139, 1, None)
    del boxes["segmentation"]
    for bare in (boxes, annotation(7, 139, 1, []), annotation(7, 139, 1, None)):
        save(tmp_path, [annotation(1, 139, 1, polygon(0, 0, 5, 5)), bare])
        with pytest.raises(InputError, match=r"1 of the 2 annotations .* no segmentation: annotation 7 of 0+139\.jpg"):
            read_truth(f"coco:{tmp_path}@val2017", None, NAMES)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "categories": []}', "has no list 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "image 0 \\(id 1\\) lacks file_name, height"),
    ],
)
def test_other_jsons(tmp_path: Path, content: str, told: str) -> None:
    save(tmp_path, []).write_text(content)
    with pytest.raises(InputError, match=told):
        read_truth(f"coco:{tmp_path}@val2017", None, NAMES)


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ({"size": [10, 10], "counts": [0, 100]}, "has run lengths for 10 x 10 px where its image is 60 x 40"),
        ({"size": [HEIGHT, WIDTH]}, "no whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": [0, 100]}, "has run lengths for 100 pixels where 60 x 40 are 2400"),
        ({"size": [HEIGHT, WIDTH], "counts": [0, 9000]}, "for 9000 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [-100, 2500]}, "no whole numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": packed(rectangle(5, 5, 20, 30))["counts"][:-4]}, "run lengths for"),
        ({"size": [HEIGHT, WIDTH], "counts": "P"}, "cut off"),
        ({"size": [HEIGHT, WIDTH], "counts": "\u00e9"}, "character"),
        ({"size": 3}, "neither polygons nor run lengths"),
        ([[1.0, 2.0]], "no polygon of three corners"),
        ([[1, 1, 9, 9]], "no polygon of three corners"),  # pycocotools would take it for a box
        ([[1, 1, 9, 9, 5]], "5 numbers"),
        ([["a", "b", "c", "d", "e", "f"]], "no list of numbers"),
        ([1, 1, 9, 1, 9, 9], "no list of numbers"),
        ([[1, 1, 9, 1, math.nan, 9]], "far outside"),
        ([[1, 1, 10**400, 1, 9, 9]], "far outside"),
    ],
)
def test_an_annotation_that_cannot_be_drawn_is_named(tmp_path: Path, segmentation: Any, told: str) -> None:
    save(tmp_path, [annotation(4, 139, 1, polygon(0, 0, 5, 5)), annotation(5, 285, 1, segmentation)])
    with pytest.raises(InputError, match=rf"^Annotation 5 of 0+285\.jpg in .*{told}"):
        read_truth(f"coco:{tmp_path}@val2017", None, NAMES)
    assert read_truth(f"coco:{tmp_path}@val2017", None, NAMES[:1]).read(NAMES[0]).sum() == 25  # not of this run


def test_parts_that_enclose_nothing_are_left_out(tmp_path: Path) -> None:
    save(tmp_path, [annotation(1, 139, 1, [[1, 1, 50, 30], *polygon(5, 5, 9, 9), [2.5, 3]])])
    np.testing.assert_array_equal(
        read_truth(f"coco:{tmp_path}@val2017", None, NAMES).read(NAMES[0]), rectangle(5, 5, 9, 9)
    )


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_run_lengths_of_any_mask_are_taken(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random((HEIGHT, WIDTH // 20)) < rng.random(), 20, axis=1).astype(np.uint8)
    mask[rng.random(mask.shape) < rng.choice([0, 0.01, 0.5])] ^= 1
    for segmentation in (packed(mask), plain(mask)):
        checked = check_segmentation(segmentation, (HEIGHT, WIDTH))
        np.testing.assert_array_equal(draw_masks([Annotation(1, False, checked)], (HEIGHT, WIDTH)), mask)


def test_annotations_go_to_the_image_of_their_folder(tmp_path: Path) -> None:
    """Four images of equal names in two folders, an object each; then Windows paths, and folders further up."""
    for before in ("", "data/images/", "C:\\data\\"):
        images = [
            {"id": i, "file_name": before + f"{folder}/{i % 2}.jpg".replace("/", "\\" if ":" in before else "/")}
            for i, folder in enumerate("aabb")
        ]
        annotations = [annotation(9 - i, i, 1, polygon(i, 0, i + 1, 9)) for i in range(4)]
        save(tmp_path, annotations, images=images)
        further = f"{before}b/1.jpg" if before.endswith("/") else "x/b/1.jpg" if not before else "data/b/1.jpg"
        for names in (["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"], ["b/0.jpg", "b/1.webp"], [further]):
            truth = read_truth(f"coco:{tmp_path}@val2017", None, names)
            for name in names:
                i = 2 * ("b/" in name) + int("1." in name)
                np.testing.assert_array_equal(truth.read(name), rectangle(i, 0, i + 1, 9))
        with pytest.raises(InputError, match=r"The image 0\.jpg of this run may be .*a/0\.jpg or .*b/0\.jpg"):
            read_truth(f"coco:{tmp_path}@val2017", None, ["0.jpg"])
        listed = tmp_path / "list.txt"
        listed.write_text(before + "a/0.jpg")
        for source, name in ((f"coco:{tmp_path}@val2017", "c/0.jpg"), (f"coco:{tmp_path}@val2017@{listed}", "b/0.jpg")):
            with pytest.raises(InputError, match="None of the images"):
                read_truth(source, None, [name])


def test_a_file_name_alone_counts_where_it_is_unique(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fastcomus")
    images = [{"id": i, "file_name": f"{folder}.jpg"} for i, folder in enumerate(("a/0", "a/1", "b/1", "café"))]
    save(tmp_path, [annotation(i, i, 1, polygon(i, 0, i + 1, 9)) for i in range(4)], images=images)
    truth = read_truth(f"coco:{tmp_path}@val2017", None, ["c/0.jpg", "c/1.jpg"])
    np.testing.assert_array_equal(truth.read("c/0.jpg"), rectangle(0, 0, 1, 9))
    assert "c/1.jpg" not in truth.files and "c/0.jpg is a/0.jpg" in caplog.text
    # Where folders tell something, a name alone tells nothing.
    assert "c/0.jpg" not in read_truth(f"coco:{tmp_path}@val2017", None, ["c/0.jpg", "a/1.jpg"]).files
    decomposed = unicodedata.normalize("NFD", "café.jpg")
    np.testing.assert_array_equal(
        read_truth(f"coco:{tmp_path}@val2017", None, [decomposed]).read(decomposed), rectangle(3, 0, 4, 9)
    )
    with pytest.raises(InputError, match=r"x/café\.jpg and y/café\.jpg of this run may both be café\.jpg"):
        read_truth(f"coco:{tmp_path}@val2017", None, ["x/café.jpg", "y/café.jpg"])


def test_ids_may_be_texts_and_repeated_only_by_annotations(tmp_path: Path) -> None:
    images = [{"id": "1", "file_name": "1.jpg"}, {"id": "two", "file_name": "2.jpg"}]
    categories = [{"id": "10", "name": "b"}, {"id": 9, "name": "a"}, {"id": "x", "name": "b"}]
    annotations = [
        annotation(1, 1, 10, polygon(0, 0, 5, 5)),
        annotation(1, "1", "9", polygon(10, 0, 15, 5)),  # type: ignore[arg-type]
        annotation(1, "two", "x", polygon(20, 0, 25, 5)),  # type: ignore[arg-type]
    ]
    save(tmp_path, annotations, categories, images)
    truth = read_truth(f"coco:{tmp_path}@val2017", None, ["1.jpg", "2.jpg"])
    assert truth.classes == ("background", "a", "b")  # in the order of the ids; of equal names one
    np.testing.assert_array_equal(truth.read("1.jpg"), 2 * rectangle(0, 0, 5, 5) + rectangle(10, 0, 15, 5))
    np.testing.assert_array_equal(truth.read("2.jpg"), 2 * rectangle(20, 0, 25, 5))


def test_ids_that_are_doubled_or_unknown_are_told(tmp_path: Path) -> None:
    one = annotation(7, 139, 1, polygon(0, 0, 5, 5))
    for images, categories, changed, told in (
        ([(1, "a"), ("1", "b")], [1], {"image_id": 1}, r"has the image id 1 twice, for a\.jpg and b\.jpg"),
        ([(1, "a"), (2, "a")], [1], {"image_id": 1}, r"Images 1 and 2 of .* are both a\.jpg"),
        ([(139, "a")], [1, 1], {}, "has the category id 1 twice, for n and n"),
        ([(139, "a")], [1], {"image_id": 99}, "1 of the 1 annotations .*: annotation 7, the first, to image 99"),
        ([(139, "a")], [1], {"image_id": None}, "has the image_id None; ids are"),
        ([(139, "a")], [1], {"category_id": 5}, r"Annotation 7 of a\.jpg .* has the category 5, which"),
        ([(139, "a")], [[]], {}, r"has the category id \[\]; ids are"),
    ):
        save(
            tmp_path,
            [one | changed],
            [{"id": number, "name": "n"} for number in categories],
            [{"id": number, "file_name": f"{name}.jpg"} for number, name in images],
        )
        with pytest.raises(InputError, match=told):
            read_truth(f"coco:{tmp_path}@val2017", None, ["a.jpg"])


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no COCO"):
        read_truth(f"coco:{tmp_path}@val2017", None, NAMES)
    save(tmp_path, [annotation(1, 139, 1, polygon(0, 0, 5, 5))])
    with pytest.raises(InputError, match="no split 'val2014'; it has val2017"):
        read_truth(f"coco:{tmp_path}@val2014", None, NAMES)
    with pytest.raises(InputError, match=r"has 000000000139\.jpg for instance, the run a\.jpg"):
        read_truth(f"coco:{tmp_path}@val2017", None, ["a.jpg"])
    names = tmp_path / "classes.txt"
    names.write_text("background\nperson\n")
    with pytest.raises(InputError, match=r"has 2 names and .*val2017.json 4 classes"):
        read_truth(f"coco:{tmp_path}@val2017", names, NAMES)
