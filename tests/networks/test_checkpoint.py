"""Reading checkpoints in all their wrappings, refusing what is none, and telling networks apart by their tensors."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from weight_server import Malicious

from fastcomus.errors import InputError
from fastcomus.networks.checkpoint import describe_differences, load_exactly, read_checkpoint

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: tensor for key, tensor in STATE.items()}


WRAPPINGS = {
    "bare": STATE,
    "net": {"net": STATE},
    "state_dict with an epoch": {"state_dict": STATE, "epoch": 3},
    "averaged beside plain": {"model": prefixed("plain."), "model_ema": STATE},
    "parallel": {"model": prefixed("module.")},
    "parallel and compiled": prefixed("module._orig_mod."),
    "backbone": prefixed("backbone."),
    "DINO's teacher": {"teacher": {**prefixed("module.backbone."), "module.head.mlp": torch.zeros(3)}},
    "one state dict per part": {"conv": {"weight": STATE["conv.weight"], "bias": STATE["conv.bias"]}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_state_dict_is_found_in_its_wrapping(wrapping: str, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[wrapping], tmp_path / "state.pth")
    found = read_checkpoint(tmp_path / "state.pth")
    assert sorted(found) == sorted(STATE) and all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_names_that_only_begin_like_a_wrapper_stay(tmp_path: Path) -> None:
    state = {"backbone.weight": torch.zeros(2), "decoder.weight": torch.ones(2), "module.weight": torch.ones(1)}
    torch.save(state, tmp_path / "state.pth")
    assert sorted(read_checkpoint(tmp_path / "state.pth")) == sorted(state)


@pytest.mark.parametrize("name", ["state.safetensors", "state.pth", "state"])
def test_safetensors_are_known_by_what_they_hold(name: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "made")
    shutil.move(tmp_path / "made", tmp_path / name)
    found = read_checkpoint(tmp_path / name)
    assert sorted(found) == sorted(STATE) and torch.equal(found["conv.weight"], STATE["conv.weight"])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["plain pickle", "torch.save", "torch.save, old format"])
def test_pickles_are_never_executed(form: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Malicious(trap)))
    trap.rmdir()  # the trap works
    payload = {"net": {"conv.weight": Malicious(trap)}, **STATE}
    file = tmp_path / "own.pth"
    if form == "plain pickle":
        file.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=form == "torch.save")
    with pytest.raises(InputError, match=r"own\.pth is no checkpoint that can be read") as raised:
        read_checkpoint(file)
    assert not trap.exists() and "\n" not in str(raised.value) and "weights_only" not in str(raised.value)


@pytest.mark.parametrize(
    "body", [b"", b"<html>please log in</html>", b"PK\x03\x04 no archive", b"\xff" * 40, b"hi there"]
)
def test_what_is_no_checkpoint_is_refused(body: bytes, tmp_path: Path) -> None:
    for name in ("page.pth", "page.safetensors"):
        (tmp_path / name).write_bytes(body)
        with pytest.raises(
            InputError, match=rf"{name} is no checkpoint that can be read .*give a file of weights"
        ) as raised:
            read_checkpoint(tmp_path / name)
        assert not re.search(r"\(\S+\)", str(raised.value))


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "half.pth")
    save_file(STATE, tmp_path / "half.safetensors")
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(InputError, match="no checkpoint that can be read"):
            read_checkpoint(file)


def test_absent_and_empty_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*absent\.pth"):
        read_checkpoint(tmp_path / "absent.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(InputError, match="holds no tensors"):
        read_checkpoint(tmp_path / "epoch.pth")


def test_differences_name_the_first_tensors_of_each_kind() -> None:
    other = {f"more{n}": torch.zeros(1) for n in range(5)}
    assert describe_differences(STATE, STATE) == ""
    assert describe_differences(STATE, {**STATE, **other}) == "5 extra (more0, more1, more2, ...)"
    told = describe_differences(STATE, {"conv.weight": torch.zeros(3, 2), "other": torch.zeros(1)})
    assert told == "1 missing (conv.bias); 1 extra (other); 1 of another shape (conv.weight)"


def test_exact_loading_takes_all_or_nothing() -> None:
    network = torch.nn.Sequential()
    network.add_module("conv", torch.nn.Linear(3, 2))
    load_exactly(network, STATE, "own.pth")
    assert torch.equal(network.conv.weight, STATE["conv.weight"])
    with pytest.raises(InputError, match=r"own\.pth holds another network .*1 missing \(conv\.bias\)"):
        load_exactly(network, {"conv.weight": torch.zeros(2, 3)}, "own.pth")
    assert torch.equal(network.conv.weight, STATE["conv.weight"])
