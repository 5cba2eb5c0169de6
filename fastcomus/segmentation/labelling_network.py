"""The segmenter as it labels images: its batch normalisations folded, or run by OpenVINO."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fastcomus.networks.folded_batch_norm import with_folded_batch_norms
from fastcomus.networks.inference import compile_by_openvino
from fastcomus.networks.precision import choose_precision
from fastcomus.segmentation.segmenter import Segmenter

WORTH_IT_FROM = 100  # images whose gain makes up for translating the network for OpenVINO


class AcceleratedSegmenter(nn.Module):
    """A segmenter run by something other than torch; stands in for it where images are labelled."""

    def __init__(self, run: Callable[[torch.Tensor], torch.Tensor], output_stride: int) -> None:
        super().__init__()
        self.run, self.output_stride = run, output_stride

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """See `Segmenter.forward`."""
        return self.run(images)


def prepare_segmenter(
    segmenter: Segmenter, precision: str, device: torch.device, inference: str
) -> Segmenter | AcceleratedSegmenter:
    """Prepare a segmenter for labelling.

    Args:
        segmenter: The trained network; it is put into eval mode.
        precision: "float32", "bf16" or "auto".
        device: Where it will run.
        inference: "torch" or "openvino", which runs on a CPU alone.

    Returns:
        Something that gives the same logits sooner.
    """
    if inference == "openvino" and device.type == "cpu":
        computed_in = choose_precision(precision, device)
        side = 8 * segmenter.output_stride + 1
        noise = torch.randint(
            0, 256, (1, 3, side, side + segmenter.output_stride), generator=torch.Generator().manual_seed(0)
        )
        name = "the segmentation network"
        run = compile_by_openvino(segmenter.eval().cpu(), noise.to(torch.uint8), computed_in, False, name)
        if run is not None:
            return AcceleratedSegmenter(run, segmenter.output_stride)
    return with_folded_batch_norms(segmenter.eval(), torch.uint8)
