"""What a wheel carries, and what its extras pull."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from places import ROOT

import fastcomus


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both distributions."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("built")
    line = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(line, cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(built: Path) -> Path:
    (source,) = built.glob("*.tar.gz")
    return source


def test_the_source_distribution_has_what_the_readme_names(source: Path) -> None:
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    linked = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(linked) <= names and {"Makefile", "mkdocs.yml", "pyproject.toml", "tests/conftest.py"} <= names
    assert {f"examples/{file.name}" for file in (ROOT / "examples").glob("*.py")} <= names


def test_an_index_can_show_the_page_of_both_distributions(wheel: Path, source: Path) -> None:
    check = pytest.importorskip("twine.commands.check")
    assert not check.check([str(wheel), str(source)], strict=True)


def test_wheel_carries_the_kernels_and_finds_them_inside_the_package(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    sources = sorted((ROOT / "kernels").glob("*.cu"))
    assert len(sources) >= 5
    names = tuple(file.stem for file in sources)
    program = (
        "from fastcomus.backends import kernel_loader as k\n"
        f"assert k.FOLDERS[0].is_relative_to({str(tmp_path)!r}), k.FOLDERS\n"
        f"print(''.join(k.read_kernel_source(n) for n in {names!r}), end='')\n"
        "(k.FOLDERS[0] / 'mask_boxes.cu').unlink()\n"
        "k.read_kernel_source('mask_boxes')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout == "".join(file.read_text() for file in sources), done.stderr
    assert "the kernel mask_boxes.cu is missing; looked in" in done.stderr


def test_wheel_has_the_version_of_the_package_and_its_types(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == fastcomus.__version__
    with zipfile.ZipFile(wheel) as archive:
        assert "fastcomus/py.typed" in archive.namelist()


def test_the_cpu_extra_pulls_neither_cupy_nor_cuml(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith("/METADATA")]
        metadata = importlib.metadata.PathDistribution(zipfile.Path(archive, name.rpartition("/")[0] + "/"))
        requires = [Requirement(line) for line in metadata.requires or []]
    pulled = _closure([one for one in requires if _applies(one, "cpu") or _applies(one, "offline")])
    assert {"torch", "faiss-cpu", "numba", "scipy"} <= pulled
    assert not [one for one in pulled if re.match(r"cupy|cuml|cuvs|cudf|libcu|rmm|faiss-gpu", one)]
    by_gpu = {one.name for one in requires if one.marker and not _applies(one, "") and _applies(one, "gpu")}
    assert by_gpu == {"cupy-cuda13x", "cuml-cu13", "cuvs-cu13", "faiss-gpu"}


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _closure(requirements: list[Requirement]) -> set[str]:
    """Names of all that these pull, themselves and through what is installed here."""
    found: set[str] = set()
    todo = [(one.name.lower().replace("_", "-"), tuple(one.extras)) for one in requirements]
    while todo:
        name, extras = todo.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        needed = [one for one in map(Requirement, lines) if any(_applies(one, extra) for extra in ("", *extras))]
        todo += [(one.name.lower().replace("_", "-"), tuple(one.extras)) for one in needed]
    return found
