"""What a table or figure gives: rows of numbers, over seeds where there are several, and what must be said of them."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

Cell = str | int | float | None | Sequence[float]


@dataclass
class Result:
    """A table: the first of `columns` names the row, a column `paper` holds the paper's numbers.

    `rows`: column -> a text, a count, a fraction (shown in percent; NaN is None), or the fractions of several seeds.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[dict[str, Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        shown = (None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells)
        self.rows.append(dict(zip(self.columns, shown, strict=True)))

    def format_rows(self) -> list[dict[str, str]]:
        return [{column: _format_cell(cell) for column, cell in row.items()} for row in self.rows]


def _format_cell(cell: Cell) -> str:
    if cell is None or isinstance(cell, str | int):
        return "-" if cell is None else str(cell)
    values = [100 * value for value in ([cell] if isinstance(cell, float) else cell)]
    spread = f" +- {statistics.pstdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def note_order(names: Sequence[str], values: Sequence[float]) -> str:
    """Whether every value is above the one before; where not, which are not."""
    steps = list(zip(names, names[1:], values, values[1:], strict=False))
    broken = [f"{b} ({100 * y:.1f}) is not above {a} ({100 * x:.1f})" for a, b, x, y in steps if not y > x]
    return "The paper's order holds." if not broken else f"The paper's order does not hold: {'; '.join(broken)}."


def extract_reason(error: Exception) -> str:
    """What is wrong, without what to do about it."""
    return re.split(r"[;(]", str(error))[0].strip()
