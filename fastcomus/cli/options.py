"""Command-line options made from the dataclasses of `config.py`, which alone hold names, help and defaults."""

import inspect
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcomus.cli.help import ShortHelpCommand, show_all
from fastcomus.cli.log import log_as_json, set_loudness
from fastcomus.config import STAGES, Config
from fastcomus.errors import InputError
from fastcomus.processes import detect_process_group
from fastcomus.settings import PRESETS, read_toml

_HELP = {field.name: field.metadata["help"] for field in fields(Config) if "help" in field.metadata}

Folder = Annotated[Path, typer.Option("--run", help="Run folder: everything a run makes lies in it.")]
Preset = Annotated[str | None, typer.Option(help=f"{_HELP['preset']} (default: auto)", show_default=False)]
Seed = Annotated[int | None, typer.Option(help=f"{_HELP['seed']} (default: 0)", show_default=False)]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N; auto takes a CUDA device when there is one. embed and predict share images "
        "among several: cuda:0,cuda:1, or cuda:all."
    ),
]
Inference = Annotated[
    str,
    typer.Option(
        help="What runs trained networks on a CPU: auto (openvino where it is installed and there are enough images), "
        "torch or openvino (extra openvino), about twice as fast; results are the same to rounding."
    ),
]
Workers = Annotated[int, typer.Option(help="Threads that read images, in each process; 0 takes one per core.")]
Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="On a GPU: train to the same bytes every time, at some cost, and cluster by torch alone. On a CPU it is "
        "always so.",
    ),
]
Engine = Annotated[
    str, typer.Option(help="local, or ray: on Ray's actors (extra distributed); --workers is then the cores of each.")
]
Address = Annotated[
    str,
    typer.Option(
        help="Of a Ray cluster, HOST:PORT or auto; by default RAY_ADDRESS, else Ray runs on this machine alone."
    ),
]
LogJson = Annotated[bool, typer.Option("--log-json", help="Write the log as an object of JSON a line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No log and no progress, but warnings and errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log with times, and what libraries say.")]
HelpAll = Annotated[
    bool, typer.Option("--help-all", help="Show every option and exit.", is_eager=True, callback=show_all)
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
Settings = Annotated[Path | None, typer.Option("--config", help="TOML file of settings; options given here win.")]
IMAGES_HELP = (
    "Folder of images or of tars with images (searched to any depth), an image, a tar, tars by a pattern such as "
    "'shards-{000..009}.tar', any of these behind an s3://, gs://, http:// or https:// address, a Parquet table with "
    "images in it or a folder of such, a file with a path or URL a line, or - for such lines on standard input."
)
Images = Annotated[str, typer.Argument(help=IMAGES_HELP, show_default=False)]
Replace = Annotated[bool, typer.Option("--replace", help="Drop objects of other images that the run folder holds.")]
Moved = Annotated[str, typer.Option("--images", help="Folder that holds the run's images now, if they were moved.")]
TRUTH_HELP = (
    "Truth: a folder of class masks (PNG: 0 background, 255 void, or object where there is no "
    "other label) named like the images, voc:PATH@val, "
    "coco:PATH@val2017, coco-voc:PATH@val2017 (VOC's classes in COCO) or folders:DIR (a folder of images per class); "
    "@LIST behind it, a file with an image name a line, says which images count."
)
Truth = Annotated[str, typer.Option(help=TRUTH_HELP)]
Classes = Annotated[Path | None, typer.Option(help="File with a class name per line, background first.")]

COMMON: dict[str, tuple[Any, Any]] = {
    "folder": (Folder, Path("comus-run")),
    "preset": (Preset, None),
    "seed": (Seed, None),
    "device": (Device, "auto"),
    "workers": (Workers, 0),
    "deterministic": (Deterministic, False),
    "settings": (Settings, None),
    "log_json": (LogJson, False),
    "quiet": (Quiet, False),
    "verbose": (Verbose, False),
    "help_all": (HelpAll, False),
}

_RUN_NETWORKS = ("embed", "train", "predict", "assign", "run")
_ON_SEVERAL_DEVICES = ("embed", "predict")


def register_command(
    app: typer.Typer, *stages: str, reads_images: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that makes a function a command with an option for every setting of some stages.

    The function is called as `function(run, given, **own)`: the `Run`, the settings that were given, by stage, and the
    function's further parameters, which become options too. `COMMON` options are added to every command.

    Args:
        app: The Typer application that gets the command.
        *stages: Names of stages in `config.STAGES`.
        reads_images: Whether the command reads the images of the run and may be told where they were moved to.

    Raises:
        InputError: By the command, for several devices or processes where it uses only one.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(function).parameters.values() if p.name not in ("run", "given")]
        options = _make_setting_options(stages)
        name = function.__name__.removesuffix("_command").replace("_", "-")

        def command(**values: Any) -> None:
            set_loudness(values["quiet"], values["verbose"])
            if values["log_json"]:
                log_as_json()
            if name != "train" and (processes := detect_process_group().size) > 1:
                raise InputError(
                    f"fastcomus {name} runs in one process and was started in {processes}; only fastcomus train is "
                    "shared among several, so start it without torchrun."
                )
            if name not in _ON_SEVERAL_DEVICES and _has_several_devices(values["device"]):
                raise InputError(
                    f"fastcomus {name} runs on one device; got --device {values['device']}. Only embed and predict "
                    "share images among several, and torchrun shares fastcomus train."
                )
            run = _open_run(values)
            given = {
                stage: {f.name: values[f.name] for f in fields(STAGES[stage]) if values[f.name] is not None}
                for stage in stages
            }
            run.workplace.check_settings(given)  # wrong ones are told before anything heavy is loaded
            function(run, given, **{p.name: values[p.name] for p in own})

        common = [_make_parameter(name, *option) for name, option in COMMON.items()]
        if name in _RUN_NETWORKS:
            common.append(_make_parameter("inference", Inference, "auto"))
        if reads_images:
            common.append(_make_parameter("moved", Moved, ""))
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *options, *common)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__ = function.__doc__
        app.command(name, cls=ShortHelpCommand)(command)
        return function

    return register


def _has_several_devices(device: str) -> bool:
    return "," in device or device == "cuda:all"


def _open_run(values: dict[str, Any]) -> Any:
    from fastcomus.run.run import Run

    return Run(
        values["folder"],
        preset=values["preset"],
        seed=values["seed"],
        device=values["device"],
        workers=values["workers"] or None,
        settings=read_toml(values["settings"]) if values["settings"] else None,
        images=values.get("moved", ""),
        inference=values.get("inference", "auto"),
        deterministic=values["deterministic"],
    )


def _make_setting_options(stages: tuple[str, ...]) -> list[inspect.Parameter]:
    """Return one option per setting; a setting that two stages share is one option for both."""
    options: dict[str, inspect.Parameter] = {}
    for stage in stages:
        for field in fields(STAGES[stage]):
            options.setdefault(field.name, _make_setting_option(stage, field))
    return list(options.values())


def _make_setting_option(stage: str, field: "Field[Any]") -> inspect.Parameter:
    """Return the option of a setting; its default None stands for the value of the preset or the run folder."""
    by_preset = {
        name: preset[stage][field.name] for name, preset in PRESETS.items() if field.name in preset.get(stage, {})
    }
    kind, zero = type(field.default), field.metadata["zero"]
    values = {"": field.default, **by_preset}
    words = {name: zero if zero and value == 0 else _format_value(value) for name, value in values.items()}
    shown = "; ".join([words.pop(""), *(f"{name}: {word}" for name, word in words.items())])
    flag = f"--{field.name.replace('_', '-')}"
    names = (f"{flag}/--no-{flag.removeprefix('--')}",) if kind is bool else (flag,)
    panel = f"Settings of {stage}, remembered in the run folder"
    text = f"{field.metadata['help']} (default: {shown})"
    parser, metavar = (_build_number_parser(zero), f"NUMBER|{zero}") if zero else (None, None)
    option = typer.Option(*names, help=text, show_default=False, rich_help_panel=panel, parser=parser, metavar=metavar)
    return _make_parameter(field.name, Annotated[kind | None, option], None)


def _build_number_parser(zero: str) -> Callable[[str], int]:
    """Return a parser of whole numbers, for which the word `zero` means 0."""

    def number(text: str) -> int:
        try:
            if zero == "auto" and text != zero and int(text) == 0:
                raise typer.BadParameter("0 is too few; leave the option out, or say auto.")
            return 0 if text == zero else int(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is neither a whole number nor {zero}.") from error

    return number


def _make_parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _format_value(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else "none" if value == "" else str(value)
