"""The command line: one command per stage, no arithmetic."""

import atexit
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcomus import __version__
from fastcomus.cli.clustering import clustering_app
from fastcomus.cli.export import export_app
from fastcomus.cli.help import OrderedGroup
from fastcomus.cli.log import print_json, say, start_log, suggest_next
from fastcomus.cli.looking import looking_app
from fastcomus.cli.options import (
    Address,
    Classes,
    Device,
    Engine,
    Images,
    Json,
    Replace,
    Truth,
    register_command,
)
from fastcomus.cli.weights import weights_app
from fastcomus.errors import InputError, explain_error
from fastcomus.interruption import EXIT_CODE as STOPPED
from fastcomus.interruption import end_at_safe_points

if TYPE_CHECKING:
    from fastcomus.run.run import Run

app = typer.Typer(
    name="fastcomus",
    help="Unlabelled photographs in; object clusters, a mask for every image and a trained segmentation network out.",
    no_args_is_help=True,
    cls=OrderedGroup,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"fastcomus {__version__}")
        raise typer.Exit


@app.callback()
def accept_version(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Unlabelled photographs in; object clusters, a mask for every image and a trained segmentation network out."""


def main() -> None:
    """Run the command line; errors that a user can correct end it with one sentence.

    Exit codes: 2 for bad input or a file that cannot be used, 3 when memory ran out, 130 when stopped by ctrl-C.
    """
    gc.set_threshold(10_000)  # while libraries load, looking for cycles takes a tenth of the time
    atexit.register(gc.freeze)  # at the end nothing of torch and numba is looked through once more, which takes seconds
    start_log()
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
    made = run.embed(images, replace=replace, engine=engine, address=address, **given["embed"])
    if made.objects > 1:  # fewer are no clusters
        suggest_next(run.folder.path, "cluster")


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
    suggest_next(run.folder.path, "view", "predict MORE-PHOTOS", "export coco")


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
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="One small size: with the preset offline about three times as fast as without; outlines in large "
            "photographs are coarser.",
        ),
    ] = False,
    best: Annotated[
        bool,
        typer.Option(
            "--best",
            help="All sizes mirrored, too: nearly twice as slow with the preset offline, 0.1 points of mIoU better.",
        ),
    ] = False,
    engine: Engine = "local",
    address: Address = "",
) -> None:
    """Label other images with the newest network; what is there already and still right stays."""
    if fast and best:
        raise InputError("--fast and --best exclude each other; give one of the two.")
    how: dict[str, Any] = {"overlay": overlay, "probabilities": probabilities}
    how["quality"] = "fast" if fast else "best" if best else ""
    run.predict(images, output or "", **how, engine=engine, address=address, **given["predict"])


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
    as_json: Json = False,
) -> None:
    """Score an iteration's masks against truth: IoU per class by Hungarian and by majority matching."""
    from rich.console import Console

    from fastcomus.evaluation.score_table import format_table

    evaluation = run.evaluate(truth, classes or "", iteration, fit_on=fit_on, bootstrap=bootstrap)
    if as_json:
        print_json(evaluation.to_json())
        return
    Console().print(format_table(evaluation))


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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, what is there already, and about how long.")
    ] = False,
    replace: Replace = False,
) -> None:
    """All stages in order, skipping what is up to date: embed, cluster, train, given --truth evaluate, and report."""
    from rich.console import Console

    from fastcomus.evaluation.score_table import format_table

    run.configure(given)
    if dry_run:
        from fastcomus.cli.tables import build_plan_table
        from fastcomus.run.plan import plan_run

        Console().print(build_plan_table(plan_run(run.workplace, images, truth, classes or "", replace)))
        return
    for evaluation in run.run(images, truth, classes or "", replace=replace, report=True):
        Console().print(format_table(evaluation))
    run.report()
    suggest_next(run.folder.path, "view", "predict MORE-PHOTOS", "export coco")


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
def doctor(as_json: Json = False) -> None:
    """Show devices, libraries, which weights are present, and what the preset auto would take and why."""
    from fastcomus.cli.doctor import describe_machine, examine

    if as_json:
        print_json(describe_machine())
    else:
        examine()


app.add_typer(clustering_app)
app.add_typer(looking_app)
app.add_typer(export_app, name="export", no_args_is_help=True)
app.add_typer(weights_app, name="weights", no_args_is_help=True)

if __name__ == "__main__":
    main()
