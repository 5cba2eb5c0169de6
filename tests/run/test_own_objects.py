"""Objects of other programs: masks or boxes in a COCO JSON, and tables of objects with embeddings."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import ENCODER, TINY, Photographs
from PIL import Image
from pycocotools import mask as coco_mask

from fastcomus import InputError, Run
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.images.found import UnreadableImage
from fastcomus.objects.saliency.proposal_file import ProposalFile, fill_box
from fastcomus.run.own_objects import OwnObjects
from fastcomus.store.masks import get_mask_path, read_class_map
from fastcomus.store.objects_table import decode_mask

SHAPE = (30, 40)
IMAGE = {"file_name": "a.jpg", "height": 30, "width": 40}
PIXELS = np.zeros((*SHAPE, 3), np.uint8)


def encode(mask: np.ndarray) -> dict[str, Any]:
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": packed["counts"].decode()}


def write_proposals(file: Path, annotations: list[dict[str, Any]], names: tuple[str, ...] = ("a.jpg",)) -> ProposalFile:
    images = [{"id": i, "file_name": name, "height": 30, "width": 40} for i, name in enumerate(names)]
    numbered = [{"id": 7 + i, "image_id": 0, **one} for i, one in enumerate(annotations)]
    file.write_text(json.dumps({"images": images, "annotations": numbered}))
    return ProposalFile(file)


def test_masks_polygons_and_boxes_become_an_object_each_from_large_to_small(tmp_path: Path) -> None:
    small, large = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    small[2:6, 3:9], large[10:28, 5:35] = True, True
    given = [
        {"segmentation": encode(small)},
        {"segmentation": [[20, 0, 30, 0, 30, 8, 20, 8]]},
        {"bbox": [5, 10, 30, 18]},
    ]
    found = write_proposals(tmp_path / "p.json", given)("a.jpg", PIXELS)
    assert found.shape == (3, *SHAPE) and found.dtype == bool
    assert (found[0] == large).all() and (found[2] == small).all()
    assert found[1].sum() == 80 and found[1][:8, 20:30].all()


def test_masks_of_equal_size_keep_their_order_and_are_never_there_twice(tmp_path: Path) -> None:
    boxes = [[i % 30, i % 20, 4 + i % 3, 5] for i in range(40)]
    proposals = write_proposals(tmp_path / "p.json", [{"bbox": box} for box in boxes])
    drawn = [fill_box(box, SHAPE) for box in boxes]
    assert (proposals("a.jpg", PIXELS) == sorted(drawn, key=lambda mask: -np.count_nonzero(mask))).all()

    image = {"id": 0, "file_name": "b.jpg", "height": 1000, "width": 1000}
    annotations = [{"id": i, "image_id": 0, "bbox": [i, i, 500, 500]} for i in range(40)]
    (tmp_path / "b.json").write_text(json.dumps({"images": [image], "annotations": annotations}))
    proposals, pixels = ProposalFile(tmp_path / "b.json"), np.empty((1000, 1000, 3), np.uint8)
    tracemalloc.start()
    try:
        masks = proposals("b.jpg", pixels)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * masks.nbytes
    finally:
        tracemalloc.stop()


def test_images_are_found_by_their_path_and_by_a_file_name_that_is_there_once(tmp_path: Path) -> None:
    proposals = write_proposals(tmp_path / "p.json", [{"bbox": [0, 0, 5, 5]}], ("x\\a.jpg", "x/b.jpg", "y/b.jpg"))
    proposals.check_names(["a.jpg", "b.jpg"])
    assert proposals("z/a.jpg", PIXELS).sum() == 25
    with pytest.raises(UnreadableImage, match="no mask"):
        proposals("b.jpg", PIXELS)
    with pytest.raises(InputError, match=r"x/a\.jpg in .* may be a\.jpg or z/a\.jpg"):
        proposals.check_names(["a.jpg", "z/a.jpg"])
    with pytest.raises(InputError, match=r"it has x/a\.jpg, the folder c\.jpg"):
        proposals.check_names(["c.jpg"])


def test_ids_are_equal_however_they_are_written(tmp_path: Path) -> None:
    ids = [(1, 1.0), ("2", 2), (3.0, "3"), ("four", "four ")]
    images = [{"id": id_, "file_name": f"{i}.jpg", "height": 30, "width": 40} for i, (id_, _) in enumerate(ids)]
    annotations = [{"id": i, "image_id": id_, "bbox": [0, 0, 1 + i, 1]} for i, (_, id_) in enumerate(ids)]
    (tmp_path / "p.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    proposals = ProposalFile(tmp_path / "p.json")
    assert [proposals(f"{i}.jpg", PIXELS).sum() for i in range(4)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("annotation", "told"),
    [
        ({"segmentation": {"size": [30, 40], "counts": [5, 5]}}, "annotation 7 has run lengths for 10 pixels"),
        ({"segmentation": [[1, 1, 2, 2]]}, "no polygon of three corners"),
        ({"bbox": [50, 50, 5, 5]}, "outside its image"),
        ({}, "neither segmentation nor bbox"),
    ],
)
def test_an_annotation_that_cannot_be_drawn_leaves_its_image_out(annotation: dict, told: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=told):
        write_proposals(tmp_path / "p.json", [annotation])("a.jpg", PIXELS)
    with pytest.raises(UnreadableImage, match=r"p\.json says 40 x 30, its image is 50 x 30"):
        write_proposals(tmp_path / "p.json", [annotation])("a.jpg", np.zeros((30, 50, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("no json", "cannot be read as JSON"),
        ("[]", "it needs a list 'images'"),
        ('{"images": [], "annotations": [{"image_id": 3}]}', "does not list, image_id 3"),
        ('{"images": [], "annotations": [{"image_id": null}]}', "has the image_id None; ids are"),
        (
            json.dumps({"images": [{**IMAGE, "id": 1}, {**IMAGE, "id": "1", "file_name": "b.jpg"}], "annotations": []}),
            r"has the image id 1 twice, for a\.jpg and b\.jpg",
        ),
    ],
)
def test_a_file_that_is_no_such_json(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(InputError, match=told):
        ProposalFile(tmp_path / "p.json")


def test_a_run_on_proposals(photographs: Photographs, tmp_path: Path) -> None:
    names = sorted(path.name for path in photographs.images.iterdir())
    masks = [read_mask(photographs.truth / name) > 0 for name in names]
    images = [{"id": i, "file_name": n, "width": 96, "height": 80} for i, n in enumerate(names[:-1])]
    annotations = [{"id": i, "image_id": i, "segmentation": encode(masks[i])} for i in range(len(images))]
    annotations.append({"id": 99, "image_id": 0, "bbox": [0, 0, 25, 20]})
    file = tmp_path / "proposals.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    embedded = run.embed(photographs.images, masks=str(file), **ENCODER)
    assert (embedded.objects, embedded.skipped) == (24, 1)
    rows = run.objects().to_pylist()
    for row in [row for row in rows if row["image"] != names[0]]:
        assert (decode_mask(row["mask"], 80, 96) == masks[names.index(row["image"])]).all()
    before = (tmp_path / "run/objects/part-00000.parquet").read_bytes()
    annotations.pop()
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    assert run.embed(photographs.images).objects == 23  # another file, other objects
    assert (tmp_path / "run/objects/part-00000.parquet").read_bytes() != before


@pytest.fixture
def table(photographs: Photographs) -> pa.Table:
    """A box around each object, with an embedding that tells its kind, in reverse order."""
    rows = []
    for index, file in enumerate(sorted(photographs.images.iterdir())):
        rows_, columns = np.nonzero(read_mask(photographs.truth / file.name))
        box = {"x0": columns.min(), "y0": rows_.min(), "x1": columns.max() + 1, "y1": rows_.max() + 1}
        kind = np.eye(3)[index % 3] + np.random.default_rng(index).normal(0, 0.02, 3)
        rows.append({"image": file.name, **{name: int(one) for name, one in box.items()}, "embedding": kind.tolist()})
    return pa.Table.from_pylist(rows[::-1][:-1])


def test_own_boxes_and_embeddings_become_masks_and_a_network(
    photographs: Photographs, table: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(table, tmp_path / "objects.parquet")
    run = Run(tmp_path / "run", preset="offline", settings=TINY)
    embedded = run.embed(photographs.images, masks=str(tmp_path / "objects.parquet"))
    assert (embedded.images, embedded.objects, embedded.skipped) == (24, 23, 1)
    objects = run.objects().to_pylist()
    given = {row["image"]: row for row in table.to_pylist()}
    for row in objects:
        box = tuple(row[name] for name in ("x0", "y0", "x1", "y1"))
        assert box == tuple(given[row["image"]][name] for name in ("x0", "y0", "x1", "y1"))
        assert row["embedding"] == pytest.approx(given[row["image"]]["embedding"], abs=1e-6)
    clusters = run.cluster(k=3)
    kinds = np.array([int(row["image"][:2]) % 3 for row in objects])
    assert len({*zip(kinds, clusters.labels.tolist(), strict=True)}) == 3
    first = objects[0]
    labels = read_class_map(run.folder, get_mask_path("iteration-0", first["image"]))
    expected = np.zeros((80, 96), int)
    expected[first["y0"] : first["y1"], first["x0"] : first["x1"]] = clusters.labels[0] + 1
    assert (labels == expected).all()
    run.train(iterations=1, epochs=1, train_size=33)
    assert (tmp_path / "run/iteration-1/segmenter.safetensors").is_file()
    state = json.loads((tmp_path / "run/run.json").read_text())
    assert not any("efficientnet-lite0" in note for note in state["notes"])  # no encoder was used
    assert run.embed(photographs.images) == embedded  # up to date
    with pytest.raises(InputError, match="give those of new objects with --embeddings"):
        run.assign(photographs.images)


def test_rows_of_some_images_are_those_that_a_filter_finds() -> None:
    rng = np.random.default_rng(0)
    names = [f"{i:03d}.png" for i in range(50)]
    counts = rng.integers(0, 4, 50)
    rows = [
        {"image": name, "x0": int(rng.integers(99))} for name, n in zip(names, counts, strict=True) for _ in range(n)
    ]
    lone = [{"image": name, "reason": "r"} for name, n in zip(names, counts, strict=True) if not n or n == 3]
    own = OwnObjects(pa.Table.from_pylist(rows), pa.Table.from_pylist(lone))
    for wanted in (names[:7], names[7:8], names[8:][::-1], ["none.png"], []):
        for table, found in zip((own.objects, own.skipped), own.select(wanted), strict=True):
            assert found.equals(table.filter(pc.is_in(table["image"], pa.array(wanted, pa.string()))))


def test_tables_that_do_not_fit_are_told(photographs: Photographs, table: pa.Table, tmp_path: Path) -> None:
    rows = table.to_pylist()

    def tell(changed: list[dict[str, Any]], **columns: Any) -> str:
        pq.write_table(pa.Table.from_pylist(changed), tmp_path / "objects.parquet")
        with pytest.raises(InputError) as raised:
            Run(tmp_path / "run").embed(photographs.images, masks=str(tmp_path / "objects.parquet"))
        assert not (tmp_path / "run/objects").exists()
        return str(raised.value)

    assert "1 rows of" in tell([{**rows[0], "image": "x.png"}, *rows[1:]])
    assert "row 1 of" in (told := tell([rows[0], {**rows[1], "x1": 97}])) and "where the image is 96 x 80" in told
    assert "needs the columns image, embedding, and mask or" in tell([{"image": "00.png", "embedding": [1.0]}])
    assert "finite" in tell([{**rows[0], "embedding": [1.0, float("nan"), 0.0]}])
    assert "run lengths for" in tell([{**rows[0], "mask": encode(np.ones((5, 5)))["counts"]}])
    with pytest.raises(InputError, match=r"did you mean .*objects\.parquet"):
        Run(tmp_path / "run").embed(photographs.images, masks=str(tmp_path / "object.parquet"))


def test_a_turned_photograph_is_as_large_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    pq.write_table(
        pa.table({"image": ["a.jpg"], "x0": [0], "y0": [0], "x1": [30], "y1": [40], "embedding": [[1.0, 0.0]]}),
        tmp_path / "objects.parquet",
    )
    run = Run(tmp_path / "run")
    run.embed(tmp_path / "a.jpg", masks=str(tmp_path / "objects.parquet"))
    assert run.objects().select(["width", "height", "area"]).to_pylist() == [{"width": 30, "height": 40, "area": 1200}]
