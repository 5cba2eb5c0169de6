"""The commands with which a person looks and says what is right: `view`, `name`, `correct`, `history`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcomus.cli.log import list_missing_for_view, print_json, suggest_next
from fastcomus.cli.options import Json, register_command
from fastcomus.errors import InputError

if TYPE_CHECKING:
    from fastcomus.run.run import Run

looking_app = typer.Typer()


@register_command(looking_app, reads_images=True)
def view_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    port: Annotated[int, typer.Option(help="Port of this machine to listen on; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Look at the clusters in a browser, name and correct them there, and train on the corrections."""
    import webbrowser

    if missing := list_missing_for_view():
        raise InputError(f"fastcomus view needs {' and '.join(missing)}; run pip install {' '.join(missing)}.")
    from fastcomus.cli.view.server import prepare_view

    view = prepare_view(run, port, ["--run", str(run.folder.path), "--device", run.workplace.backend.device_name])
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
    alike: Annotated[
        bool,
        typer.Option("--alike", help="Move also what is more like these objects than like its own cluster."),
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back the last correction.")] = False,
) -> None:
    """Move objects to the cluster where they belong, which train and export then go by; without arguments, list all."""
    from rich.console import Console

    from fastcomus.cli.tables import build_correction_table

    Console().print(build_correction_table(run.correct(objects or [], to, alike=alike, undo=undo), run.name()))
    if objects or undo:
        suggest_next(run.folder.path, "train", "report")


@register_command(looking_app)
def name_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CLUSTER=NAME]...",
            help="Such as 3=cat 7=cat 9=-: equal names merge clusters, - drops one. Cluster numbers are those of "
            "clusters.parquet.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Take all names from this names.toml, such as the report saves.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give clusters names, which predict, evaluate, assign and export then go by; without arguments, show them."""
    from rich.console import Console

    from fastcomus.cli.tables import build_name_table
    from fastcomus.clusters.files import count_objects
    from fastcomus.clusters.names import parse_names
    from fastcomus.run.contents import read_clusters_manifest

    if names and file:
        raise InputError("give either names or --file, not both.")
    named = run.name(file or parse_names(names or []))
    sizes = count_objects(run.folder, read_clusters_manifest(run.folder))
    if as_json:
        called = dict(named.given)
        print_json(
            [
                {"cluster": one, "objects": size, "name": called.get(one), "label": named.class_of_cluster[one]}
                for one, size in enumerate(sizes)
            ]
        )
    else:
        Console().print(build_name_table(named, sizes))
        if names or file:
            suggest_next(run.folder.path, "report", "export coco")


@register_command(looking_app)
def history_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    use: Annotated[str, typer.Option(help="Go back to these clusters and all that was made of them: an id.")] = "",
    delete: Annotated[str, typer.Option(help="Delete these clusters and all that was made of them: an id.")] = "",
    as_json: Json = False,
) -> None:
    """List the clusters made in this run folder, with their networks and names, and go back to some or delete some."""
    from rich.console import Console

    from fastcomus.cli.tables import build_history_table

    history = run.history(use, delete)
    if as_json:
        print_json([asdict(one) for one in history])
    else:
        Console().print(build_history_table(history))
