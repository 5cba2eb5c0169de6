"""Export of a segmenter as an ONNX file, for programs without torch."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fastcomus.clusters.names import ClusterNames
from fastcomus.errors import InputError
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.segmentation.segmenter import Segmenter

OPSET = 18
_NEEDED = ("onnx", "onnxscript")


class LabelledImages(nn.Module):
    """The exported graph: images to labels and logits."""

    class_of_label: torch.Tensor

    def __init__(self, segmenter: Segmenter, names: ClusterNames) -> None:
        """Copy a network in eval mode on the CPU, and prepare the copy for tracing; `names`: classes for the labels."""
        super().__init__()
        self.segmenter = prepare_for_tracing(segmenter)
        self.label_type = torch.uint8 if len(names.classes) <= 256 else torch.int32
        self.is_named = bool(names.given)
        self.register_buffer("class_of_label", torch.from_numpy(names.class_of_label.astype(np.int64)))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Label images (B, 3, H, W) uint8.

        Returns:
            Labels (B, H, W), uint8 or, where there are more than 256, int32: classes where clusters were named, else 0
            for background and c + 1 for cluster c. And logits (B, k + 1, h, w) float32, of which i lies at pixel i *
            output stride.
        """
        logits = self.segmenter(images)
        wide = functional.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)
        labels = wide.argmax(1)
        if self.is_named:
            labels = self.class_of_label[labels]
        return labels.to(self.label_type), logits


def prepare_for_tracing(segmenter: Segmenter) -> Segmenter:
    """Copy a network and make its activations work out of place, which are traced many times faster."""
    made = with_folded_batch_norms(copy.deepcopy(segmenter), torch.uint8)
    for module in made.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return made


def check_onnx() -> None:
    """Check that the packages that write ONNX files are installed, else InputError."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export onnx needs {' and '.join(missing)}; run pip install {' '.join(missing)}.")


def write_onnx(segmenter: Segmenter, names: ClusterNames, facts: dict[str, str], path: Path) -> None:
    """Write a network as an ONNX file of free batch size, height and width.

    The scaling of pixels by mean and standard deviation is part of the graph. Height and width of the images must be
    n * output stride + 1 pixels, as `align_side` chooses them; labels of other sizes are shifted.

    Args:
        segmenter: The network, in eval mode on the CPU.
        names: Names of the clusters; where some are named, the file's metadata lists the classes as JSON.
        facts: Further metadata of the file.
        path: The file to write.
    """
    import onnx

    side = 8 * segmenter.output_stride + 1
    example = torch.zeros(2, 3, side, side + segmenter.output_stride, dtype=torch.uint8)
    least = segmenter.output_stride + 1
    height, width = torch.export.Dim("height", min=least), torch.export.Dim("width", min=least)
    free = {0: torch.export.Dim("batch", min=1), 2: height, 3: width}
    torch_logger = logging.getLogger("torch.onnx")
    level = torch_logger.level
    torch_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                LabelledImages(segmenter, names).eval(),
                (example,),
                input_names=["images"],
                output_names=["labels", "logits"],
                dynamic_shapes=(free,),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        torch_logger.setLevel(level)
    assert program is not None
    model = program.model_proto
    classes = {"classes": json.dumps(names.classes, ensure_ascii=False)} if names.given else {}
    onnx.helper.set_model_props(model, {**facts, **classes})
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer, *model.functions):
        del part.metadata_props[:]  # source lines of the exporting program
    path.write_bytes(model.SerializeToString(deterministic=True))
