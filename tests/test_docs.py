"""The pages of docs/ and the README: commands that exist, options that exist, links that lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from places import ROOT

from fastcomus.cli.commands import app
from fastcomus.run.run import Run

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
WRITTEN = [page for page in PAGES if page.name != "cli.md"]  # by hand
NOTEBOOK = DOCS / "first-folder.ipynb"


def test_cli_page_is_what_make_docs_writes(tmp_path: Path) -> None:
    (line,) = (line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if "utils docs" in line)
    words = shlex.split(line.replace("$(BIN)/python", sys.executable).replace("docs/cli.md", str(tmp_path / "cli.md")))
    subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    written = (tmp_path / "cli.md").read_text(encoding="utf-8")
    assert written == (DOCS / "cli.md").read_text(encoding="utf-8"), "docs/cli.md is stale; run make docs"


def test_settings_page_is_what_make_docs_writes() -> None:
    spec = importlib.util.spec_from_file_location("write_settings", DOCS / "write_settings.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.make_page() == (DOCS / "settings.md").read_text(encoding="utf-8"), "run make docs"


def test_the_site_builds_without_a_warning_and_shows_the_interface(tmp_path: Path) -> None:
    """Strictly: each page in the menu, no link or anchor that leads nowhere."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "python/index.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'id="fastcomus\.(Run\.\w+)"', page))
    public = {f"Run.{name}" for name in dir(Run) if not name.startswith("_") and name != "workplace"}
    assert public <= shown


def commands(page: Path) -> list[tuple[str, bool]]:
    """Every command line of a page from the word fastcomus on, and whether it stands in a block, where it is whole."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:console)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [(line.strip(), True) for block in blocks for line in block.splitlines()]
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    lines += [(" ".join(code.split()), False) for code in re.findall(r"`([^`]+)`", without_blocks)]
    found = [(re.search(r"(?:^|-m |\| )(fastcomus .*)", line), is_whole) for line, is_whole in lines]
    return [(match.group(1), is_whole) for match, is_whole in found if match]


def problem(line: str, is_whole: bool) -> str:
    """What is wrong with a command line, without running it; nothing if all is well."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    name = "fastcomus"
    while words and words[0] in getattr(command, "commands", {}):
        name = words.pop(0)
        command = command.commands[name]  # type: ignore[attr-defined]
    if hasattr(command, "commands"):
        return f"{name} has no command {words[0]}" if words else ""
    try:
        command.make_context(name, words)
    except Exception as error:
        if type(error).__name__ == "MissingParameter" and not is_whole:
            return ""
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_every_command_in_a_page_parses(page: Path) -> None:
    assert not [(line, told) for line, is_whole in commands(page) if (told := problem(line, is_whole))]


def test_commands_are_found_and_wrong_ones_are_told(tmp_path: Path) -> None:
    assert sum(len(commands(page)) for page in WRITTEN) > 60
    page = tmp_path / "page.md"
    page.write_text(
        "```\nls | fastcomus predict - # all\npython -m fastcomus train\n```\nor `fastcomus clutser --k 3`\n"
    )
    assert commands(page) == [
        ("fastcomus predict - # all", True),
        ("fastcomus train", True),
        ("fastcomus clutser --k 3", False),
    ]
    assert problem("fastcomus predict - # all", True) == ""
    assert problem("fastcomus clutser --k 3", True) == "fastcomus has no command clutser"
    assert "--kk" in problem("fastcomus cluster --kk 3", True)
    assert "many" in problem("fastcomus cluster --k many", True) or "integer" in problem(
        "fastcomus cluster --k many", True
    )
    assert "MissingParameter" in problem("fastcomus embed", True)
    assert "cooc" in problem("fastcomus export cooc", True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = {
        re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_page_stands_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *DOCS.glob("*.ipynb")]:
        assert page.name == "README.md" or f"({page.name})" in index
    assert index.index("first-folder.md") < index.index("how-it-works.md") < index.index("choices.md")


def test_files_that_the_pages_name_are_there() -> None:
    tree = [f"/{file.relative_to(ROOT).as_posix()}" for one in ROOT.glob("[!.]*/") for file in one.rglob("*.*")]
    for page in WRITTEN:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        code = " ".join(re.findall(r"`([^`]+)`", text))
        named = re.findall(r"(?<!\S)[\w./]+\.(?:py|cu|h)\b", code)
        if page.name in ("CONTRIBUTING.md", "how-it-works.md"):
            named += re.findall(r"\b[\w/]+/(?!\S)", code)
            assert len(named) > 8
        missing = {name for name in named if "NAME" not in name and not any(f"/{name}" in file for file in tree)}
        assert not missing, page.name


@pytest.mark.slow
def test_the_notebook_runs_offline_and_is_stored_without_results(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 4
    assert (tmp_path / "first-folder/run/exports/iteration-1-coco/annotations/instances_default.json").is_file()
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
