"""The command line: one command per stage, no arithmetic."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcomus.cli.clustering import clustering_app
from fastcomus.cli.export import export_app
from fastcomus.cli.log import say
from fastcomus.cli.looking import looking_app
from fastcomus.cli.options import (
    Address,
    Classes,
    Device,
    Engine,
    Images,
    Replace,
    Truth,
    register_command,
)
from fastcomus.cli.weights import weights_app
from fastcomus.errors import InputError, explain_error
from fastcomus.interruption import EXIT_CODE as STOPPED
from fastcomus.interruption import end_at_safe_points
from fastcomus.processes import detect_process_group

if TYPE_CHECKING:
    from fastcomus.run.run import Run

app = typer.Typer(
    name="fastcomus",
    help="Unlabelled photographs in; object clusters, a mask for every image and a trained segmentation network out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; errors that a user can correct end it with one sentence.

    Exit codes: 2 for bad input or a file that cannot be used, 3 when memory ran out, 130 when stopped by ctrl-C.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    # Of several processes that train together only the first one logs.
    logging.getLogger("fastcomus").setLevel(logging.INFO if detect_process_group().is_first else logging.WARNING)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it would say of a damaged image is told as its reason
    try:
        with end_at_safe_points():
            app()
    except SystemExit as ended:  # Typer turns ctrl-C into it
        if ended.code == STOPPED:
            say("stopped; the same command goes on from here.", STOPPED)
        raise
    except Exception as error:
        told = explain_error(error)
        if told is None:
            raise
        say(told.text, told.exit_code)
        sys.exit(told.exit_code)


@register_command(app, "embed")
def embed_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    images: Images,
    replace: Replace = False,
    engine: Engine = "local",
    address: Address = "",
) -> None:
    """Find the objects in every image and embed them."""
    run.embed(images, replace=replace, engine=engine, address=address, **given["embed"])


@register_command(app, "saliency")
def train_saliency_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    images: Images,
    output: Annotated[
        Path | None, typer.Option(help="Checkpoint file to write; by default it lies in saliency/ of the run.")
    ] = None,
) -> None:
    """Train a saliency network of your own on unlabelled images, for embed --saliency FILE."""
    run.train_saliency(images, output or "", **given["saliency"])


@register_command(app, "train", "predict", reads_images=True)
def train_command(run: "Run", given: dict[str, dict[str, Any]]) -> None:
    """Train the segmentation network on the class maps, iteration by iteration."""
    run.train(**given["train"], **given["predict"])


@register_command(app, "predict")
def predict_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    images: Images,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the masks; by default predictions/ in the run.")
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write pictures tinted with the masks' colours, to overlays/ in it.")
    ] = False,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Also write probabilities, to probabilities/ in it: .npy, float16, (k + 1, h, w), a quarter of the "
            "sides at which the network sees the image.",
        ),
    ] = False,
    engine: Engine = "local",
    address: Address = "",
) -> None:
    """Label other images with the newest network; what is there already and still right stays."""
    written: dict[str, Any] = {"overlay": overlay, "probabilities": probabilities}
    run.predict(images, output or "", **written, engine=engine, address=address, **given["predict"])


@register_command(app)
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
    Console().print(build_name_table(named, count_objects(run.folder, read_clusters_manifest(run.folder))))


@register_command(app)
def history_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    use: Annotated[str, typer.Option(help="Go back to these clusters and all that was made of them: an id.")] = "",
    delete: Annotated[str, typer.Option(help="Delete these clusters and all that was made of them: an id.")] = "",
) -> None:
    """List the clusters made in this run folder, with their networks and names, and go back to some or delete some."""
    from rich.console import Console

    from fastcomus.cli.tables import build_history_table

    Console().print(build_history_table(run.history(use, delete)))


@register_command(app, reads_images=True)
def evaluate_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    truth: Truth,
    classes: Classes = None,
    iteration: Annotated[int | None, typer.Option(help="Iteration to score; by default the last.")] = None,
    fit_on: Annotated[
        str,
        typer.Option(
            help="Split or list file of other images to match clusters to classes on; by default the scored ones "
            "themselves, as the paper does, which flatters."
        ),
    ] = "",
    bootstrap: Annotated[
        int, typer.Option(help="Draw the images again so many times for a 95 % interval; 0 gives none.")
    ] = 0,
) -> None:
    """Score an iteration's masks against truth: IoU per class by Hungarian and by majority matching."""
    from rich.console import Console

    from fastcomus.evaluation.score_table import format_table

    Console().print(format_table(run.evaluate(truth, classes or "", iteration, fit_on=fit_on, bootstrap=bootstrap)))


@register_command(app, "report", reads_images=True)
def report_command(run: "Run", given: dict[str, dict[str, Any]]) -> None:
    """Write pages that show what was found, and where clusters get names: report/index.html in the run."""
    typer.echo(run.report(**given["report"]))


@register_command(app, "embed", "cluster", "train", "predict")
def run_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    images: Images,
    truth: Annotated[str, typer.Option(help="Score every iteration against it; see fastcomus evaluate --help.")] = "",
    classes: Classes = None,
    replace: Replace = False,
) -> None:
    """All stages in order, skipping what is up to date: embed, cluster, train, given --truth evaluate, and report."""
    from rich.console import Console

    from fastcomus.evaluation.score_table import format_table

    run.configure(given)
    for evaluation in run.run(images, truth, classes or "", replace=replace, report=True):
        Console().print(format_table(evaluation))
    run.report()


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the scenes and their run.")] = Path("comus-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the scenes and of the run.")] = 0,
    device: Device = "auto",
) -> None:
    """Make scenes with exact masks from scikit-image's photographs and run everything on them, offline."""
    from fastcomus.cli.demo.run import run_demo

    run_demo(folder, seed, device)


@app.command()
def doctor() -> None:
    """Show devices, libraries, which weights are present, and what the preset auto would take and why."""
    from fastcomus.cli.doctor import examine

    examine()


app.add_typer(clustering_app)
app.add_typer(looking_app)
app.add_typer(export_app, name="export", no_args_is_help=True)
app.add_typer(weights_app, name="weights", no_args_is_help=True)

if __name__ == "__main__":
    main()
