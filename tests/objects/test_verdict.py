"""One object each or several: planted embeddings and masks, and what cannot be judged."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fastcomus.objects.verdict import judge_objects
from fastcomus.store.objects_table import make_object_schema

SIDE, DIMENSION, KINDS = 20, 16, 10


def make_row(image: str, embedding: np.ndarray, pieces: int = 1) -> dict[str, object]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for piece in range(pieces):
        mask[2:6, 1 + 5 * piece : 5 + 5 * piece] = 1
    counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode("ascii")
    box = {"x0": 1, "y0": 2, "x1": 5 * pieces, "y1": 6, "area": int(mask.sum())}
    return {"image": image, "width": SIDE, "height": SIDE, "score": 1, **box, "mask": counts, "embedding": embedding}


def make_table(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=make_object_schema(DIMENSION))


def plant(photographs: int, kinds_each: int, pieces: int = 1, seed: int = 0) -> tuple[pa.Table, pa.Table]:
    """Wholes that mix the photograph's kinds; and parts, one for each kind and one of noise."""
    random = np.random.default_rng(seed)
    wholes, parts = [], []
    for number in range(photographs):
        kinds = random.choice(KINDS, kinds_each, replace=False)
        own = [np.eye(DIMENSION)[kind] + random.normal(0, 0.13, DIMENSION) for kind in kinds]
        mixed = np.mean(own, axis=0) + random.normal(0, 0.25 * (kinds_each - 1), DIMENSION)
        wholes.append(make_row(f"{number}.jpg", mixed, pieces))
        parts += [make_row(f"{number}.jpg", one) for one in (*own, random.normal(size=DIMENSION))]
    return make_table(wholes), make_table(parts)


@given(st.integers(0, 50))
def test_one_kind_each_is_one_object_and_three_are_several(seed: int) -> None:
    single, several = (judge_objects(*plant(40, kinds, seed=seed)) for kinds in (1, 3))
    assert (single.is_several, several.is_several) == (False, True)
    assert single.photographs == several.photographs == 40 and abs(single.evidence) < 0.5


def test_masks_in_pieces_are_evidence_of_their_own() -> None:
    whole, halves, thirds = (judge_objects(*plant(40, 1, pieces)).evidence for pieces in (1, 2, 3))
    assert halves == pytest.approx(whole + 5 / 2) and thirds == pytest.approx(whole + 10 / 3)


def test_the_order_does_not_matter_and_the_largest_is_the_whole() -> None:
    wholes, parts = plant(40, 2)
    smaller = make_table([make_row(f"{number}.jpg", np.ones(DIMENSION)) for number in range(40)])
    doubled = pa.concat_tables([smaller, *plant(40, 2, pieces=2)[:1]])
    order = np.random.default_rng(1).permutation
    shuffled = judge_objects(wholes.take(order(40)), parts.take(order(len(parts))))
    assert shuffled.evidence == pytest.approx(judge_objects(wholes, parts).evidence)
    assert judge_objects(doubled, parts).evidence == pytest.approx(shuffled.evidence + 5 / 2)


def test_photographs_of_nearly_the_same_say_nothing_about_each_other() -> None:
    """As frames of a video: each of six, or of ten, eight times."""
    for photographs, kinds_each in ((6, 1), (10, 3)):
        tables = plant(photographs, kinds_each)
        random, frames = np.random.default_rng(1), []
        for table in tables:
            rows = table.to_pylist()
            frames.append(
                make_table(
                    [
                        {**row, "image": f"{row['image']}-{frame}", "embedding": row["embedding"] + noise}
                        for row in rows
                        for frame in range(8)
                        for noise in [random.normal(0, 0.01, DIMENSION)]
                    ]
                )
            )
        alone, together = judge_objects(*tables), judge_objects(*frames)
        assert together.is_several == (kinds_each == 3) and together.photographs == 8 * alone.photographs


def test_what_cannot_be_judged_is_no_evidence() -> None:
    nothing = make_table([])
    wholes, parts = plant(40, 3)
    for one, several in ((nothing, nothing), (wholes, nothing), (nothing, parts), plant(1, 3)):
        verdict = judge_objects(one, several)
        assert verdict.evidence == 0 and not verdict.is_several
    copies = make_table([make_row(f"{number}.jpg", np.ones(DIMENSION)) for number in range(40)])
    assert judge_objects(copies, copies).evidence == pytest.approx(0, abs=1e-3)


@given(st.floats(0.05, 0.95))
def test_only_differences_of_cosines_count(common: float) -> None:
    """An encoder whose embeddings are all alike to some degree says the same."""
    evidence = []
    for share in (0, common):
        tables = plant(40, 2)
        for number, table in enumerate(tables):
            rows = np.stack(table["embedding"].to_numpy()) * (np.arange(DIMENSION) < DIMENSION - 1)
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            rows = np.hstack([np.sqrt(1 - share) * rows[:, :-1], np.full((len(rows), 1), np.sqrt(share))])
            column = pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), DIMENSION)
            tables = (*tables[:number], table.set_column(10, "embedding", column), *tables[number + 1 :])
        evidence.append(judge_objects(*tables).evidence)
    assert evidence[1] == pytest.approx(evidence[0], rel=0.01)
