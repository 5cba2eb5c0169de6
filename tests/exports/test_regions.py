"""Regions and their outlines on random class maps, drawn again by several rasterisers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from skimage.draw import polygon as points_in_polygon
from skimage.measure import label as skimage_label

from fastcomus.exports.regions import Region, find_regions, trace_outline


@st.composite
def class_maps(draw: st.DrawFn) -> np.ndarray:
    """Noise of 0 to 3, enlarged or not: holes, single pixels, regions that touch at corners and at the border."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))
    labels = draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, 3)))
    return np.kron(labels, np.ones((draw(st.integers(1, 4)), draw(st.integers(1, 4))), np.uint16))


def enclosed(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centre a polygon encloses, by the even-odd rule."""
    mask = np.zeros(shape, bool)
    mask[points_in_polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, shape)] = True
    return mask


def whole(region: Region, shape: tuple[int, ...]) -> np.ndarray:
    """The region's mask at the image's size, uint8."""
    canvas = np.zeros(shape, np.uint8, order="F")
    canvas[region.y0 : region.y0 + region.mask.shape[0], region.x0 : region.x0 + region.mask.shape[1]] = region.mask
    return canvas


def distance_to_line(centre: np.ndarray, points: np.ndarray) -> float:
    """From a point to the nearest place of a closed line."""
    steps = np.roll(points, -1, axis=0) - points
    along = ((centre - points) * steps).sum(axis=1) / (steps**2).sum(axis=1)
    return float(np.linalg.norm(points + along.clip(0, 1)[:, None] * steps - centre, axis=1).min())


@given(class_maps())
def test_regions_are_those_of_another_library(labels: np.ndarray) -> None:
    found = list(find_regions(labels))
    assert len(found) == skimage_label(labels, connectivity=2).max()
    again = np.zeros_like(labels)
    for region in found:
        assert region.mask.any(axis=0).all() and region.mask.any(axis=1).all()  # the box is tight
        assert region.area == whole(region, labels.shape).sum()
        run_lengths = coco_mask.frPyObjects(
            {"size": list(labels.shape), "counts": region.compute_run_lengths(labels.shape)}, *labels.shape
        )
        assert run_lengths == coco_mask.encode(whole(region, labels.shape))
        again += region.class_id * whole(region, labels.shape).astype(np.uint16)
    assert (again == labels).all()


@given(class_maps())
def test_an_outline_encloses_the_centres_of_its_pixels_and_no_other(labels: np.ndarray) -> None:
    height, width = labels.shape
    for region in find_regions(labels):
        points = trace_outline(region)
        assert len(points) >= 4 and points.min() >= 0 and (points <= (width, height)).all()
        low, high = points.min(axis=0), points.max(axis=0)
        box = [region.x0, region.y0, region.x0 + region.mask.shape[1], region.y0 + region.mask.shape[0]]
        assert [*low, *high] == box
        assert (enclosed(points, labels.shape) == whole(region, labels.shape)).all()


@given(class_maps())
def test_rasterisers_that_draw_the_line_too_differ_by_a_pixel_beside_it_at_most(labels: np.ndarray) -> None:
    """OpenCV's fillPoly, as YOLO's tools use it, and Pillow's polygons, as LabelMe does."""
    for region in find_regions(labels):
        mask = whole(region, labels.shape).astype(bool)
        points = trace_outline(region)
        filled = np.zeros(labels.shape, np.uint8)
        cv2.fillPoly(filled, [points.astype(np.int32)], 1)
        picture = Image.new("1", labels.shape[::-1])
        ImageDraw.Draw(picture).polygon([tuple(point) for point in points], fill=1, outline=1)
        for drawn in (filled.astype(bool), np.asarray(picture)):
            wrong = np.argwhere(drawn != mask)[:, ::-1] + 0.5
            assert all(distance_to_line(centre, points) <= 1 for centre in wrong)


def test_a_ring_of_rings() -> None:
    rows, columns = np.mgrid[-20:21, -20:21]
    rings = np.hypot(rows, columns).astype(int) // 4 % 2
    rings[np.hypot(rows, columns) > 20] = 1
    rings[20, :] = 1  # joins them: one region with many holes
    (region,) = find_regions(rings)
    assert (enclosed(trace_outline(region), rings.shape) == rings).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_thin_regions_have_an_outline(shape: tuple[int, int]) -> None:
    region = Region(1, np.ones(shape, bool), 3, 4)
    points = trace_outline(region)
    assert (enclosed(points, (12, 12)) == whole(region, (12, 12))).all() and np.ptp(points, axis=0).min() == 1
