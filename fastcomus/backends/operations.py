"""What does each heavy operation on a device, and why, for `doctor`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastcomus.backends.gpu import is_installed


@dataclass(frozen=True)
class Operation:
    """What does an operation, `by`, on a device, and `why`, or what would do it better."""

    name: str
    by: str
    why: str


def list_operations(on_gpu: bool, has: Callable[[str], bool] = is_installed) -> list[Operation]:
    """List the operations of a clustering and of a labelling, in the order in which they come.

    Args:
        on_gpu: Whether the device is a CUDA device.
        has: Tells whether a library is installed; see `is_installed`.
    """
    if not on_gpu:
        return [
            _name_networks_on_cpu(has),
            Operation("JPEG files, objects, crops, class maps", "torchvision, Pillow, NumPy", ""),
            Operation("neighbours", "NumPy; numba, torch and FAISS among many rows", "exact up to 40,000 rows"),
            Operation("eigenvectors", "SciPy and NumPy; torch beyond 100,000 rows", ""),
            Operation("k-means; QR, filter", "scikit-learn; NumPy", ""),
            Operation("confusion", "NumPy", ""),
        ]
    kernels = "CuPy: kernels/*.cu" if has("cupy") else "torch"
    one_launch = "one launch for a batch" if has("cupy") else "CuPy would launch one kernel for a batch"
    index = "cuVS (CAGRA)" if has("cuvs") else "FAISS (inverted lists)" if has("faiss") else "torch, all pairs"
    seen = (
        "to the recall asked for; else torch, all pairs" if index != "torch, all pairs" else "cuVS or FAISS-GPU would"
    )
    behind = "cuML stands behind it" if has("cuml") else "the block solver, for graphs of more than 5,000 rows"
    return [
        Operation("networks", "torch", "bf16 where the card has it and the settings allow it"),
        Operation("JPEG files", "nvJPEG, through torchvision", "other formats on the CPU"),
        Operation("priors without weights", "torch, in batches", "train-saliency looks through the CPU's"),
        Operation("masks, boxes, run lengths, crops", kernels, one_launch),
        Operation("class maps", kernels, one_launch),
        Operation("neighbours", "torch, all pairs", "bf16, ranked anew in float32; all cards share them"),
        Operation("neighbours, beyond a million rows", index, seen),
        Operation("eigenvectors", "torch", behind),
        Operation("k-means", "cuML" if has("cuml") else "torch", "its result is checked" if has("cuml") else ""),
        Operation("graph, QR, filter", "torch", "they stay on the device; a run folder's graph comes down once"),
        Operation("confusion", "torch", ""),
    ]


def _name_networks_on_cpu(has: Callable[[str], bool]) -> Operation:
    if has("openvino"):
        return Operation("networks", "torch; OpenVINO where many images are labelled or embedded", "twice as fast")
    return Operation("networks", "torch", "OpenVINO would label and embed twice as fast: pip install openvino")
