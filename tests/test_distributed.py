"""The per-image stages on Ray: the files of one process, whatever the actors; bad input is told before Ray starts."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY, Photographs, make_photographs, tree_bytes

from fastcomus import InputError, Run
from fastcomus.distributed import Share, ray_engine, share_of

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra distributed is not installed")
SHARDS = {**TINY, "embed": {**TINY["embed"], "shard_images": 16}}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """Images for five shards and two windows, two of them broken."""
    made = make_photographs(tmp_path_factory.mktemp("others"), 70)
    (made.images / "00a.png").write_bytes(b"no picture")
    (made.images / "69a.jpg").write_bytes((made.images / "69.png").read_bytes()[:300])
    return made


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    """One Ray for the module, as a program has that calls ray.init itself; FASTCOMUS starts none then."""
    from fastcomus.distributed import _connected

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as actors of one core have: how many share a product can change its last bits
    with _connected(""):
        yield
    torch.set_num_threads(before)


@needs_ray
def test_embed_gives_the_bytes_of_one_process(own_ray: None, others: Photographs, tmp_path: Path) -> None:
    Run(tmp_path / "one", preset="offline", settings=SHARDS, device="cpu").embed(others.images)
    run = Run(tmp_path / "ray", preset="offline", settings=SHARDS, workers=1)
    run.embed(others.images, engine="ray")
    one = tree_bytes(tmp_path / "one")
    assert tree_bytes(tmp_path / "ray") == one and len(one) == 8
    assert len(run.folder.read_table("objects/skipped.parquet")) == 2


@needs_ray
def test_predict_gives_the_bytes_of_one_process(
    own_ray: None, finished_run: Path, others: Photographs, tmp_path: Path
) -> None:
    kinds = {"overlay": True, "probabilities": True, "predict_size": 33}
    Run(finished_run, device="cpu").predict(others.images, tmp_path / "one", **kinds)
    Run(finished_run, workers=1).predict(others.images, tmp_path / "ray", engine="ray", **kinds)
    one = tree_bytes(tmp_path / "one")
    assert tree_bytes(tmp_path / "ray") == one and len(one) == 3 * 70 + 1
