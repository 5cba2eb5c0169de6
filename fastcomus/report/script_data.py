"""Data as scripts: a page opened from disk may run these, where it may not fetch files."""

from __future__ import annotations

import json
from typing import Any

from fastcomus.run_folder import RunFolder


def script(variable: str, value: Any) -> str:
    """`variable` = `value` as JavaScript, in ASCII, and harmless wherever it stands in a page."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    return f"{variable} = {text};\n"


def write_script(target: RunFolder, name: str, variable: str, value: Any) -> None:
    target.write_text(name, script(variable, value))
