"""The commands with which a person says what is right: `view` in a browser, `correct` in the terminal."""

import importlib.util
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcomus.cli.options import register_command
from fastcomus.errors import InputError

if TYPE_CHECKING:
    from fastcomus.run.run import Run

looking_app = typer.Typer()
_NEEDED = ("starlette", "uvicorn")


@register_command(looking_app, reads_images=True)
def view_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    port: Annotated[int, typer.Option(help="Port of this machine to listen on; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Look at the clusters in a browser, name and correct them there, and train on the corrections."""
    import webbrowser

    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise InputError(f"fastcomus view needs {' and '.join(missing)}; run pip install {' '.join(missing)}.")
    from fastcomus.cli.view.server import prepare_view

    view = prepare_view(run, port, ["--run", str(run.folder.path), "--device", str(run.workplace.backend.device)])
    opened = browser and webbrowser.open(view.address)
    where = "is open in your browser" if opened else "can be opened in a browser on this machine"
    typer.echo(f"{view.address}\n{where}, and saves into {run.folder.path}; ctrl-C ends it.")
    view.serve()


@register_command(looking_app)
def correct_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    objects: Annotated[
        list[int] | None,
        typer.Argument(
            metavar="[OBJECT]...",
            help="Rows of the objects, which clusters/clusters.csv has in its column object.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Where they belong: a cluster by number or name, new for a cluster of their own, - for what is no "
            "object, found to take back all that was said about them.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back the last correction.")] = False,
) -> None:
    """Move objects to the cluster where they belong, which train and export then go by; without arguments, list all."""
    from rich.console import Console

    from fastcomus.cli.tables import build_correction_table

    Console().print(build_correction_table(run.correct(objects or [], to, undo=undo), run.name()))
