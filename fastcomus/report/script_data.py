"""Data as scripts: a page opened from disk may run these, where it may not fetch files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bokeh.plotting import figure


def format_script(variable: str, value: Any) -> str:
    """`variable` = `value` as JavaScript, in ASCII, and harmless wherever it stands in a page."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    return f"{variable} = {text};\n"


def write_script(target: RunFolder, name: str, variable: str, value: Any) -> None:
    target.write_text(name, format_script(variable, value))


def serialise_figure(plot: figure) -> Any:
    """`plot` for `Bokeh.embed.embed_item`; the same plot gives the same bytes."""
    from bokeh.embed import json_item

    return _renumber_ids(json_item(plot))


def _renumber_ids(item: Any, numbers: dict[str, str] | None = None) -> Any:
    """`item` with Bokeh's model ids counted from 1: theirs grow with every plot of the process."""
    numbers = {} if numbers is None else numbers
    if isinstance(item, list | tuple):
        return [_renumber_ids(one, numbers) for one in item]
    if not isinstance(item, dict):
        return item
    return {
        key: numbers.setdefault(value, f"p{len(numbers) + 1}")
        if key in ("id", "root_id") and isinstance(value, str)
        else _renumber_ids(value, numbers)
        for key, value in item.items()
    }
