"""Class maps and the choice of training images against planted objects and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fastcomus.backends.choose import select
from fastcomus.segmentation.pseudo_masks import assemble_class_maps, select_training_images
from fastcomus.store.objects_table import SKIPPED_SCHEMA

CPU = select("cpu")


def row(image: str, mask: np.ndarray, score: float) -> dict[str, Any]:
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    return {"image": image, "width": mask.shape[1], "height": mask.shape[0], "score": score, "mask": counts}


def skipped_table(*rows: tuple[str, str, int, int]) -> pa.Table:
    names = ("image", "reason", "width", "height")
    return pa.Table.from_pylist([{**dict(zip(names, r, strict=True)), "detail": ""} for r in rows], SKIPPED_SCHEMA)


def rectangle(height: int, width: int, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_object_of_higher_score_wins_where_masks_overlap() -> None:
    low, high = rectangle(10, 12, 0, 0, 6, 6), rectangle(10, 12, 3, 3, 9, 9)
    for rows, labels in (
        ([row("a", low, 0.3), row("a", high, 0.9)], [4, 7]),
        ([row("a", high, 0.9), row("a", low, 0.3)], [7, 4]),
    ):
        (made,) = assemble_class_maps([pa.Table.from_pylist(rows)], np.array(labels), skipped_table(), CPU)
        assert made.image == "a" and made.labels.shape == (10, 12) and made.labels.dtype == np.uint16
        assert (made.labels == np.where(high, 8, np.where(low, 5, 0))).all()


def test_images_keep_their_own_size_and_unread_ones_have_no_map() -> None:
    objects = pa.Table.from_pylist(
        [
            row("a", rectangle(5, 7, 0, 0, 2, 2), 0.5),
            row("b", rectangle(9, 4, 1, 1, 5, 3), 0.5),
            row("b", rectangle(9, 4, 6, 0, 9, 4), 0.4),
        ]
    )
    skipped = skipped_table(("c", "no salient region", 6, 3), ("d", "truncated", 0, 0))
    maps = {m.image: m.labels for m in assemble_class_maps([objects], np.array([0, 2, 299]), skipped, CPU)}
    assert list(maps) == ["a", "b", "c"]
    assert (maps["a"] == rectangle(5, 7, 0, 0, 2, 2)).all()
    assert (maps["b"] == 3 * rectangle(9, 4, 1, 1, 5, 3) + 300 * rectangle(9, 4, 6, 0, 9, 4)).all()
    assert maps["c"].shape == (3, 6) and not maps["c"].any()


def test_no_objects_at_all() -> None:
    objects = pa.Table.from_pylist([row("a", rectangle(2, 2, 0, 0, 1, 1), 0.5)]).slice(0, 0)
    maps = list(assemble_class_maps([objects], np.empty(0, int), skipped_table(("b", "no salient region", 2, 2)), CPU))
    assert [m.image for m in maps] == ["b"]


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_every_pixel_belongs_to_its_best_object(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for image in range(int(rng.integers(1, 4))):
        shape = tuple(rng.integers(1, 9, 2))
        for _ in range(int(rng.integers(1, 5))):
            rows.append(row(f"{image}", rng.random(shape) < 0.5, float(rng.choice([0.1, 0.2, 0.3]))))
            labels.append(int(rng.integers(0, 300)))
    made = {
        m.image: m.labels
        for m in assemble_class_maps([pa.Table.from_pylist(rows)], np.array(labels), skipped_table(), CPU)
    }
    for image, labels_of_image in made.items():
        for y, x in np.ndindex(labels_of_image.shape):
            covering = [
                (r["score"], i)
                for i, r in enumerate(rows)
                if r["image"] == image
                and coco_mask.decode({"size": [r["height"], r["width"]], "counts": r["mask"].encode()})[y, x]
            ]
            assert labels_of_image[y, x] == (labels[max(covering)[1]] + 1 if covering else 0)


def test_images_with_a_dropped_object_do_not_train() -> None:
    images = ["b", "b", "a", "c", "c", "d"]
    assert select_training_images(images, np.array([True, True, True, True, False, False])) == ["a", "b"]
    assert select_training_images(images, np.zeros(6, bool)) == []
    assert select_training_images([], np.empty(0, bool)) == []
