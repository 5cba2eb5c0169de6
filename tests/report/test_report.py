"""What the report's files hold; tests/test_report_in_browser.py looks at the page as a person does."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SALIENCY, TINY, Photographs, tree_bytes
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from planted import gaussian

from fastcomus import InputError, Run
from fastcomus.clusters.labels import build_clusters
from fastcomus.clusters.names import name_clusters
from fastcomus.report.cluster_cards import make_cluster_cards
from fastcomus.report.colours import choose_cluster_colours, parse_rgb
from fastcomus.report.gallery import measure_soundness
from fastcomus.report.samples import choose_shown_images, sample_core, sample_every_cluster, sample_filtered
from fastcomus.report.script_data import format_script
from fastcomus.report.shown_names import ShownNames


class Page(HTMLParser):
    """Elements of a page: (tag, attributes)."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(re.sub("(?s)<template.*?</template>", "", file.read_text(encoding="utf-8")))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def value_in(file: Path) -> Any:
    """What a script assigns."""
    return json.loads(file.read_text(encoding="ascii").partition(" = ")[2].rstrip(";\n"))


@pytest.fixture(scope="module")
def report(reported_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(reported_run, tmp_path_factory.mktemp("reported") / "run")) / "report"


def test_the_page_tells_what_was_found_and_how(report: Path) -> None:
    page = Page(report / "index.html")
    words = " ".join(page.text.split())
    assert (
        "3 clusters in images" in words
        and "Type a name on each card." in words
        and "Human labels: efficientnet-lite0 was trained with human labels" in words
    )
    assert "images looked at 24" in words and "objects found 24" in words
    assert words.count("all 8 objects , 7 typical ones here") == 3 and "Two clusters are the fewest" not in words
    assert "time of training, iteration 2" in words and "cluster.n_neighbors 6 30" in words
    assert "24 objects in 24 of 24 photographs" in words and "lasso" in words
    assert "objects found by three-priors, weighed by what the objects of these photographs have in common" not in words
    assert len(page.all("article")) == 3
    assert "mIoU" in words and "Where the pixels of each cluster lie" in words


def test_every_file_that_the_page_names_is_there_and_every_picture_has_a_text(report: Path) -> None:
    page = Page(report / "index.html")
    named = [one["src"] for one in page.all("img") + page.all("script")]
    named += [one["href"] for one in page.all("link") if one["rel"] == "stylesheet"]
    assert len(named) > 20
    for name in named:
        assert name and (report / name).is_file(), name
    assert all(one["alt"] and one["loading"] == "lazy" for one in page.all("img"))
    ids = {one["id"] for _, one in page.elements if one.get("id")}
    assert all(one["href"][1:] in ids for one in page.all("a") if one["href"])
    assert page.all("html")[0]["lang"] == "en" and len(page.all("main")) == len(page.all("h1")) == 1
    fields = [one for tag in ("input", "select") for one in page.all(tag)]
    assert len(fields) >= 9  # each within its label
    assert len(page.all("label")) == len(fields)


def test_image_pages_have_every_image_with_the_clusters_of_every_mask(report: Path) -> None:
    run = report.parent
    entries = value_in(report / "data/images-000.js")
    assert [entry["name"] for entry in entries] == [f"{index:02d}.png" for index in range(24)]
    for entry in entries:
        assert len(entry["labels"]) == 3 and entry["size"] == [96, 80]
        for iteration, labels in enumerate(entry["labels"]):
            mask = np.asarray(Image.open(run / f"iteration-{iteration}/masks/{entry['name']}.png"))
            assert labels == [label - 1 for label in np.unique(mask[mask > 0]).tolist()]
            overlay = Image.open(report / f"pictures/000/{entry['number']:06d}-{iteration}.png")
            assert overlay.size == (96, 80)
            assert ((np.asarray(overlay.convert("RGBA"))[:, :, 3] > 0) == (mask > 0)).all()


def test_the_same_run_gives_the_same_bytes_and_what_is_up_to_date_stays(report: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(report.parent, tmp_path / "run"))
    before = tree_bytes(other / "report")
    Run(other).report()
    assert tree_bytes(other / "report") == before
    shutil.rmtree(other / "report")
    Run(other).report()
    assert tree_bytes(other / "report") == before


def test_given_names_and_dropped_clusters(run_copy: Path) -> None:
    fingerprint = json.loads((run_copy / "clusters/manifest.json").read_text())["fingerprint"]
    names = run_copy / "names.toml"
    names.write_text(f'clusters = "{fingerprint}"\n[names]\n0 = "a & b"\n1 = "a & b"\n2 = "-"\n')
    page = Run(run_copy).report()
    facts = value_in(page.parent / "data/run.js")
    assert facts["labels"] == ["a & b", "a & b", "cluster 2"] and facts["names"] == {
        "0": "a & b",
        "1": "a & b",
        "2": "-",
    }
    assert facts["colours"][0] == facts["colours"][1] != facts["colours"][2]
    assert "a &amp; b" in page.read_text() and "a & b" not in page.read_text()
    masks = value_in(page.parent / "data/images-000.js")
    only_dropped = next(entry for entry in masks if entry["labels"][0] == [2])
    overlay = Image.open(page.parent / f"pictures/000/{only_dropped['number']:06d}-0.png").convert("RGBA")
    assert not np.asarray(overlay)[:, :, 3].any()
    for text in (
        'clusters = "others"\n[names]\n0 = "cat"\n',
        "[names",
        f'clusters = "{fingerprint}"\nnames = 3',
        f'clusters = "{fingerprint}"\n[names]\n7 = "x"',
    ):
        names.write_text(text)
        with pytest.raises(InputError, match=r"names\.toml"):
            Run(run_copy).report()


def test_what_found_the_objects_of_few_photographs(tmp_path: Path, photographs: Photographs) -> None:
    few = [*sorted(photographs.images.iterdir())[:6], tmp_path / "flat.png"]
    Image.new("RGB", (96, 80), "grey").save(few[-1])
    settings = {**TINY, "saliency": {**SALIENCY, "common_features": True}, "cluster": {**TINY["cluster"], "k": 2}}
    run = Run(tmp_path / "run", preset="offline", settings=settings)
    run.embed(few)
    run.cluster()
    words = " ".join(Page(run.report()).text.split())
    assert "objects found by three-priors, weighed by what the objects of these photographs have in common" in words
    assert "6 objects in 6 of 7 photographs" in words and "Left out, or without an object" in words


def test_a_run_of_embeddings_alone_has_a_map_and_cards(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", gaussian(60, 3)[0])
    run = Run(tmp_path / "run", preset="offline")
    run.cluster(tmp_path / "rows.npy", k=3)
    page = Page(run.report())
    assert len(page.all("article")) == 3 and not page.all("img")


def test_a_run_without_training_or_truth_and_an_image_that_is_gone(
    photographs: Photographs, run_copy: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(photographs.images, tmp_path / "images"))
    run = Run(tmp_path / "new", preset="offline", settings={"embed": {"min_area": 100}, "cluster": {"k": 3}})
    run.embed(images)
    run.cluster()
    (images / "03.png").unlink()
    page = run.report()
    words = Page(page).text
    assert "Training" not in words and "Scores" not in words
    assert [entry["name"] for entry in value_in(page.parent / "data/images-000.js")].count("03.png") == 0
    with pytest.raises(InputError, match="there is no run folder"):
        Run(tmp_path / "nothing").report()


def test_positions_of_like_objects_lie_together() -> None:
    from fastcomus.report.embedding_map import project_to_plane

    rows, classes = gaussian(120, 4, spread=0.3)
    positions = project_to_plane(rows, 0, 1)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (classes[distances.argmin(axis=1)] == classes).all()
    for count in (2, 3, 4, 5):
        assert np.isfinite(project_to_plane(rows[:count], 0, 1)).all()
    assert np.isfinite(project_to_plane(rows[:, :1], 0, 1)).all()


def test_cards_of_planted_clusters() -> None:
    rows = np.repeat(np.array([[1, 0, 0], [0.9, 0.1, 0], [0, 0, 1]], np.float32), [5, 4, 3], axis=0)
    rows[0] = [0, 1, 0]
    clusters = build_clusters(rows, np.repeat([0, 1, 2], [5, 4, 3]), 3, 0.25)
    cards = make_cluster_cards(rows, clusters, 4)
    assert [card.size for card in cards] == [5, 4, 3] and [card.core_size for card in cards] == [4, 3, 3]
    assert cards[0].filtered == (0,) and set(cards[0].core) == {1, 2, 3, 4}
    assert cards[2].spread == pytest.approx(0, abs=1e-6) and cards[0].spread > 0.1
    assert cards[0].nearest[0].cluster == 1 and cards[1].nearest[0].cluster == 0
    assert cards[0].nearest[1].similarity == pytest.approx(0, abs=1e-6)


@given(st.lists(st.integers(0, 5), min_size=6, max_size=200), st.integers(4, 60), st.integers(0, 3))
def test_a_sample_has_some_of_every_cluster(labels: list[int], most: int, seed: int) -> None:
    given_labels = np.unique(np.array(labels), return_inverse=True)[1]
    rows = sample_every_cluster(given_labels, most, seed)
    assert len(rows) == min(most, len(labels)) and (np.diff(rows) > 0).all()
    if most >= 2 * len(set(labels)):
        assert set(given_labels[rows]) == set(given_labels)


def test_samples_run_from_the_centre_outwards() -> None:
    rows = np.stack([np.cos(np.linspace(0, 1, 20)), np.sin(np.linspace(0, 1, 20))], axis=1).astype(np.float32)
    clusters = build_clusters(rows, np.zeros(20, int), 1, 0.2)
    core = sample_core(clusters, 0, 5)
    assert len(core) == 5 and (np.diff(clusters.distances[core]) >= 0).all() and clusters.is_core[core].all()
    left_out = sample_filtered(clusters, 0, 2)
    assert not clusters.is_core[left_out].any() and clusters.distances[left_out[-1]] == clusters.distances.max()


def test_masks_of_background_come_first_though_kinds_differ_in_saliency() -> None:
    """Half of a pale kind is less salient than background in a bright kind's cluster."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 50)
    is_background = np.arange(100) % 50 < 8  # of each cluster
    scores = np.where(labels == 0, 0.9, 0.5) - 0.1 * is_background + rng.normal(0, 0.06, 100)
    kind = labels + 2 * is_background
    near = np.stack(
        [rng.choice(np.flatnonzero((kind == kind[row]) & (np.arange(100) != row)), 7) for row in range(100)]
    )
    soundness = measure_soundness(scores, labels, near)
    assert is_background[np.argsort(soundness)[:16]].sum() >= 15 > is_background[np.argsort(scores)[:16]].sum()
    stretched = np.where(labels == 0, scores**3, 0.1 * scores)  # ranks within a cluster are what counts
    np.testing.assert_array_equal(measure_soundness(stretched, labels, near), soundness)
    assert soundness.min() > 0 and soundness.max() < 1


def test_what_is_like_no_object_is_looked_at_next_and_equal_scores_say_nothing() -> None:
    labels, scores = np.array([0, 0, 0, 0, -1]), np.array([0.5, 0.5, 0.5, 0.5, 0.9])
    near = np.array([[1], [0], [4], [1], [2]])
    assert measure_soundness(scores, labels, near).argsort(kind="stable").tolist() == [2, 4, 0, 1, 3]
    assert not len(measure_soundness(np.ones(5), labels, near)) and not len(
        measure_soundness(np.empty(0), np.empty(0), near[:0])
    )


def test_images_of_the_cards_come_first() -> None:
    names = tuple(f"{index}.jpg" for index in range(10))
    assert choose_shown_images(names, ["7.jpg", "2.jpg"], 4) == ["0.jpg", "2.jpg", "7.jpg", "9.jpg"]
    assert choose_shown_images(names, [], 20) == list(names)


def test_colours_are_distinct() -> None:
    colours = choose_cluster_colours(80, ShownNames(name_clusters({3: "-"}, 80)))
    assert len(set(colours)) == 80 and all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_the_first_colours_differ_for_colour_blind_eyes_too() -> None:
    """As seen without red and without green cones (Machado et al. 2009), in CIELAB."""
    eyes = {
        "all": np.eye(3),
        "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    }
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    colours = parse_rgb(choose_cluster_colours(20, ShownNames(name_clusters({}, 20)))) / 255
    light = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for eye, seen in eyes.items():
        xyz = (light @ np.array(seen).T).clip(0, 1) @ to_xyz.T / (0.9505, 1, 1.089)
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1e3 * np.eye(20)
        assert apart.min() > 18, eye


@given(st.text())
def test_scripts_hold_any_text(text: str) -> None:
    made = format_script("a", [text])
    assert made.isascii() and "<" not in made
    assert json.loads(made.removeprefix("a = ").removesuffix(";\n")) == [text]
