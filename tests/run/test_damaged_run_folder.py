"""Any file of a run folder cut short or changed: a sentence, never a traceback, never another result."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Photographs, tree_bytes
from safetensors.torch import save_file

from fastcomus import InputError, Run
from fastcomus.settings import read_toml
from fastcomus.store.integrity import (
    TENSOR_SEAL,
    Damaged,
    check_zip,
    compute_tensor_digest,
    read_sealed_facts,
    read_sealed_tensors,
    seal_json,
    unseal_json,
)
from fastcomus.store.masks import read_class_map
from fastcomus.store.run_folder import RunFolder

SEEDS = 12


def damaged(content: bytes, seed: int) -> bytes:
    """Cut, a bit flipped, bytes overwritten by zeros, or something behind the end."""
    rng = random.Random(seed)
    place = rng.randrange(len(content))
    kind = seed % 4
    if kind == 0:
        return content[:place]
    changed = bytearray(content)
    if kind == 1:
        changed[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        changed[place : place + 16] = bytes(len(changed[place : place + 16]))
    else:
        changed += rng.randbytes(20)
    return bytes(changed)


# A file, and what reads it and gives something that can be compared.
READERS: dict[str, Callable[[Path], object]] = {
    "run.json": lambda run: RunFolder(run).read_state(),
    "objects/manifest.json": lambda run: RunFolder(run).read_manifest("objects"),
    "objects/part-00001.parquet": lambda run: Run(run).objects().to_pylist(),
    "objects/skipped.parquet": lambda run: RunFolder(run).read_table("objects/skipped.parquet").to_pylist(),
    "clusters/manifest.json": lambda run: RunFolder(run).read_manifest("clusters"),
    "clusters/clusters.parquet": lambda run: RunFolder(run).read_table("clusters/clusters.parquet").to_pylist(),
    "clusters/centres.npy": lambda run: RunFolder(run).read_array("clusters/centres.npy").tolist(),
    "clusters/eigenmaps.npy": lambda run: RunFolder(run).read_array("clusters/eigenmaps.npy").tolist(),
    "iteration-0/masks/05.png.png": lambda run: read_class_map(RunFolder(run), "iteration-0/masks/05.png.png").tolist(),
    "iteration-1/manifest.json": lambda run: RunFolder(run).read_manifest("iteration-1"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_told_or_reads_as_before(name: str, run_copy: Path) -> None:
    read, file = READERS[name], run_copy / name
    whole, expected = file.read_bytes(), read(run_copy)
    sentences = []
    for seed in range(SEEDS):
        file.write_bytes(damaged(whole, seed))
        try:
            assert read(run_copy) == expected  # zeros over zeros, for instance
        except InputError as error:
            sentences.append(str(error))
    assert len(sentences) >= SEEDS * 2 // 3
    assert all("\n" not in one and ("cannot be" in one or "is not" in one) for one in sentences)


def test_a_damaged_network_is_told(run_copy: Path, photographs: Photographs) -> None:
    file = run_copy / "iteration-2/segmenter.safetensors"
    whole = file.read_bytes()
    for seed in range(3):
        file.write_bytes(damaged(whole, seed))
        with pytest.raises(InputError, match=r"segmenter\.safetensors"):
            Run(run_copy).predict(photographs.images, run_copy / "predictions")


def test_embed_mends_a_damaged_part(run_copy: Path, photographs: Photographs) -> None:
    before = tree_bytes(run_copy)
    part = run_copy / "objects/part-00001.parquet"
    for seed in (1, 2):
        part.write_bytes(damaged(before["objects/part-00001.parquet"], seed))
        Run(run_copy).embed(photographs.images)
        assert tree_bytes(run_copy) == before


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    torch.save({"weights": torch.arange(1000.0)}, file)
    check_zip(file)
    whole = bytearray(file.read_bytes())
    place = whole.find(np.float32(500).tobytes())
    whole[place] ^= 1
    file.write_bytes(whole)
    torch.load(file, weights_only=True)  # which sees nothing
    with pytest.raises(Damaged):
        check_zip(file)


@pytest.mark.parametrize("is_alone", [False, True])
def test_tensors_carry_a_digest_of_themselves(is_alone: bool, tmp_path: Path) -> None:
    """In a JSON object with other facts, or alone, as networks had it at first."""
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    file = tmp_path / "network.safetensors"
    facts = {TENSOR_SEAL: compute_tensor_digest(tensors)} | ({} if is_alone else {"k": 3})
    metadata = facts if is_alone else {"about": json.dumps(facts)}
    save_file(tensors, file, metadata)
    assert read_sealed_facts(file) == facts
    assert torch.equal(read_sealed_tensors(file)["a"], tensors["a"])
    save_file({**tensors, "b": torch.tensor(2)}, file, metadata)
    with pytest.raises(Damaged):
        read_sealed_tensors(file)
    assert (
        len({compute_tensor_digest(t) for t in (tensors, {"a": tensors["a"]}, {**tensors, "a": torch.zeros(3, 2)})})
        == 3
    )


def test_a_seal_fits_its_content_alone() -> None:
    value = {"name": "caf\udce9", "numbers": {1: 0.1, 10: [1, None]}, "k": 3}
    stored = json.loads(json.dumps(seal_json(value)))
    assert unseal_json(stored)["k"] == 3
    for changed in ({**stored, "k": 4}, {**stored, "more": 1}, {"k": 3}):
        with pytest.raises(Damaged):
            unseal_json(changed)


def test_an_older_folder_is_told(run_copy: Path) -> None:
    (run_copy / "run.json").write_text('{"format": 1, "images": "", "config": {}}')
    with pytest.raises(InputError, match="was written in format 1 and this fastcomus reads format 3"):
        Run(run_copy)


def test_damaged_settings_are_told(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    for content in (b"[embed", b"\xff\xfe", b"k = \n", b"a = 1\na = 2\n"):
        file.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read_toml(file)


def test_a_copied_folder_is_as_good(run_copy: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run_copy, tmp_path / "copy"))
    assert Run(copy).cluster().labels.tolist() == Run(run_copy).cluster().labels.tolist()
