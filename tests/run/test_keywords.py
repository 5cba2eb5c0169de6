"""The settings that `Run`'s methods show to editors and type checkers are those of `config.py`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from places import ROOT

import fastcomus
from fastcomus.config import STAGES
from fastcomus.run import keywords

RIGHT = """
import numpy as np

from fastcomus import Clusters, Run, cluster

run = Run("folder", preset="offline")
found: Clusters = run.cluster(k=14, filter=0.3)
run.train(epochs=3, predict_size=256)
labels = cluster(np.zeros((9, 3)), 2, n_neighbors=3).labels
"""
SETTINGS = """
[mypy]
ignore_missing_imports = True
follow_imports = silent
[mypy-torch.*,torchvision.*,timm.*,numpy.*,pyarrow.*,PIL.*,scipy.*,sklearn.*,rich.*,huggingface_hub.*]
follow_imports = skip
"""
WRONG = {
    "run.cluster(kk=14)": 'Unexpected keyword argument "kk"',
    'run.cluster(k="14")': 'Argument "k" to "cluster" of "Run" has incompatible type "str"',
    "run.predict('images', epochs=3)": 'Unexpected keyword argument "epochs"',
    "cluster(np.zeros((9, 3)), resolutoin=2.0)": 'Unexpected keyword argument "resolutoin"',
}


@pytest.mark.parametrize("stage", STAGES)
def test_keywords_are_the_fields_of_the_settings(stage: str) -> None:
    typed = getattr(keywords, f"{stage.capitalize()}Settings")
    shown = {name: hint.__forward_arg__ for name, hint in typed.__annotations__.items()}
    assert shown == {field.name: field.type for field in fields(STAGES[stage])}
    assert not typed.__required_keys__


def test_a_type_checker_sees_the_public_interface(tmp_path: Path) -> None:
    lines = [*RIGHT.splitlines(), *WRONG]
    (tmp_path / "user.py").write_text("\n".join(lines))
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    line = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", f"{ROOT}/.mypy_cache/user"]
    done = subprocess.run([*line, "user.py"], cwd=tmp_path, capture_output=True, text=True, env={"MYPYPATH": str(ROOT)})
    errors = {int(one.split(":")[1]): one for one in done.stdout.splitlines() if ": error:" in one}
    first = len(lines) - len(WRONG) + 1
    assert sorted(errors) == list(range(first, len(lines) + 1)), done.stdout + done.stderr
    for number, sentence in enumerate(WRONG.values(), first):
        assert sentence in errors[number]


def test_the_package_lists_what_is_public_without_loading_torch() -> None:
    program = "import sys, fastcomus; print(*dir(fastcomus)); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    public = {"Clusters", "InputError", "Run", "SpectralClusterer", "__version__", "cluster"}
    assert (
        public
        == set(fastcomus.__all__)
        == {name for name in done.stdout.split() if not name.startswith("__")} | {"__version__"}
    )
    assert (Path(fastcomus.__file__).parent / "py.typed").exists()
