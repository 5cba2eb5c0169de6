"""COCO's instances, on a small JSON in its own format: polygons, run lengths packed and plain, crowds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from fastcomus.errors import InputError
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


def save(root: Path, annotations: list[dict[str, Any]], categories: list[dict[str, Any]] | None = None) -> Path:
    file = root / "annotations/instances_val2017.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH, "license": 3} for i in (139, 285, 632)
    ]
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
        with pytest.raises(InputError, match=r"has no masks: 1 of its 2 annotations lack a segmentation .*id 7"):
            read_truth(f"coco:{tmp_path}@val2017", None, NAMES)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "categories": []}', "has no list 'annotations'"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "is no COCO JSON of instances: KeyError"),
    ],
)
def test_other_jsons(tmp_path: Path, content: str, told: str) -> None:
    save(tmp_path, []).write_text(content)
    with pytest.raises(InputError, match=told):
        read_truth(f"coco:{tmp_path}@val2017", None, NAMES)


def test_segmentations_that_cannot_be_drawn(tmp_path: Path) -> None:
    small = {"size": [10, 10], "counts": [0, 100]}
    for segmentation in (small, [[1.0, 2.0]], {"size": [HEIGHT, WIDTH]}, [["a", "b", "c", "d", "e", "f"]]):
        save(tmp_path, [annotation(1, 139, 1, segmentation)])
        with pytest.raises(InputError, match=r"val2017\.json cannot be drawn at 60 x 40 px"):
            read_truth(f"coco:{tmp_path}@val2017", None, NAMES).read(NAMES[0])


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
