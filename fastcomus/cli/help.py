"""Commands as they are used, quick to start; `--help` shows what most need, `--help-all` everything."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

ORDER = (
    *("doctor", "demo", "run", "view", "name", "correct", "train", "predict", "assign", "export", "evaluate"),
    *("report", "embed", "cluster", "suggest-k", "history", "train-saliency", "weights"),
)
# Options that `--help` shows of every command that has them, beside those of that command alone.
_FIRST = {"k", "saliency", "masks", "encoder", "iterations", "epochs", "folder", "preset", "device", "help_all"}
SHARED = {"seed", "workers", "inference", "deterministic", "settings", "log_json", "quiet", "verbose", "moved"}
_RARELY_USED = {"replace", "engine", "address", "bootstrap", "fit_on", "probabilities"}
_SHOWN_AT_MOST = 14  # commands with no more options show all


class OrderedGroup(TyperGroup):
    """Commands in the order of `ORDER`, then others."""

    def list_commands(self, ctx: Any) -> list[str]:
        """See `TyperGroup.list_commands`."""
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


class ShortHelpCommand(TyperCommand):
    """A command whose `--help` leaves out what few need, and that takes no time for options that are not given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:
            _skip_where_absent(parameter)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See `TyperCommand.format_help`."""
        left_out: list[Any] = [] if ctx.meta.get("fastcomus.help_all") else self._list_rarely_used()
        epilog = self.epilog
        for parameter in left_out:
            parameter.hidden = True
        if left_out:
            self.epilog = f"{len(left_out)} more options: {ctx.command_path} --help-all"
        try:
            super().format_help(ctx, formatter)
        finally:
            self.epilog = epilog
            for parameter in left_out:
                parameter.hidden = False

    def _list_rarely_used(self) -> list[Any]:
        parameters: list[Any] = list(self.params)
        options = [one for one in parameters if one.param_type_name == "option" and not one.hidden]
        if len(options) <= _SHOWN_AT_MOST:
            return []
        return [one for one in options if one.name not in _FIRST and (one.name in _RARELY_USED or _is_shared(one))]


def _skip_where_absent(parameter: Any) -> None:
    """Leave out what Typer does to find that None stays None: of forty options that is a fifth of a second."""
    process = parameter.process_value

    def process_given(ctx: Any, value: Any) -> Any:
        is_list = parameter.multiple or parameter.nargs == -1  # for which None becomes ()
        if value is None and not (is_list or parameter.required or parameter.callback):
            return None
        return process(ctx, value)

    parameter.process_value = process_given


def _is_shared(option: Any) -> bool:
    """Whether other commands have the option too: those about the run, and settings."""
    return option.name in SHARED or getattr(option, "rich_help_panel", None) is not None


def show_all(ctx: typer.Context, is_asked: bool) -> None:
    """Print the help with every option and end."""
    if is_asked and not ctx.resilient_parsing:
        ctx.meta["fastcomus.help_all"] = True
        typer.echo(ctx.get_help())
        raise typer.Exit
