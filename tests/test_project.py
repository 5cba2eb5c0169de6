"""What a public project promises in its files: one version, pictures that show, workflows that fit the classifiers."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from places import ROOT

import fastcomus

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"] and "version" not in PROJECT["project"]
    assert (ROOT / PROJECT["tool"]["hatch"]["version"]["path"]).samefile(fastcomus.__file__)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == fastcomus.__version__


def test_the_changelog_has_an_open_and_a_closed_version() -> None:
    versions = re.findall(r"^## (\S+) \((.+)\)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0][1] == "unreleased"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", date) for _, date in versions[1:]) and len(versions) > 1


def test_pictures_of_the_readme_also_show_on_a_package_index() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    address = PROJECT["project"]["urls"]["Repository"].replace("github.com", "raw.githubusercontent.com") + "/main/"
    assert pictures
    for picture in pictures:
        assert picture.startswith(address) and (ROOT / picture.removeprefix(address)).is_file()


def test_hints_name_packages_that_an_index_has() -> None:
    for file in (ROOT / "fastcomus").rglob("*.py"):
        assert not re.search(r"pip install\W+fastcomus", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize("name", ["test", "release", "docs"])
def test_workflows_are_whole(name: str) -> None:
    workflow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])


def test_the_workflow_tests_the_pythons_and_systems_that_the_package_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    named = [one.rpartition(" ")[2] for one in PROJECT["project"]["classifiers"] if "Python :: 3." in one]
    assert matrix["python"] == named
    assert [system.split("-")[0] for system in matrix["system"]] == ["ubuntu", "macos", "windows"]
