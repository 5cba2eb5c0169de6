"""Early layers of a backbone that keep their published weights while the rest of a network learns.

J. Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014: first layers are alike
whatever is learnt. They see the largest maps, and without gradients through them a step takes a third less time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from torch import nn

log = logging.getLogger("fastcomus")


def freeze_layers(backbone: nn.Module, stride: int) -> list[nn.Module]:
    """Keep a backbone's weights as they are up to the layers of a stride.

    Args:
        backbone: One of timm's that returns feature maps (`features_only`).
        stride: In pixels per feature; 0 freezes nothing. Dilated layers behind those of that stride learn, although
            their maps are no coarser.

    Returns:
        The frozen layers; none, which is told, of a backbone without layers of so small a stride. The caller keeps them
        in eval mode, so that their batch statistics stay, too.
    """
    if not stride:
        return []
    last: list[str] = []
    reached = 0
    for one in backbone.feature_info.info:  # type: ignore[union-attr]
        if reached < one["reduction"] <= stride:
            last, reached = [one["module"].replace(".", "_")], one["reduction"]
    frozen: list[nn.Module] = []
    for name, layer in _list_layers(backbone):
        frozen.append(layer)
        if [name] == last:
            for one in frozen:
                one.requires_grad_(False)
            return frozen
    log.warning("frozen_stride %d: this backbone has no layers of that stride, so that all of them learn", stride)
    return []


def _list_layers(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield a backbone's layers, those of its stages one by one, with their names as timm's feature lists have them."""
    whole = {one["module"] for one in backbone.feature_info.info}  # type: ignore[union-attr]
    for name, child in backbone.named_children():
        if isinstance(child, nn.Sequential) and name not in whole:
            yield from ((f"{name}_{number}", stage) for number, stage in child.named_children())
        else:
            yield name, child
