"""Readers of every export format: other libraries, or what a tool's documentation says of its files."""

from __future__ import annotations

import io
import json
import os
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import yaml
from PIL import Image
from pycocotools.coco import COCO
from test_regions import enclosed
from torchvision.datasets import VOCSegmentation

STRANGE = {0: 'a "quoted", <b>name</b>: #1', 1: "🐈‍⬛ [x]", 2: "yes"}


def read_coco(target: Path) -> dict[str, np.ndarray]:
    coco = COCO(target / "annotations/instances_default.json")
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == list(STRANGE.values())
    maps = {}
    for image in coco.loadImgs(coco.getImgIds()):
        assert (target / "images" / image["file_name"]).is_file()
        labels = np.zeros((image["height"], image["width"]), int)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
            mask = coco.annToMask(annotation)
            rows, columns = mask.nonzero()
            x, y, width, height = annotation["bbox"]
            assert mask.sum() == annotation["area"] and annotation["iscrowd"] == 0
            assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            labels += annotation["category_id"] * mask
        maps[image["file_name"]] = labels
    return maps


def read_voc(target: Path) -> dict[str, np.ndarray]:
    assert (target / "VOCdevkit/VOC2012/classes.txt").read_text().splitlines() == ["background", *STRANGE.values()]
    lines = (target / "VOCdevkit/VOC2012/labelmap.txt").read_text(encoding="utf-8").splitlines()
    fields = [line.split(":") for line in lines if line[0] != "#"]  # as CVAT and datumaro read it
    assert all(len(one) == 4 for one in fields) and len({one[0] for one in fields}) == len(STRANGE) + 1
    dataset = VOCSegmentation(str(target), "2012", "trainval")
    masks = [(Path(image).stem, dataset[index][1]) for index, image in enumerate(dataset.images)]
    assert all(mask.mode == "P" for _, mask in masks)
    for label, one in enumerate(fields):
        assert masks[0][1].getpalette()[3 * label : 3 * label + 3] == [int(part) for part in one[1].split(",")]
    return {name: np.asarray(mask).astype(int) for name, mask in masks}


def read_yolo(target: Path) -> dict[str, np.ndarray]:
    """As Ultralytics finds labels: the last /images/ becomes /labels/, the ending .txt; pixels by their centres."""
    before, after = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
    facts = yaml.safe_load((target / "data.yaml").read_text(encoding="utf-8"))
    assert facts["names"] == STRANGE and facts["train"] == "images"
    maps = {}
    for image in sorted(path for path in (target / "images").rglob("*") if path.is_file()):
        file = Path(after.join(str(image).rsplit(before, 1)).rsplit(".", 1)[0] + ".txt")
        shape = Image.open(image).size[::-1]
        labels = np.zeros(shape, int)
        for line in file.read_text().splitlines():
            label, *shares = line.split()
            points = np.array(shares, float).reshape(-1, 2)
            assert points.min() >= 0 and points.max() <= 1
            labels += (int(label) + 1) * enclosed(points * shape[::-1], shape)
        maps[image.relative_to(target / "images").as_posix()] = labels
    return maps


def read_labelme(target: Path) -> dict[str, np.ndarray]:
    labels_of = {name: label + 1 for label, name in STRANGE.items()}
    assert (target / "labels.txt").read_text(encoding="utf-8").splitlines() == list(STRANGE.values())
    maps = {}
    for file in sorted(target.rglob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        shape = (content["imageHeight"], content["imageWidth"])
        image = file.parent / content["imagePath"]
        assert image.stem == file.stem and Image.open(image).size == shape[::-1]
        labels = np.zeros(shape, int)
        for one in content["shapes"]:
            assert one["shape_type"] == "polygon"
            labels += labels_of[one["label"]] * enclosed(np.array(one["points"]), shape)
        maps[image.relative_to(target).as_posix()] = labels
    return maps


def read_label_studio(target: Path) -> dict[str, np.ndarray]:
    config = ElementTree.parse(target / "label-config.xml").getroot()
    (brush,), (image_tag,) = config.iter("BrushLabels"), config.iter("Image")
    names = [label.get("value") for label in brush]
    assert names == list(STRANGE.values()) and len({label.get("background") for label in brush}) == len(names)
    maps = {}
    for task in json.loads((target / "tasks.json").read_text(encoding="utf-8")):
        image = unquote(
            task["data"][image_tag.get("value", "").removeprefix("$")].removeprefix("/data/local-files/?d=")
        )
        assert (target / image).is_file()
        labels = np.zeros(Image.open(target / image).size[::-1], int)
        (prediction,) = task["predictions"]
        assert len({one["id"] for one in prediction["result"]}) == len(prediction["result"])
        for one in prediction["result"]:
            assert (one["from_name"], one["to_name"]) == (brush.get("name"), image_tag.get("name"))
            shape = one["original_height"], one["original_width"]
            (name,) = one["value"]["brushlabels"]
            assert one["type"] == "brushlabels" and one["value"]["format"] == "rle" and shape == labels.shape
            picture = unpack_brush(bytes(one["value"]["rle"])).reshape(*shape, 4)
            assert set(np.unique(picture)) <= {0, 255} and (picture == picture[..., :1]).all()
            labels += (names.index(name) + 1) * (picture[..., 3] > 0)
        maps[image.removeprefix("images/")] = labels
    return maps


def unpack_brush(packed: bytes) -> np.ndarray:
    """The values of @thi.ng/rle-pack, as the header of its source says how to read them."""
    bits, place = "".join(f"{byte:08b}" for byte in packed), 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, width, sizes = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        is_run, size = take(1), sizes[take(2)]
        length = take(size) + 1
        values += [take(width)] * length if is_run else [take(width) for _ in range(length)]
    assert len(values) == total and len(bits) - place < 8
    return np.array(values, np.uint8)


def read_cvat(target: Path) -> dict[str, np.ndarray]:
    """By colours, as CVAT reads masks; its labels are known before the masks come."""
    labels_of = {one["name"]: number for number, one in enumerate(json.loads((target / "labels.json").read_text()), 1)}
    images = {path.stem: path.name for path in (target / "images").iterdir()}
    with zipfile.ZipFile(target / "annotations.zip") as archive:
        lines = [line.split(":") for line in archive.read("labelmap.txt").decode().splitlines() if line[0] != "#"]
        label_of = {tuple(map(int, colour.split(","))): labels_of.get(name, 0) for name, colour, *_ in lines}
        assert [name for name, *_ in lines] == ["background", *labels_of] and len(label_of) == len(lines)
        maps = {}
        for stem in archive.read("ImageSets/Segmentation/default.txt").decode().splitlines():
            with Image.open(io.BytesIO(archive.read(f"SegmentationClass/{stem}.png"))) as picture:
                colours = np.asarray(picture.convert("RGB"))
            maps[images[stem]] = np.apply_along_axis(lambda colour: label_of[tuple(colour.tolist())], 2, colours)
    return maps


def read_fiftyone(target: Path) -> dict[str, np.ndarray]:
    assert json.loads((target / "mask_targets.json").read_text()) == {str(n + 1): one for n, one in STRANGE.items()}
    masks = {path.stem: path for path in (target / "labels").iterdir()}
    assert all(Image.open(path).mode == "L" for path in masks.values())
    return {path.name: np.asarray(Image.open(masks[path.stem])).astype(int) for path in (target / "data").iterdir()}


def read_huggingface(target: Path) -> dict[str, np.ndarray]:
    names = json.loads((target / "id2label.json").read_text(encoding="utf-8"))
    assert names == {"0": "background", **{str(label + 1): name for label, name in STRANGE.items()}}
    assert yaml.safe_load((target / "README.md").read_text().split("---")[1])["task_categories"]
    maps = {}
    for line in (target / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        labels = np.asarray(Image.open(target / row["mask_file_name"])).astype(int)
        assert row["classes"] == [names[str(label)] for label in np.unique(labels) if label]
        assert (target / row["file_name"]).is_file()
        maps[row["file_name"].removeprefix("images/")] = labels
    return maps


READERS = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "labelme": read_labelme,
    "label-studio": read_label_studio,
    "cvat": read_cvat,
    "fiftyone": read_fiftyone,
    "huggingface": read_huggingface,
}
