"""Maps of images that follow the images' edges: the guided filter (He et al., 2013), on a coarse grid.

A network knows a pixel's class to some 16 pixels of its input. Within a window, the filter takes the map to be a linear
function of the pixel's colour and fits it; that function knows where the edge is. It is fitted on a small grid (He and
Sun, 2015) and applied to every pixel.
"""

from __future__ import annotations

import torch
from torch.nn import functional

GRID = 64  # cells along the shorter side, on which the linear functions are fitted
_LEAST_VARIANCE = 1e-4  # of colours in [0, 1]; what varies less is no edge


def choose_grid(height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of the grid for an image of this size."""
    share = min(1.0, GRID / min(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def fit_to_edges(coarse: torch.Tensor, images: torch.Tensor, reach: float) -> torch.Tensor:
    """Enlarge maps so that they change where the images do.

    Args:
        coarse: (N, h, w) float32 in [0, 1], of the size that `choose_grid` returns; each of a whole image.
        images: (N, 3, H, W) uint8, on the same device.
        reach: Half the side of a window, as a share of the image's shorter side.

    Returns:
        (N, H, W) float32 in [0, 1].
    """
    colours = images.float() / 255
    height, width = coarse.shape[1:]
    small, maps = functional.interpolate(colours, (height, width), mode="area"), coarse[:, None]
    cells = max(1, round(reach * min(height, width)))
    colour, value = _average(small, cells), _average(maps, cells)
    products = (small[:, :, None] * small[:, None]).flatten(1, 2)
    spread = _average(products, cells).unflatten(1, (3, 3)) - colour[:, :, None] * colour[:, None]
    spread = spread.permute(0, 3, 4, 1, 2) + _LEAST_VARIANCE * torch.eye(3, device=coarse.device)
    together = _average(small * maps, cells) - colour * value
    slope = torch.linalg.solve(spread, together.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    functions = _average(torch.cat([slope, value - (slope * colour).sum(1, keepdim=True)], dim=1), cells)
    wide = functional.interpolate(functions, images.shape[2:], mode="bilinear")
    return ((wide[:, :3] * colours).sum(1) + wide[:, 3]).clamp(0, 1)


def _average(maps: torch.Tensor, reach: int) -> torch.Tensor:
    """Average maps (N, C, h, w) over the part of a window around each cell that lies in the image."""
    down, across = (_build_window(side, reach, maps.device) for side in maps.shape[2:])
    return down @ maps @ across.T


def _build_window(side: int, reach: int, device: torch.device) -> torch.Tensor:
    """Weights of the cells in each cell's window, (side, side): all within `reach` count the same."""
    cells = torch.arange(side, device=device)
    near = ((cells[:, None] - cells).abs() <= reach).float()
    return near / near.sum(1, keepdim=True)
