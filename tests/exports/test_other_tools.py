"""Exports read back by the tools that people give them to (extra exports-check); those not installed are skipped."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from export_readers import READERS, STRANGE
from PIL import Image
from test_exports import written

MAPS = {
    name: np.pad(np.full((10, 12), label, np.uint16), 20)
    for label, name in enumerate(("train/images/a.jpg", "val/images/a.jpg", "val/images/a.png"), start=1)
}
# A name in labelmap.txt has no colon.
STRANGE_IN_A_MAP = {"coco": [*STRANGE.values()], "voc": [name.replace(":", "_") for name in STRANGE.values()]}
STRANGE_IN_A_MAP["cvat"] = STRANGE_IN_A_MAP["voc"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images in folders called images, two of equal stems, one of them in 16 bits."""
    (tmp_path / "images/val/images").mkdir(parents=True)
    Image.fromarray(np.full((50, 52), 40_000, np.uint16)).save(tmp_path / "images/val/images/a.png")
    return tmp_path


@pytest.mark.parametrize("format_name", ["coco", "voc", "cvat"])
def test_datumaro(format_name: str, root: Path) -> None:
    datumaro = pytest.importorskip("datumaro.components.dataset")
    target = written(root, MAPS, format_name)
    if format_name == "cvat":  # which unpacks the archive, and adds the images of its task
        with zipfile.ZipFile(target / "annotations.zip") as archive:
            archive.extractall(target)
        (target / "images").rename(target / "JPEGImages")
    found = datumaro.Dataset.import_from(str(target), "coco" if format_name == "coco" else "voc_segmentation")
    names = [one.name for one in next(iter(found.categories().values())).items]
    assert names == [*(["background"] if format_name != "coco" else []), *STRANGE_IN_A_MAP[format_name]]
    items = [item for item in found if item.subset in ("default", "train")]
    masks = [one for item in items for one in item.annotations if one.type.name == "mask"]
    objects = sorted(one.label for one in masks if names[one.label] != "background")
    assert len(items) == 3 and [names[label] for label in objects] == STRANGE_IN_A_MAP[format_name]
    assert all(item.media.data.shape == (50, 52, 3) for item in items)


@pytest.mark.parametrize("format_name", ["coco", "yolo"])
def test_supervision(format_name: str, root: Path) -> None:
    sets = pytest.importorskip("supervision").DetectionDataset
    target = written(root, MAPS, format_name)
    if format_name == "yolo":
        found = sets.from_yolo(*(str(target / name) for name in ("images", "labels", "data.yaml")), force_masks=True)
    else:
        annotations = target / "annotations/instances_default.json"
        found = sets.from_coco(str(target / "images"), str(annotations), force_masks=True)
    assert sorted(int(one.class_id[0]) for _, _, one in found) == [0, 1, 2]
    assert all(image.shape == (50, 52, 3) and one.mask.sum() > 100 for _, image, one in found)


def test_labelme(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    labelme = pytest.importorskip("labelme._label_file")
    files = sorted(written(root, MAPS, "labelme").rglob("*.json"))
    read = [labelme.LabelFile(str(file)) for file in files]
    assert len(read) == 3 and all(one.image_data or one.imageData for one in read)


def test_label_studio(root: Path) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    config = pytest.importorskip("label_studio_sdk.label_interface").LabelInterface
    target = written(root, MAPS, "label-studio")
    interface = config((target / "label-config.xml").read_text(encoding="utf-8"))
    tasks = json.loads((target / "tasks.json").read_text(encoding="utf-8"))
    for task, labels in zip(tasks, MAPS.values(), strict=True):
        assert interface.validate_prediction(task["predictions"][0], return_errors=True) == []
        (one,) = task["predictions"][0]["result"]
        picture = brush.decode_rle(one["value"]["rle"]).reshape(*labels.shape, 4)
        assert ((picture[..., 3] > 0) == (labels > 0)).all()


def test_hugging_face(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    load = pytest.importorskip("datasets").load_dataset
    target = written(root, MAPS, "huggingface")
    found = load(str(target), split="train", cache_dir=str(tmp_path / "cache"))
    assert set(found.column_names) == {"image", "mask", "classes"} and len(found) == 3
    expected = READERS["huggingface"](target)
    for row, labels in zip(found, expected.values(), strict=True):
        assert row["image"].mode == "RGB" and row["image"].size == row["mask"].size == (52, 50)
        assert (np.asarray(row["mask"]) == labels).all() and len(row["classes"]) == 1


def test_fiftyone(root: Path) -> None:
    """By its importer alone, which needs no database."""
    importers = pytest.importorskip("fiftyone.utils.data.importers")
    target = written(root, MAPS, "fiftyone")
    reader = importers.ImageSegmentationDirectoryImporter(dataset_dir=str(target), compute_metadata=False)
    reader.setup()
    found = {Path(image).name: label for image, _, label in reader}
    expected = READERS["fiftyone"](target)
    assert found.keys() == expected.keys()
    for name, labels in expected.items():
        assert (found[name].get_mask() == labels).all()
