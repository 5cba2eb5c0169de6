"""Every benchmark finds what it imports: those that take hours are not run here."""

from __future__ import annotations

import subprocess
import sys

from places import ROOT


def test_every_benchmark_can_be_imported() -> None:
    files = [file.relative_to(ROOT).with_suffix("") for file in sorted((ROOT / "bench").rglob("*.py"))]
    modules = [".".join(file.parts).removesuffix(".__init__") for file in files if file.name != "__main__"]
    assert len(modules) > 30
    program = "import importlib, sys; [importlib.import_module(one) for one in sys.argv[1:]]"
    done = subprocess.run([sys.executable, "-c", program, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
