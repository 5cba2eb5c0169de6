"""Exports read back by the readers of export_readers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pytest
from conftest import Photographs, tree_bytes
from export_readers import READERS, STRANGE, read_voc
from hypothesis import HealthCheck, given, settings
from PIL import Image
from pycocotools.coco import COCO
from test_regions import class_maps
from typer.testing import CliRunner

from fastcomus import InputError, Run
from fastcomus.cli.commands import app
from fastcomus.clusters.named_masks import ClassMaps
from fastcomus.clusters.names import ClusterNames, name_clusters
from fastcomus.exports.export import Transfer, export_masks
from fastcomus.images.reading import read_image
from fastcomus.store.lock import SoleWriter
from fastcomus.store.masks import get_mask_path, read_class_map, write_class_map
from fastcomus.store.run_folder import RunFolder


def written(
    root: Path, maps: dict[str, np.ndarray], format_name: str, names: ClusterNames | None = None, how: str = "copy"
) -> Path:
    """An export of `maps`, by image name, with plain images of their sizes (those that are there stay)."""
    folder = RunFolder(root / "run")
    for image, labels in maps.items():
        write_class_map(folder, get_mask_path("iteration-0", image), labels)
        file = root / "images" / image
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", labels.shape[::-1], (90, 60, 30)).save(file)
    masks = ClassMaps(folder, 0, list(maps), names or name_clusters(STRANGE, 3), 2)
    target = root / f"out-{len(list(root.glob('out-*')))}"
    assert export_masks(format_name, masks, Transfer(root / "images", how, 10**8), target) == len(maps)
    return target


@pytest.mark.parametrize("format_name", READERS)
@given(class_maps())
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_masks_come_back_to_the_pixel(
    format_name: str, tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray
) -> None:
    target = written(tmp_path_factory.mktemp("export"), {"a.jpg": labels}, format_name)
    (found,) = READERS[format_name](target).values()
    assert (found == labels).all()


COLLIDING = (
    "a.jpg", "a.png", "A.jpg", "sub/a.jpg", "sub/deep/b.webp", "sub_a.jpg", "spaced name.jpg", "ü.gif", "c.d.bmp",
    "train/images/a.jpg", "images/images/a.jpg", "labels/images/a.jpg",
)  # fmt: skip


def maps_of(names: Sequence[str]) -> dict[str, np.ndarray]:
    """A small class map per image, each of another width."""
    rng = np.random.default_rng(0)
    return {name: rng.integers(0, 4, (6, 8 + index)).astype(np.uint16) for index, name in enumerate(names)}


@pytest.mark.parametrize("format_name", READERS)
def test_images_of_equal_stems_and_in_folders_stay_apart(format_name: str, tmp_path: Path) -> None:
    maps = maps_of(COLLIDING)
    found = READERS[format_name](written(tmp_path, maps, format_name))
    assert len(found) == len(maps)
    if format_name != "voc":
        assert len({str(PurePosixPath(name).with_suffix("")).casefold() for name in found}) == len(found)
    by_width = {labels.shape[1]: labels for labels in found.values()}
    for labels in maps.values():
        assert (by_width[labels.shape[1]] == labels).all()


def test_names_too_long_for_a_file_are_shortened(tmp_path: Path) -> None:
    maps = maps_of([f"sub/{'ä' * 120}{number}.jpg" for number in range(2)])
    assert len(read_voc(written(tmp_path, maps, "voc"))) == 2


def test_dropped_and_merged_clusters(tmp_path: Path) -> None:
    names = name_clusters({0: "cat", 1: "-", 2: "cat"}, 3)
    labels = np.array([[0, 1, 2, 3]], np.uint16)
    target = written(tmp_path, {"a.jpg": labels}, "coco", names)
    content = json.loads((target / "annotations/instances_default.json").read_text())
    assert [one["name"] for one in content["categories"]] == ["cat"]
    assert sorted(one["bbox"] for one in content["annotations"]) == [[1, 0, 1, 1], [3, 0, 1, 1]]


@pytest.mark.parametrize("how", ["link", "copy"])
def test_images_are_linked_or_copied_as_they_are(how: str, tmp_path: Path) -> None:
    maps = {"sub/a.jpeg": np.ones((30, 40), np.uint16)}
    for format_name in READERS:
        target = written(tmp_path, maps, format_name, how=how)
        (image,) = (path for path in target.rglob("*.jpeg" if format_name != "voc" else "*.jpg"))
        source = tmp_path / "images/sub/a.jpeg"
        assert image.read_bytes() == source.read_bytes()
        assert image.samefile(source) == (how == "link")


def test_an_image_that_its_camera_turned_is_written_upright(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn to the right
    stored = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    stored.save(tmp_path / "images/a.jpg", exif=exif, quality=95)
    target = written(tmp_path, {"a.jpg": np.ones((40, 30), np.uint16)}, "coco")
    with Image.open(target / "images/a.jpg") as image:
        assert image.size == (30, 40) and image.format == "JPEG" and not image.getexif()
        expected = read_image(tmp_path / "images/a.jpg", 10**6).astype(int)
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 4


ODD = {
    "palette.gif": lambda image: image.quantize(16),
    "palette.bmp": lambda image: image.quantize(16),
    "palette.tif": lambda image: image.quantize(16),
    "ink.jpg": lambda image: image.convert("CMYK"),
    "wide.png": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257),
    "float.tiff": lambda image: Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255),
    "clear.png": lambda image: image.convert("RGBA"),
    "clear.webp": lambda image: Image.fromarray(np.dstack([np.asarray(image), np.full((30, 40), 9, np.uint8)])),
    "one bit.png": lambda image: image.convert("1"),
    "in truth a png.jpg": lambda image: image,
}


@pytest.mark.parametrize("format_name", READERS)
def test_images_that_other_tools_do_not_open_are_written_as_rgb(format_name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    photograph = Image.radial_gradient("L").resize((40, 30))
    photograph = Image.merge("RGB", (photograph, photograph.transpose(Image.Transpose.ROTATE_180), photograph))
    for name, convert in ODD.items():
        convert(photograph).save(tmp_path / "images" / name, **({"format": "PNG"} if "truth" in name else {}))
    pages = [photograph, photograph.resize((20, 20))]
    pages[0].save(tmp_path / "images/pages.tif", save_all=True, append_images=pages[1:])
    names = [*ODD, "pages.tif"]
    target = written(tmp_path, {name: np.ones((30, 40), np.uint16) for name in names}, format_name)
    files = [file for file in target.rglob("*") if file.suffix in {".jpg", ".bmp", ".tif", ".tiff", ".webp", ".png"}]
    files = [file for file in files if not {"SegmentationClass", "labels", "masks"} & {*file.parts}]
    assert len(files) == len(names)
    for name in names:
        stem = PurePosixPath(name).stem
        stems = {stem, stem.replace(" ", "_"), name, f"{stem}.{name.rpartition('.')[2]}"}
        (file,) = (file for file in files if file.stem in stems)
        with Image.open(file) as image:
            assert image.mode == "RGB" and getattr(image, "n_frames", 1) == 1
            assert Image.registered_extensions()[file.suffix] == image.format
            seen = read_image(tmp_path / "images" / name, 10**6).astype(int)
            assert np.abs(np.asarray(image).astype(int) - seen).mean() < 4, name


def test_voc_turns_other_images_into_jpegs_with_their_colours(tmp_path: Path) -> None:
    target = written(tmp_path, {"a.png": np.ones((30, 40), np.uint16)}, "voc")
    with Image.open(target / "VOCdevkit/VOC2012/JPEGImages/a.jpg") as image:
        assert image.format == "JPEG" and image.getpixel((5, 5)) == pytest.approx((90, 60, 30), abs=3)


@pytest.mark.parametrize("format_name", READERS)
def test_a_run_is_exported_with_names_by_command_and_from_python(
    format_name: str, run_copy: Path, photographs: Photographs, tmp_path: Path
) -> None:
    run = Run(run_copy)
    run.name(STRANGE)
    reply = CliRunner().invoke(app, ["export", format_name, "--run", str(run_copy)], catch_exceptions=False)
    assert reply.exit_code == 0
    found = READERS[format_name](run_copy / f"exports/iteration-2-{format_name}")
    assert len(found) == 24
    first = READERS[format_name](run.export(format_name, tmp_path / "first", iteration=0, transfer="copy"))
    for number in range(24):
        labels = read_class_map(run.folder, get_mask_path("iteration-0", f"{number:02d}.png"))
        name = {"voc": f"{number:02d}"}.get(format_name, f"{number:02d}.png")
        assert (first[name] == labels).all() and labels.any()


def test_another_export_leaves_the_earlier_one_and_has_the_names_of_now(run_copy: Path) -> None:
    run, written = Run(run_copy), []
    for name in ("cat", "dog"):
        run.name({0: name})
        written.append(run.export("coco"))
    assert [folder.name for folder in written] == ["iteration-2-coco", "iteration-2-coco-2"]
    listed = [json.loads((folder / "annotations/instances_default.json").read_text()) for folder in written]
    assert [one["categories"][0]["name"] for one in listed] == ["cat", "dog"]


def test_a_run_can_be_read_while_another_process_writes_to_it(run_copy: Path, photographs: Photographs, tmp_path: Path):
    Run(run_copy).name({0: "cat"})
    with SoleWriter(run_copy).hold():
        run = Run(run_copy)
        assert run.name().given == ((0, "cat"),)
        assert (run.export("voc", tmp_path / "voc") / "VOCdevkit").is_dir()
        assert run.predict(photographs.images, tmp_path / "predicted").is_dir()
        with pytest.raises(InputError, match="in use"):
            run.name({1: "dog"})


def test_a_large_number_of_classes(tmp_path: Path) -> None:
    names = name_clusters({}, 300)
    labels = np.arange(301, dtype=np.uint16).reshape(7, 43)
    target = written(tmp_path, {"a.jpg": labels}, "yolo", names)
    assert len((target / "labels/a.txt").read_text().splitlines()) == 300
    with pytest.raises(InputError, match="voc masks hold 254 classes at most and these have 300"):
        written(tmp_path, {"a.jpg": labels}, "voc", names)


BAD = {
    "full folder": (["coco", "--output", "{full}"], "full is there already and not empty; delete it"),
    "a file": (["coco", "--output", "{full}/a.txt"], "a.txt is there already"),
    "no such iteration": (["yolo", "--iteration", "9"], "one of 0, 1, 2; got 9"),
    "no such transfer": (["voc", "--transfer", "move"], "by link or copy; got 'move'"),
    "no run": (["labelme", "--run", "{full}/none"], "no run folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_changes_nothing(case: str, run_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("mine")
    before = tree_bytes(tmp_path)
    arguments, told = BAD[case]
    rest = [one.format(full=tmp_path / "full") for one in arguments[1:]]
    line = ["export", arguments[0], "--run", str(run_copy), *rest]
    reply = CliRunner().invoke(app, line)
    assert isinstance(reply.exception, InputError) and told in str(reply.exception)
    assert tree_bytes(tmp_path) == before
    with pytest.raises(InputError, match=r"one of coco, voc, .*csv, onnx; got 'cocco'; did you mean coco or voc\?"):
        Run(run_copy).export("cocco")


def test_an_image_that_changed_ends_the_export_and_leaves_nothing(tmp_path: Path) -> None:
    written(tmp_path, {"a.jpg": np.ones((5, 6), np.uint16)}, "coco")
    for change, told in (
        (lambda file: Image.new("RGB", (6, 6)).save(file), "it is 6 x 6 pixels and its mask 6 x 5"),
        (lambda file: file.write_bytes(b"no image"), "changed since it was embedded"),
        (lambda file: file.unlink(), "changed since it was embedded"),
    ):
        change(tmp_path / "images/a.jpg")
        masks = ClassMaps(RunFolder(tmp_path / "run"), 0, ["a.jpg"], name_clusters({}, 3), 2)
        with pytest.raises(InputError, match=told):
            export_masks("yolo", masks, Transfer(tmp_path / "images", "link", 10**6), tmp_path / "none/out")
        assert not list((tmp_path / "none").rglob("*"))


def test_tables_have_a_row_per_region_and_per_image(tmp_path: Path) -> None:
    maps = maps_of(COLLIDING) | {"nothing.jpg": np.zeros((5, 9), np.uint16)}
    target = written(tmp_path, maps, "csv")
    assert sorted(path.name for path in target.iterdir()) == ["images.csv", "regions.csv"]
    regions = pd.read_csv(target / "regions.csv", keep_default_na=False)
    images = pd.read_csv(target / "images.csv", keep_default_na=False).set_index("image")
    coco = COCO(written(tmp_path, maps, "coco") / "annotations/instances_default.json")
    names = {one["id"]: one["name"] for one in coco.dataset["categories"]}
    expected = sorted([one["area"], *map(int, one["bbox"]), names[one["category_id"]]] for one in coco.anns.values())
    rows = [[r.area, r.x0, r.y0, r.x1 - r.x0, r.y1 - r.y0, r["class"]] for _, r in regions.iterrows()]
    assert sorted(rows) == expected
    assert set(regions["image"]) == set(maps) - {"nothing.jpg"} and set(images.index) == set(maps)
    for name, labels in maps.items():
        areas = np.bincount(labels.ravel(), minlength=4)
        best = int(areas[1:].argmax()) + 1 if areas[1:].any() else 0
        assert images.loc[name, "label"] == best and images.loc[name, "class"] == {-1: "", **STRANGE}[best - 1]
        assert images.loc[name, "share"] == pytest.approx(areas[best] / labels.size if best else 0, abs=1e-4)
        assert images.loc[name, "background_share"] == pytest.approx(areas[0] / labels.size, abs=1e-4)


def test_long_runs_of_a_brush_are_divided(tmp_path: Path) -> None:
    labels = np.zeros((300, 500), np.uint16)
    labels[:, 100:] = 1
    labels[5, 5] = 2
    for name, one in (("a.jpg", labels), ("b.jpg", np.ones_like(labels))):
        (found,) = READERS["label-studio"](written(tmp_path, {name: one}, "label-studio")).values()
        assert (found == one).all()
