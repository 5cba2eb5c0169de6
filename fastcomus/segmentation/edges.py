"""A map of one image that follows the image's edges: the guided filter (He et al., 2013), on a coarse grid.

A network knows a pixel's class to some 16 pixels of its input. Within a window, the filter takes the map to be a linear
function of the pixel's colour and fits it; that function knows where the edge is. It is fitted on a small grid (He and
Sun, 2015) and applied to every pixel.
"""

from __future__ import annotations

import torch
from torch.nn import functional

GRID = 64  # cells along the shorter side, on which the linear functions are fitted
_REACH = 0.125  # half the side of a window, as a share of the image's shorter side
_LEAST_VARIANCE = 1e-4  # of colours in [0, 1]; what varies less is no edge


def choose_grid(height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of the grid for an image of this size."""
    share = min(1.0, GRID / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def fit_to_edges(coarse: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Enlarge a map so that it changes where the image does.

    Args:
        coarse: (h, w) float32 in [0, 1], of the size that `choose_grid` returns; of the whole image.
        image: (3, H, W) uint8, on the same device.

    Returns:
        (H, W) float32 in [0, 1].
    """
    colours = image.float() / 255
    height, width = coarse.shape
    small = functional.interpolate(colours[None], (height, width), mode="area")[0]
    reach = max(1, round(_REACH * min(height, width)))
    colour, value = _average(small, reach), _average(coarse[None], reach)
    products = (small[:, None] * small[None]).flatten(0, 1)
    spread = _average(products, reach).unflatten(0, (3, 3)) - colour[:, None] * colour[None]
    spread = spread.permute(2, 3, 0, 1) + _LEAST_VARIANCE * torch.eye(3, device=coarse.device)
    together = _average(small * coarse, reach) - colour * value
    slope = torch.linalg.solve(spread, together.permute(1, 2, 0)).permute(2, 0, 1)
    functions = _average(torch.cat([slope, value - (slope * colour).sum(0, keepdim=True)]), reach)
    wide = functional.interpolate(functions[None], image.shape[1:], mode="bilinear")[0]
    return ((wide[:3] * colours).sum(0) + wide[3]).clamp(0, 1)


def _average(maps: torch.Tensor, reach: int) -> torch.Tensor:
    """Average maps (C, h, w) over the part of a window around each cell that lies in the image."""
    down, across = (_build_window(side, reach, maps.device) for side in maps.shape[1:])
    return down @ maps @ across.T


def _build_window(side: int, reach: int, device: torch.device) -> torch.Tensor:
    """Weights of the cells in each cell's window, (side, side): all within `reach` count the same."""
    cells = torch.arange(side, device=device)
    near = ((cells[:, None] - cells).abs() <= reach).float()
    return near / near.sum(1, keepdim=True)
