"""The same images as a folder, in tars and behind URLs give the same objects, masks, report and exports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from conftest import make_photographs, tree_bytes
from crash_stages import SMALL
from hostile_tars import packed
from image_server import ImageServer
from PIL import Image

from fastcomus.errors import InputError
from fastcomus.run.contents import read_skipped
from fastcomus.run.run import Run

IMAGES = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_photographs(tmp_path_factory.mktemp("sources"), IMAGES).images
    (made / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return made


def in_shards(images: Path, place: Path) -> str:
    place.mkdir()
    files = sorted(images.iterdir())
    for number in range(3):
        part = files[4 * number : 4 * number + 4]
        (place / f"s-{number:03d}.tar").write_bytes(packed(*((file.name, file.read_bytes()) for file in part)))
    return str(place / "s-{000..002}.tar")


def behind_a_server(images: Path, place: Path) -> str:
    return ImageServer(images).address


def tars_behind_a_server(images: Path, place: Path) -> str:
    in_shards(images, place)
    return f"{ImageServer(place).address}/s-{{000..002}}.tar"


def in_a_bucket(images: Path, place: Path) -> str:
    for file in images.iterdir():
        fsspec.filesystem("memory").pipe(f"/bucket/images/{file.name}", file.read_bytes())
    return "memory://bucket/images"


STORES: dict[str, Callable[[Path, Path], str]] = {
    "tars": in_shards,
    "web": behind_a_server,
    "tars on the web": tars_behind_a_server,
    "bucket": in_a_bucket,
}


SETTINGS = {**SMALL, "embed": {**SMALL["embed"], "shard_images": 4}}  # as many as lie in a tar


def opened(folder: Path) -> Run:
    return Run(folder, preset="offline", settings=SETTINGS, device="cpu", workers=2)


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every stage on the folder."""
    run = opened(tmp_path_factory.mktemp("plain") / "run")
    run.embed(images)
    all_other_stages(run, str(images))
    return run


def all_other_stages(run: Run, images: str) -> None:
    run.cluster(k=3)
    again = opened(run.folder.path)  # what follows takes the images from run.json
    again.train(iterations=1)
    again.predict(images, overlay=True)
    again.report()
    again.export("coco")
    again.export("voc", transfer="copy")


PARTS = ("tars", "web")  # of "tars on the web"; reading from one of the two alone is tried beside this


@pytest.mark.parametrize("store", [pytest.param(one, marks=[pytest.mark.slow] * (one in PARTS)) for one in STORES])
def test_every_stage_gives_what_a_folder_of_files_gives(
    store: str, images: Path, plain: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FASTCOMUS_OFFLINE")
    address = STORES[store](images, tmp_path / "stored")
    run = opened(tmp_path / "run")
    run.embed(address)
    ours, theirs = run.objects(), plain.objects()
    last = [name.rpartition("/")[2] for name in ours["image"].to_pylist()]
    assert last == theirs["image"].to_pylist()
    assert ours.drop(["image"]) == theirs.drop(["image"])
    assert [(row["image"].rpartition("/")[2], row["reason"]) for row in read_skipped(run.folder).to_pylist()] == [
        ("broken.png", "truncated")
    ]
    state = json.loads((run.folder.path / "run.json").read_bytes())
    assert state["images"] == address
    before = tree_bytes(run.folder.path)
    opened(run.folder.path).embed(address)  # up to date
    assert tree_bytes(run.folder.path) == before

    all_other_stages(run, address)
    for stage in ("iteration-0", "iteration-1"):
        masks = by_last_name(run.folder.path / stage / "masks")
        assert len(masks) == IMAGES and masks == by_last_name(plain.folder.path / stage / "masks")
    for folder in ("predictions", "exports/iteration-1-coco/images"):
        ours_in, theirs_in = (by_last_name(one.folder.path / folder, ".png", ".jpg") for one in (run, plain))
        assert ours_in == theirs_in and len(ours_in) >= IMAGES
    assert len(list((run.folder.path / "exports/iteration-1-voc").rglob("*.jpg"))) == IMAGES
    assert by_last_name(run.folder.path / "report/pictures") == by_last_name(plain.folder.path / "report/pictures")
    assert not [path for path in tmp_path.iterdir() if path.name not in ("stored", "run")]


def by_last_name(folder: Path, *endings: str) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and (not endings or path.suffix in endings)]
    assert len({path.name for path in files}) == len(files) or endings
    return {path.name: path.read_bytes() for path in files}


def test_training_ends_with_a_sentence_where_the_tars_are_gone(images: Path, tmp_path: Path) -> None:
    address = in_shards(images, tmp_path / "stored")
    run = opened(tmp_path / "run")
    run.embed(address)
    run.cluster(k=3)
    (tmp_path / "stored").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="no longer there; put them back"):
        opened(tmp_path / "run").train(iterations=1)
    (tmp_path / "elsewhere").rename(tmp_path / "stored")
    for tar in (tmp_path / "stored").iterdir():
        tar.write_bytes(packed(("other.png", b"x")))
    with pytest.raises(
        InputError, match=r"s-000.tar/00.png can no longer be read .*the archive (does not hold it|changed)"
    ):
        opened(tmp_path / "run").train(iterations=1)


def test_a_changed_tar_is_embedded_again_and_no_other(images: Path, tmp_path: Path) -> None:
    address = in_shards(images, tmp_path / "stored")
    opened(tmp_path / "run").embed(address)
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/objects").glob("part-*")}
    files = sorted(images.iterdir())[:4]
    darker = tmp_path / "darker.png"
    Image.fromarray(np.asarray(Image.open(files[0])) // 2).save(darker)
    contents = [darker.read_bytes(), *(file.read_bytes() for file in files[1:])]
    names = [file.name for file in files]
    (tmp_path / "stored/s-000.tar").write_bytes(packed(*zip(names, contents, strict=True)))
    opened(tmp_path / "run").embed(address)
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run/objects").glob("part-*")}
    assert [name for name in sorted(now) if now[name] != parts[name]] == ["part-00000.parquet"]
