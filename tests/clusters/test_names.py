"""What names make of clusters, and that predict, evaluate and assign go by them."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Photographs, tree_bytes
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fastcomus import InputError, Run
from fastcomus.cli.commands import app
from fastcomus.clusters.names import BACKGROUND, DROPPED, name_clusters, parse_names
from fastcomus.evaluation.class_maps import Evaluation
from fastcomus.evaluation.truth.truth import read_mask
from fastcomus.store.masks import get_mask_file_name

STRANGE = ['a "quoted" name', "it's", "<b>bold</b> & co", "🐈‍⬛", "[red]", "C:\\cats", "naïve", "1", "{}#"]


def test_equal_names_merge_and_a_dash_drops() -> None:
    names = name_clusters({3: "cat", 5: "cat", 4: "-", 0: "dog"}, 7)
    assert names.classes == ("background", "dog", "cluster 1", "cluster 2", "cat", "cluster 6")
    assert names.class_of_cluster == (1, 2, 3, 4, 0, 4, 5)
    assert names.find_clusters(4) == (3, 5) and names.get_name(5) == "cat" and names.get_name(4) == "background"
    labels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert names.map_to_classes(labels).tolist() == [[0, 1, 2, 3], [4, 0, 4, 5]]


def test_without_names_a_class_is_a_cluster() -> None:
    names = name_clusters({}, 3)
    labels = np.arange(4, dtype=np.uint8)[None]
    assert names.classes == ("background", "cluster 0", "cluster 1", "cluster 2")
    assert names.map_to_classes(labels) is labels and names.class_of_label.tolist() == [0, 1, 2, 3]


words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).filter(str.strip)


@given(st.integers(2, 40).flatmap(lambda k: st.tuples(st.just(k), st.dictionaries(st.integers(0, k - 1), words))))
def test_every_pixel_keeps_the_name_of_its_cluster(case: tuple[int, dict[int, str]]) -> None:
    k, given_names = case
    try:
        names = name_clusters(given_names, k)
    except InputError as error:
        if not re.search("that of cluster|are dropped|belongs to no cluster", str(error)):
            raise
        return
    assert len(set(names.classes)) == len(names.classes)
    assert set(names.class_of_cluster) | {0} == set(range(len(names.classes)))
    for cluster, name in names.given:
        assert names.get_name(cluster) == (BACKGROUND if name == DROPPED else name)
    firsts = [min(names.find_clusters(one)) for one in range(1, len(names.classes))]
    assert firsts == sorted(firsts)


BAD = {
    "no such cluster": ({7: "cat"}, "there is no cluster 7; the clusters of this run are 0 to 4"),
    "negative": ({-1: "cat"}, "there is no cluster -1"),
    "empty": ({1: " "}, "name of cluster 1 is empty; .* 1=- to drop it"),
    "control character": ({1: "a\nb"}, r"cluster 1 holds the character '\\n'"),
    "line separator": ({1: "a\u2028b"}, "cannot be shown"),
    "half a character": ({1: "a\udc80b"}, "cannot be shown"),
    "no text": ({1: 5}, "must be text; got 5"),
    "background": ({1: "background"}, "as in 1=-"),
    "another's own name": ({1: "cluster 2"}, "that of cluster 2, which has none"),
    "nothing left": (dict.fromkeys(range(5), "-"), "all 5 clusters are dropped"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_name_is_one_sentence(case: str) -> None:
    names, told = BAD[case]
    with pytest.raises(InputError, match=told):
        name_clusters(names, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line", [["cat"], ["=cat"], ["cat=3"], ["-1=cat"], ["³=cat"], ["3=cat", "3=dog"], ["1=cat=dog"], ["1==cat"]]
)
def test_what_is_no_assignment_is_one_sentence(line: list[str]) -> None:
    with pytest.raises(InputError, match=r"given as CLUSTER=NAME|cluster 3 is named twice"):
        parse_names(line)


def test_the_same_letters_written_in_two_ways_are_one_name() -> None:
    assert name_clusters({0: "caf\u00e9", 1: "cafe\u0301 "}, 2).classes == ("background", "caf\u00e9")


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_are_stored_and_shown_as_they_are(run_copy: Path, name: str) -> None:
    reply = CliRunner().invoke(app, ["name", "--run", str(run_copy), f"1={name}"], catch_exceptions=False)
    assert reply.exit_code == 0 and name in reply.stdout
    assert Run(run_copy).name().given == ((1, name),)


def test_names_are_laid_over_earlier_ones_and_a_file_replaces_them(
    run_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(run_copy)
    run.name({0: "cat"})
    shutil.copy(run_copy / "names.toml", tmp_path / "saved.toml")
    assert run.name({2: "-", 1: "dog"}).given == ((0, "cat"), (1, "dog"), (2, "-"))
    assert run.name({1: "cat"}).classes == ("background", "cat")
    line = ["name", "--run", str(run_copy), "--file", str(tmp_path / "saved.toml")]
    with caplog.at_level(logging.INFO):
        assert CliRunner().invoke(app, line, catch_exceptions=False).exit_code == 0
    assert "2 clusters have no name in this file and none any more; fastcomus name 1=cat 2=- gives back" in caplog.text
    assert run.name().given == ((0, "cat"),)
    sizes = pq.read_table(run_copy / "clusters/clusters.parquet")["cluster"].value_counts().to_pylist()
    shown = CliRunner().invoke(app, ["name", "--run", str(run_copy)], catch_exceptions=False).stdout
    for row in sizes:
        assert re.search(rf"│\s+{row['values']} │\s+{row['counts']} │", shown)
    assert "cat" in shown and "cluster 2" in shown


def test_a_name_with_an_equals_sign_comes_back_from_its_file(run_copy: Path) -> None:
    Run(run_copy).name({1: "a=b"})
    assert Run(run_copy).name().given == ((1, "a=b"),)
    with pytest.raises(InputError, match=r"there is no file .*name\.toml; did you mean .*names\.toml\?"):
        Run(run_copy).name(run_copy / "name.toml")


def test_names_of_other_clusters_are_told(run_copy: Path, photographs: Photographs, caplog: pytest.LogCaptureFixture):
    run = Run(run_copy)
    run.name({0: "cat"})
    names = (run_copy / "names.toml").read_bytes()
    run.cluster(k=2)
    assert "no cluster is clearly cat any more; such names stay in the history" in caplog.text
    (run_copy / "names.toml").write_bytes(names)  # by hand
    told = "were given to other clusters than those that are there now"
    before = tree_bytes(run_copy)
    for use in (run.name, lambda: run.name({1: "dog"}), lambda: run.evaluate(photographs.truth)):
        with pytest.raises(InputError, match=told):
            use()
    with pytest.raises(InputError, match=told):
        run.assign(photographs.images)
    assert tree_bytes(run_copy) == before
    run.cluster(k=3)
    assert run.name().given == ((0, "cat"),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("names = [", "cannot be read"),
        ("[names]\n0 = 'cat'\n", "holds no names"),
        ("clusters = '{print}'\n[names]\n0 = 3\n", "holds no names"),
        ("clusters = '{print}'\n[names]\ncat = 'cat'\n", "given as CLUSTER=NAME"),
        ("clusters = '{print}'\n[names]\n9 = 'cat'\n", "names.toml: there is no cluster 9"),
        ("clusters = 'other'\n[names]\n0 = 'cat'\n", "given to other clusters"),
    ],
)
def test_a_bad_names_file_is_one_sentence(run_copy: Path, content: str, told: str) -> None:
    manifest = json.loads((run_copy / "clusters/manifest.json").read_text())
    (run_copy / "names.toml").write_text(content.replace("{print}", manifest["fingerprint"]))
    with pytest.raises(InputError, match=told):
        Run(run_copy).name()


def test_bad_lines_change_nothing(run_copy: Path, tmp_path: Path) -> None:
    before = tree_bytes(run_copy)
    for line, told in (
        (["1=cat", "--file", "names.toml"], "either names or --file"),
        (["--file", str(tmp_path / "absent.toml")], "there is no file"),
        (["9=cat"], "there is no cluster 9"),
    ):
        reply = CliRunner().invoke(app, ["name", "--run", str(run_copy), *line])
        assert isinstance(reply.exception, InputError) and told in str(reply.exception)
    assert tree_bytes(run_copy) == before


def test_predict_writes_merged_classes(run_copy: Path, photographs: Photographs, tmp_path: Path) -> None:
    run = Run(run_copy)
    plain = run.predict(photographs.images, tmp_path / "plain", probabilities=True)
    run.name({0: "round", 2: "round", 1: "-"})
    named = run.predict(photographs.images, tmp_path / "named", probabilities=True)
    table = np.array([0, 1, 0, 1])
    for image in sorted(path.name for path in photographs.images.iterdir())[::5]:
        mask = get_mask_file_name(image)
        assert (read_mask(named / mask) == table[read_mask(plain / mask)]).all()
        apart, together = (np.load(of / f"probabilities/{image}.npy").astype(float) for of in (plain, named))
        assert together.shape[0] == 2
        assert np.allclose(together, [apart[0] + apart[2], apart[1] + apart[3]], atol=2e-3)
    assert json.loads((named / "predictions.json").read_text())["classes"] == ["background", "round"]
    # Another name of the same classes changes the list alone; other classes are written anew.
    before = (named / mask).stat().st_mtime_ns
    run.name({0: "oval", 2: "oval"})
    run.predict(photographs.images, named, probabilities=True)
    assert json.loads((named / "predictions.json").read_text())["classes"] == ["background", "oval"]
    assert (named / mask).stat().st_mtime_ns == before
    (run_copy / "names.toml").unlink()
    run.predict(photographs.images, named, probabilities=True)
    assert tree_bytes(named) == tree_bytes(plain)


def test_evaluate_scores_merged_classes_and_shows_names(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    plain = run.evaluate(photographs.truth, photographs.classes, 0)
    assert isinstance(plain, Evaluation) and plain.cluster_names == ()
    own = {label: plain.classes.index(name) for label, name in enumerate(plain.classes)}
    cluster_of = {plain.hungarian.assignment[label]: label - 1 for label in (1, 2, 3)}
    run.name({cluster_of[own[1]]: "a [round] one", cluster_of[own[2]]: "-"})
    line = ["evaluate", "--run", str(run_copy), "--truth", str(photographs.truth), "--iteration", "0"]
    reply = CliRunner().invoke(
        app, [*line, "--classes", str(photographs.classes)], env={"COLUMNS": "150"}, catch_exceptions=False
    )
    row = next(line for line in reply.stdout.splitlines() if "circle" in line)
    assert "a [round] one" in row and "named" in reply.stdout
    named = Evaluation.from_json(json.loads((run_copy / "evaluation/iteration-0.json").read_text()))
    assert len(named.cluster_names) == len(named.hungarian.assignment) == 3
    assert named.hungarian.per_class[1] == plain.hungarian.per_class[1]
    assert named.hungarian.per_class[2] == 0 < plain.hungarian.per_class[2]


def test_assigned_objects_carry_names(run_copy: Path, photographs: Photographs) -> None:
    run = Run(run_copy)
    assert "name" not in pq.read_table(run.assign(photographs.images)).column_names
    run.name({0: "cat", 2: "-"})
    table = pq.read_table(run.assign(photographs.images))
    expected = {0: "cat", 1: "cluster 1", 2: "background"}
    assert table["name"].to_pylist() == [expected[cluster] for cluster in table["cluster"].to_pylist()]
