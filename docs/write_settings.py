"""Writes docs/settings.md from config.py: python docs/write_settings.py [FILE]."""

from __future__ import annotations

import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from fastcomus.config import STAGES
from fastcomus.settings import PRESETS

HEADER = """# Settings

Each setting is an option of its stage's command (`train_size` is `--train-size` of `train`), a keyword of `Run`'s
method of that name, and an entry of the TOML file that `--config` takes:

```toml
preset = "offline"
seed = 0

[cluster]
k = 14
```

`run` has the options of `embed`, `cluster`, `train` and `predict`, and `train` those of `predict`. `run` gives
`--precision` and `--compile` to `embed` and `train` alike; a TOML file can tell them apart. Settings of `saliency`,
such as `least_images` and `common_features`, are options of `train-saliency` alone: for `run` and `embed` give them in
the TOML file.

The run folder remembers settings, preset and seed. `--preset` with another name starts again from that preset: give
`--k` and the like with it. `--device`, `--workers`, `--inference` and `--deterministic` hold for one command. This page
is written from `config.py` by `make docs`.
"""
TABLE = "| setting | default | by preset | allowed | |\n|---|---|---|---|---|\n"


def main() -> None:
    """Write the page to the file named on the command line, or to its place."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("settings.md")
    file.write_text(make_page(), encoding="utf-8")


def make_page() -> str:
    """Return the page: a table for every stage."""
    parts = [HEADER]
    for stage, config in STAGES.items():
        about = " ".join((config.__doc__ or "").split())
        parts.append(f"\n## {stage}\n\n{about}\n\n{TABLE}")
        parts += [_make_row(stage, field) for field in fields(config)]
    return "".join(parts)


def _make_row(stage: str, field: Field[Any]) -> str:
    given = field.metadata
    by_preset = {preset: values.get(stage, {}).get(field.name) for preset, values in PRESETS.items()}
    presets = ", ".join(f"{name}: {_show(value)}" for name, value in by_preset.items() if value is not None)
    allowed = [f"{given['least']} or more"] if given.get("least") is not None else []
    allowed += [given["within"]] if given.get("within") else []
    allowed += [", ".join(map(str, given["choices"]))] if given.get("choices") else []
    allowed += [f"{given['zero']} (0)"] if given.get("zero") else []
    cells = (f"`{field.name}`", _show(field.default), presets, "; ".join(allowed), given.get("help", ""))
    return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |\n"


def _show(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"`{value}`" if value != "" else "none"


if __name__ == "__main__":
    main()
