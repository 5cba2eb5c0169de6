"""What runs trained networks: torch, or OpenVINO, about twice as fast on a CPU and the same to rounding."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastcomus.config import INFERENCES
from fastcomus.errors import InputError, get_first_line, suggest_names

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger("fastcomus")
_told: set[str] = set()  # networks of which it was said that torch runs them


def check_inference(wanted: str) -> None:
    """Raise InputError unless `wanted` is "auto", "torch", or "openvino" and that is installed; loads nothing."""
    if wanted not in INFERENCES:
        raise InputError(
            f"--inference must be one of {', '.join(INFERENCES)}; got {wanted!r}{suggest_names(wanted, INFERENCES)}"
        )
    if wanted == "openvino" and not has_openvino():
        raise InputError("--inference openvino needs openvino, which is not installed; run pip install openvino.")


def check_inference_device(wanted: str, device: str) -> None:
    """Raise InputError if OpenVINO was asked for and `device`, "cuda:0" for instance, is no CPU."""
    if wanted == "openvino" and device != "cpu":
        raise InputError(
            f"--inference openvino runs on a CPU and the device is {device}; add --device cpu, or leave it out."
        )


def has_openvino() -> bool:
    """Tell whether OpenVINO is installed, without loading it."""
    return importlib.util.find_spec("openvino") is not None


def choose_inference(wanted: str, device: str, images: int, worth_it_from: int) -> str:
    """Choose what runs a network.

    Args:
        wanted: "auto", "torch" or "openvino", checked by `check_inference`.
        device: Where the network runs, "cpu" or "cuda:0" for instance.
        images: How many images it will see, those included that an interrupted command has done.
        worth_it_from: The number of images whose gain makes up for the two seconds that a translation takes.

    Returns:
        "torch" or "openvino".

    Raises:
        InputError: OpenVINO was asked for and the device is no CPU.
    """
    check_inference_device(wanted, device)
    if wanted == "auto":
        return "openvino" if device == "cpu" and images >= worth_it_from and has_openvino() else "torch"
    return wanted


def compile_by_openvino(
    network: nn.Module, example: torch.Tensor, precision: str, has_one_size: bool, name: str
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """Translate a network for OpenVINO; where that cannot run it, say so once.

    Args:
        network: In eval mode on the CPU; takes images (N, 3, H, W) uint8, and gives one tensor.
        example: Such images, on which the two are compared.
        precision: "float32" or "bf16".
        has_one_size: Whether all images will be as large as `example`.
        name: What the log calls it.

    Returns:
        A function from images (N, 3, H, W) uint8 to what the network makes of them, float32, or None.
    """
    from fastcomus.networks.openvino_network import OpenVinoNetwork

    try:
        return OpenVinoNetwork(network, example, precision, has_one_size)
    except Exception as error:  # of a network that it does not know it raises whatever it came upon
        if name not in _told:
            _told.add(name)
            log.warning("OpenVINO cannot run %s, so torch does: %s", name, get_first_line(error))
        return None
