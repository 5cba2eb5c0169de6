"""Reading checkpoints without executing code in them, and comparing them with a network."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError, get_first_line, suggest_path
from fastcomus.store.integrity import read_sealed_tensors

# What training programs keep a state dict under; the averaged ones first, which are what such a program publishes.
_WRAPPERS = ("net", "state_dict_ema", "model_ema", "state_dict", "model", "teacher")
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
_NAMED_KEYS = 3


def read_checkpoint(file: Path, what: str = "") -> dict[str, Any]:
    """Read the tensors of a safetensors or PyTorch file; no code in it is executed.

    From the file of a training program only the state dict is taken. Prefixes that wrappers add to names are removed,
    and of a backbone with a head only the backbone is kept.

    Args:
        file: The checkpoint.
        what: What error messages call it; by default its path.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        InputError: The file is missing, is no readable checkpoint, or holds no tensors.
    """
    what = what or str(file)
    if not file.is_file():
        raise InputError(f"there is no file {what}{suggest_path(file) or '; give a file of weights.'}")
    try:
        tensors = _extract_tensors(_open_checkpoint(file))
    except Exception as error:  # the kinds that torch and safetensors raise are not documented
        reason = get_first_line(error, 100)
        # Torch's own words are about turning the safety off; a lone number or name is that of a byte in a pickle.
        if isinstance(error, pickle.UnpicklingError) or " " not in reason:
            reason = "it is no file of tensors, or holds more than tensors"
        raise InputError(f"{what} is no checkpoint that can be read ({reason}); give a file of weights.") from error
    if not tensors:
        raise InputError(f"{what} holds no tensors; give a file of weights.")
    return _strip_prefixes(tensors)


def is_safetensors(file: Path) -> bool:
    """Tell from its first bytes (the length of a JSON object, then the object) whether a file is a safetensors file."""
    with file.open("rb") as stream:
        head = stream.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size


def load_exactly(network: Any, state: dict[str, Any], what: str) -> None:
    """Load a state dict whose names and shapes must be exactly those of the network.

    Args:
        network: A torch module, changed in place.
        state: Tensors by name.
        what: What error messages call the source of `state`.

    Raises:
        InputError: Tensors are missing, extra or of another shape; the message names them.
    """
    check_exactly(network, state, what)
    network.load_state_dict(state)


def check_exactly(network: Any, state: dict[str, Any], what: str) -> None:
    """Check that a state dict has exactly the names and shapes of a network.

    Args:
        network: A torch module.
        state: Tensors by name.
        what: What error messages call the source of `state`.

    Raises:
        InputError: Tensors are missing, extra or of another shape; the message names them.
    """
    told = describe_differences(network.state_dict(), state)
    if told:
        raise InputError(f"{what} holds another network than this one: of its tensors {told}. Give its own.")


def describe_differences(own: dict[str, Any], given: dict[str, Any]) -> str:
    """Describe how the names and shapes of `given` differ from those of `own`.

    Args:
        own: Tensors of the network, by name.
        given: Tensors of the checkpoint, by name.

    Returns:
        For example "2 missing (a, b); 1 extra (c)"; "" where nothing differs.
    """
    wrong = {
        "missing": [key for key in own if key not in given],
        "extra": [key for key in given if key not in own],
        "of another shape": [key for key in own if key in given and own[key].shape != given[key].shape],
    }
    return "; ".join(
        f"{len(keys)} {kind} ({', '.join(keys[:_NAMED_KEYS])}{', ...' * (len(keys) > _NAMED_KEYS)})"
        for kind, keys in wrong.items()
        if keys
    )


def _open_checkpoint(file: Path) -> Any:
    if is_safetensors(file):
        return read_sealed_tensors(file)
    import torch

    return torch.load(file, map_location="cpu", weights_only=True)


def _extract_tensors(found: Any) -> dict[str, Any]:
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(found.get(wrapper), dict):
            found = found[wrapper]
            break
    tensors = {str(key): value for key, value in found.items() if torch.is_tensor(value)}
    if tensors:
        return tensors
    # One state dict per part, as FOUND's {"decoder": {"weight": ...}}.
    parts = {str(key): part for key, part in found.items() if isinstance(part, dict)}
    return {f"{part}.{key}": value for part in parts for key, value in parts[part].items() if torch.is_tensor(value)}


def _strip_prefixes(tensors: dict[str, Any]) -> dict[str, Any]:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    backbone = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
    is_backbone_with_head = backbone and all(key.startswith(("backbone.", "head.")) for key in tensors)
    return backbone if is_backbone_with_head else tensors
