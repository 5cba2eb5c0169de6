"""Images to rows on made images with planted objects: every column checked by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from fastcomus.backends.choose import select
from fastcomus.config import EmbedConfig
from fastcomus.errors import InputError
from fastcomus.images.found import UnreadableImage
from fastcomus.networks.encoders import Encoder, load_encoder
from fastcomus.objects.embedding import ObjectShard, embed_shards
from fastcomus.objects.saliency.mask_folder import MaskFolder
from fastcomus.objects.saliency.network_map import NetworkMap, SaliencyNetwork
from fastcomus.objects.saliency.patch_methods import load_patch_method
from fastcomus.store.objects_table import decode_mask, make_object_schema

CPU = select("cpu")
CONFIG = EmbedConfig(encoder="efficientnet-lite0", crop_size=32, min_area=20, embed_batch=3, theta="0.5")
HEIGHT, WIDTH = 30, 40
# Rectangles y0 x0 y1 x1 with their saliency, by image.
PLANTED: dict[str, list[tuple[int, int, int, int, float]]] = {
    "a.png": [(2, 3, 20, 13, 0.9)],
    "b.png": [(0, 0, 30, 40, 0.75), (25, 35, 30, 40, 1.0)],
    "c.png": [],
    "d.png": [(1, 1, 3, 3, 0.9)],
    "e.png": [(5, 5, 25, 25, 0.6), (5, 5, 6, 8, 0.9)],
    "f.png": [],
    "g.png": [(10, 0, 20, 40, 0.8)],
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("efficientnet-lite0", "", CONFIG.crop_size, "float32", CPU.device)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in PLANTED:
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(root / name)
    (root / "broken.png").write_bytes(b"this is no image")
    (root / "empty.png").write_bytes(b"")
    return root


def planted_maps(name: str, pixels: np.ndarray) -> np.ndarray:
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    maps = np.zeros((len(PLANTED[name]), HEIGHT, WIDTH), np.float32)
    for saliency, (y0, x0, y1, x1, value) in zip(maps, PLANTED[name], strict=True):
        saliency[y0:y1, x0:x1] = value
    return maps


def embed(
    folder: Path, shards: Sequence[Sequence[str]], encoder: Encoder, config: EmbedConfig = CONFIG, workers: int = 2
) -> list[ObjectShard]:
    done: list[int] = []
    made = list(embed_shards(folder, shards, config, planted_maps, encoder, CPU, workers, done.append))
    assert sum(done) == sum(len(shard) for shard in shards) and len(made) == len(shards)
    return made


def test_rows_are_the_planted_objects(folder: Path, encoder: Encoder) -> None:
    (shard,) = embed(folder, [list(PLANTED)], encoder)
    assert shard.objects.schema == make_object_schema(1280)
    rows = shard.objects.to_pylist()
    expected = [(name, one) for name, all_of in PLANTED.items() for one in all_of]
    expected = [(name, (y0, x0, y1, x1, v)) for name, (y0, x0, y1, x1, v) in expected if (y1 - y0) * (x1 - x0) >= 20]
    assert len(rows) == len(expected) == 5
    for row, (name, (y0, x0, y1, x1, saliency)) in zip(rows, expected, strict=True):
        assert (row["image"], row["width"], row["height"]) == (name, WIDTH, HEIGHT)
        assert [row[side] for side in ("x0", "y0", "x1", "y1")] == [x0, y0, x1, y1]
        assert row["area"] == (y1 - y0) * (x1 - x0) and row["score"] == pytest.approx(saliency)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[y0:y1, x0:x1] = True
        assert (decode_mask(row["mask"], HEIGHT, WIDTH) == mask).all()
        crop = CPU.crop_resize(CPU.decode(str(folder / name), 10**6), np.array([[x0, y0, x1, y1]]), CONFIG.crop_size)
        by_hand = encoder(crop)[0].numpy()
        assert np.abs(np.array(row["embedding"]) - by_hand).max() < 1e-4 * np.abs(by_hand).max()


def test_images_without_a_row_have_their_reason(folder: Path, encoder: Encoder) -> None:
    (shard,) = embed(folder, [["broken.png", "c.png", "d.png", "empty.png", "missing.png"]], encoder)
    assert len(shard.objects) == 0 and shard.objects.schema == make_object_schema(1280)
    told = {row["image"]: (row["reason"], row["width"], row["height"]) for row in shard.skipped.to_pylist()}
    assert told == {
        "broken.png": ("unreadable", 0, 0),
        "c.png": ("no salient region", WIDTH, HEIGHT),
        "d.png": ("smaller than min_area", WIDTH, HEIGHT),
        "empty.png": ("empty file", 0, 0),
        "missing.png": ("lost while reading", 0, 0),
    }
    (limited,) = embed(folder, [["a.png"]], encoder, replace(CONFIG, max_pixels=HEIGHT * WIDTH - 1))
    assert limited.skipped["reason"].to_pylist() == ["too large"]


def test_workers_do_not_change_a_byte(folder: Path, encoder: Encoder) -> None:
    names = [*PLANTED, "broken.png"]
    shards = [names[:3], names[3:4], names[4:]]
    reference = embed(folder, shards, encoder, workers=1)
    for workers in (2, 5):
        for one, other in zip(reference, embed(folder, shards, encoder, workers=workers), strict=True):
            assert one.objects.equals(other.objects) and one.skipped.equals(other.skipped)


def test_shards_do_not_depend_on_their_neighbours(folder: Path, encoder: Encoder) -> None:
    names = list(PLANTED)
    shards = [names[:2], names[2:5], names[5:]]
    together = embed(folder, shards, encoder)
    for shard, one in zip(shards, together, strict=True):
        (alone,) = embed(folder, [shard], encoder)
        assert alone.objects.equals(one.objects) and alone.skipped.equals(one.skipped)
    assert pa.concat_tables([one.objects for one in together])["image"].to_pylist() == [
        "a.png",
        "b.png",
        "b.png",
        "e.png",
        "g.png",
    ]


def test_batches_are_full_whatever_was_skipped(folder: Path, encoder: Encoder) -> None:
    sizes: list[int] = []

    class Counting:
        dimension = encoder.dimension

        def __call__(self, crops: torch.Tensor) -> torch.Tensor:
            sizes.append(len(crops))
            return encoder(crops)

    embed(folder, [["c.png", "a.png", "f.png", "b.png", "d.png", "e.png", "g.png"]], Counting())  # type: ignore[arg-type]
    assert sizes == [3, 2]
    sizes.clear()
    embed(folder, [["c.png", "f.png"]], Counting())  # type: ignore[arg-type]
    assert sizes == []


def test_compiled_networks_see_batches_of_one_size(
    folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled takes minutes; tests/networks/test_compiled_batches.py shows that it gives the same."""
    sizes: list[int] = []

    def compiled(function: Callable[[torch.Tensor], torch.Tensor], **_: object) -> Callable:
        return lambda batch: [sizes.append(len(batch)), function(batch)][1]

    plain = embed(folder, [list(PLANTED)], encoder)[0].objects
    monkeypatch.setattr(torch, "compile", compiled)
    (shard,) = embed(folder, [list(PLANTED)], encoder, replace(CONFIG, compile=True))
    assert sizes == [3, 3]  # of five objects
    rows = [np.array(table["embedding"].to_pylist()) for table in (plain, shard.objects)]
    assert np.abs(rows[0] - rows[1]).max() < 1e-4 * np.abs(rows[0]).max()
    assert shard.objects.drop(["embedding"]).equals(plain.drop(["embedding"]))

    config = replace(CONFIG, compile=True, saliency="tokencut", encoder="efficientnet-lite0", saliency_size=64)
    for network in (
        NetworkMap(SaliencyNetwork("efficientnet-lite0", 65), "float32", is_compiled=True),
        load_patch_method("tokencut", config, CPU.device),
    ):
        sizes.clear()
        list(embed_shards(folder, [list(PLANTED)], config, network, encoder, CPU, 2, lambda _: None))
        assert sizes.count(network.batch) == 1  # of seven images; the others are the encoder's


def test_normalized_rows_have_unit_length_and_the_same_direction(folder: Path, encoder: Encoder) -> None:
    names = ["a.png", "b.png"]
    (plain,), (unit,) = (embed(folder, [names], encoder, replace(CONFIG, normalize=n)) for n in (False, True))
    rows, units = (np.array(shard.objects["embedding"].to_pylist()) for shard in (plain, unit))
    assert np.allclose(np.linalg.norm(units, axis=1), 1, atol=1e-6)
    assert np.allclose(units * np.linalg.norm(rows, axis=1, keepdims=True), rows, atol=1e-4)


# -- masks of one's own -----------------------------------------------------------------------------------------


def test_masks_are_read_from_a_folder(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:9, 4:7] = 1  # above 0 is object, however dark
    (tmp_path / "sub").mkdir()
    palette = Image.fromarray(mask, mode="P")
    palette.putpalette([0, 0, 0, 0, 0, 0])  # the index counts, not the colour
    palette.save(tmp_path / "sub" / "a.png")
    Image.fromarray(mask * 255).save(tmp_path / "b.jpg.png")
    Image.fromarray(np.zeros_like(mask)).save(tmp_path / "b.png")  # the whole name goes before the stem
    Image.fromarray(np.dstack([mask * 0, mask * 9, mask * 0])).save(tmp_path / "c.png")
    Image.fromarray(np.dstack([mask * 9, mask * 9, mask * 9, mask * 0 + 255])).save(tmp_path / "d.png")
    Image.fromarray(mask.astype(np.uint16) * 700).save(tmp_path / "e.png")
    proposer = MaskFolder(tmp_path)
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for name in ("sub/a.jpg", "b.jpg", "c.jpg", "d.tif", "e.png"):
        maps = proposer(name, pixels)
        assert maps.dtype == bool and (maps == (mask > 0)[None]).all(), name


def test_bad_masks_are_told(tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    Image.new("L", (WIDTH, HEIGHT + 1)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    for name, reason, detail in (
        ("a.jpg", "mask of another size", "a.png is 40 x 31, its image 40 x 30"),
        ("b.jpg", "unreadable mask", "b.png"),
    ):
        with pytest.raises(UnreadableImage) as raised:
            MaskFolder(tmp_path)(name, pixels)
        assert raised.value.reason == reason and detail in raised.value.detail
    (tmp_path / "none").mkdir()
    for folder, told in (("nonee", "does not exist; did you mean .*/none"), ("a.png", "is not a folder")):
        with pytest.raises(InputError, match=told):
            MaskFolder(tmp_path / folder)
    with pytest.raises(InputError, match="holds no PNG"):
        MaskFolder(tmp_path / "none")
