"""Folders that tests look into, wherever the test itself lies."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = ROOT / "fastcomus"
MSRC14 = ROOT.parent / "shared" / "data" / "msrc14"
REFERENCE = TESTS / "reference"
