"""Data in the form of scripts, which a page opened from disk may load, while it may not fetch other files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastcomus.store.run_folder import RunFolder

if TYPE_CHECKING:
    from bokeh.plotting import figure


def format_script(variable: str, value: Any) -> str:
    """Write an assignment in JavaScript, in ASCII and safe anywhere in a page.

    Args:
        variable: What is assigned to.
        value: Anything that JSON can hold.

    Returns:
        A line of text.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    text = text.replace("<", "\\u003c")
    return f"{variable} = {text};\n"


def write_script(target: RunFolder, name: str, variable: str, value: Any) -> None:
    """Write an assignment in JavaScript to a file; see `format_script`.

    Args:
        target: The folder of the report.
        name: Name of the file.
        variable: What is assigned to.
        value: Anything that JSON can hold.
    """
    target.write_text(name, format_script(variable, value))


def serialise_figure(plot: figure) -> Any:
    """Convert a plot to JSON for `Bokeh.embed.embed_item`; equal plots give equal JSON."""
    from bokeh.embed import json_item

    return _renumber_ids(json_item(plot))


def _renumber_ids(item: Any, numbers: dict[str, str] | None = None) -> Any:
    """Count Bokeh's model ids from 1, as its own grow with every plot of the process."""
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
