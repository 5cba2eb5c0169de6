"""A segmenter as an ONNX file, for programs without torch."""

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
from torch.nn import functional as F

from fastcomus.clusters.names import ClusterNames
from fastcomus.errors import InputError
from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.segmentation.segmenter import Segmenter

OPSET = 18
_NEEDED = ("onnx", "onnxscript")


class LabelledImages(nn.Module):
    """The exported graph: (B, 3, H, W) uint8 -> labels (B, H, W) uint8, or int32 for 256 labels or more, and logits.

    Labels are the classes that `names` makes of clusters. The logits (B, k + 1, h, w) float32 are the network's own, by
    cluster; logit i belongs to pixel i * output stride.
    """

    class_of_label: torch.Tensor

    def __init__(self, segmenter: Segmenter, names: ClusterNames) -> None:
        super().__init__()
        self.segmenter = prepare_for_tracing(segmenter)
        self.label_type = torch.uint8 if len(names.classes) <= 256 else torch.int32
        self.is_named = bool(names.given)
        self.register_buffer("class_of_label", torch.from_numpy(names.class_of_label.astype(np.int64)))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.segmenter(images)
        wide = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=True)
        labels = wide.argmax(1)
        if self.is_named:
            labels = self.class_of_label[labels]
        return labels.to(self.label_type), logits


def prepare_for_tracing(segmenter: Segmenter) -> Segmenter:
    """A copy in which nothing works in place: that would be taken apart operation by operation, slowly."""
    made = with_folded_batch_norms(copy.deepcopy(segmenter), torch.uint8)
    for module in made.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # type: ignore[assignment]
    return made


def check_onnx() -> None:
    """InputError where the packages that write ONNX are missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"export onnx needs {' and '.join(missing)}; run pip install 'fastcomus[onnx]'.")


def write_onnx(segmenter: Segmenter, names: ClusterNames, facts: dict[str, str], path: Path) -> None:
    """Write `segmenter` (eval mode, on the CPU) to `path`, with `facts` as the file's metadata, and the classes of
    `names` as a JSON list where there are any.

    Batch, height and width are free; scaling of pixels by mean and standard deviation is part of the graph. Sides must
    be n * output stride + 1 pixels, as `segmenter.align_side` gives them; others give shifted labels.
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
        del part.metadata_props[:]  # where in which program each node came from
    path.write_bytes(model.SerializeToString(deterministic=True))
