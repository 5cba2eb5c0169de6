"""The floor plan: rooms import downwards, modules form no circle, names begin with a verb, files stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest
from places import PACKAGE, ROOT

MODULES = sorted(PACKAGE.rglob("*.py"))
WORDS = """
accept add advance align allocate append apply ask assemble assign attach augment average begin bind blur borrow
broadcast build calibrate call carry cast centre change check choose claim clip close cluster collect compare
compile component compose compute concat configure connect convert copy correct count create crop cut decode
decorate define derive describe detect diagnose discard distinguish divide download draw drop embed empty encode
end enlarge escape estimate evaluate examine exchange expand explain export extend extract fetch fill find
fingerprint finish fit fix flatten flip fold forget format freeze fuse gather generate get give group guess halve
hash hold import index infer insert invert iterate join judge keep label launch lay limit link list load locate
lock log look lower make map mark mask match measure merge mix move multiply name normalise note number observe
obtain offer open order orient orthogonalise orthonormalise overlay own pack pad pair parse pass peek pick place
plan plot predict prepare presume print probe project propose prune put quantise rank reach read rebuild receive
reconstruct recover redirect refine refresh refuse register release remember remove rename render renumber reorder
repeat replace report request require resample reset resize resolve restore resume retry return rewrite rotate
round run sample save say scale score seal search see seek select send serialise serve set settle share shift
shorten show shrink shuffle shut sign silence skip smooth snap solidify solve sort split stack stamp start step
stop store stream stretch strip style suggest sum summarise synchronize tabulate take tell threshold tint token
trace train transform trim try turn undo unpack unseal update use validate vary verify wait walk warn watch weigh
work wrap write
"""
VERBS = set(WORDS.split())
KEPT = {  # names that are not ours to choose, or that Python's words are for
    "main": "the entry point",
    "forward": "torch calls it",
    "backward": "torch calls it",
    "handle_starttag": "html.parser calls it",
    "repr_html": "Jupyter calls it",
    "objects": "part of the public interface",
    "history": "part of the public interface",
    "stage": "a decorator, read as an adjective",
}


def define_functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.Module):
                for one in node.body:
                    if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
                        yield file, one  # type: ignore[misc]


@cache
def import_graph() -> grimp.ImportGraph:
    return grimp.build_graph("fastcomus", exclude_type_checking_imports=True, cache_dir=None)


def test_rooms_import_downwards_only() -> None:
    """The layers stand in pyproject.toml. In a process of its own, since it turns off the loggers that are there."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_modules_form_no_circle() -> None:
    graph = import_graph()
    below = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while free := [module for module, imported in below.items() if not imported & below.keys()]:
        for module in free:
            del below[module]
    assert not below


def test_no_chain_of_rooms_is_longer_than_eight() -> None:
    graph = import_graph()
    rooms: dict[str, set[str]] = {}
    for module in graph.modules - {"fastcomus"}:
        for imported in graph.find_modules_directly_imported_by(module) - {"fastcomus"}:
            one, other = module.split(".")[1], imported.split(".")[1]
            if one != other:
                rooms.setdefault(one, set()).add(other)

    def floor(room: str) -> int:
        return 1 + max((floor(other) for other in rooms.get(room, ())), default=0)

    assert max(floor(room) for room in rooms) <= 8


def test_importing_one_command_imports_no_other() -> None:
    graph = import_graph()
    commands = {"cluster", "embed", "evaluate", "export", "name", "predict", "report", "train", "train_saliency"}
    for command in commands:
        reached = graph.find_upstream_modules(f"fastcomus.run.{command}")
        assert not reached & {f"fastcomus.run.{other}" for other in commands - {command}}


def test_the_package_root_is_small() -> None:
    own = [file.stem for file in PACKAGE.glob("*.py") if file.stem not in ("__init__", "__main__")]
    assert len(own) <= 8


@pytest.mark.parametrize("file", [file for file in MODULES if file.name == "__init__.py"], ids=lambda f: f.parent.name)
def test_no_init_file_has_logic(file: Path) -> None:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    allowed: tuple[type[ast.stmt], ...] = (ast.Expr,)
    if file.parent == PACKAGE:  # what is public, imported when it is first used
        allowed += (ast.Import, ast.ImportFrom, ast.If, ast.Assign, ast.FunctionDef)
        assert {one.name for one in body if isinstance(one, ast.FunctionDef)} <= {"__getattr__", "__dir__"}
    assert all(isinstance(one, allowed) for one in body)


def test_no_file_has_more_than_300_lines() -> None:
    """But config.py, where every setting stands with its default, its range and its sentence of help."""
    long = {str(file.relative_to(PACKAGE)): len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES}
    assert not {name: lines for name, lines in long.items() if lines > 300 and name != "config.py"}


def test_function_names_begin_with_a_verb() -> None:
    others = []
    for file, function in define_functions():
        name = function.name.strip("_")
        decorators = {ast.unparse(one).rpartition(".")[2] for one in function.decorator_list}
        is_noun = decorators & {"property", "cached_property"}
        is_foreign = function.name.startswith("__") or name in KEPT or any("command(" in one for one in decorators)
        is_question = name.split("_")[0] in ("is", "has", "to", "from", "as", "with")
        if not (is_noun or is_foreign or is_question or name.split("_")[0] in VERBS):
            others.append(f"{file.relative_to(PACKAGE)}: {function.name}")
    assert not others
