"""`fastcomus weights`: what networks are known by name, fetching their weights, adding files by hand."""

from pathlib import Path
from typing import Annotated

import typer

weights_app = typer.Typer(help="Weights of networks: what there is, fetching them, adding files by hand.")
WeightsName = Annotated[str, typer.Argument(help="A name that `weights list` shows, or a timm name.")]


@weights_app.command("list")
def weights_list() -> None:
    """Show the networks known by name, their licences, whether labels made them, and whether they are here."""
    from rich.console import Console

    from fastcomus.cli.tables import build_weight_table

    console = Console()
    console.print(build_weight_table(console.width))


@weights_app.command("fetch")
def weights_fetch(name: WeightsName) -> None:
    """Download weights, going on where an earlier attempt stopped."""
    from fastcomus.networks import weights

    typer.echo(f"{name} is in {weights.obtain_checkpoint_file(name)}")


@weights_app.command("add")
def weights_add(
    name: WeightsName,
    file: Annotated[Path, typer.Argument(help="Checkpoint: safetensors, or PyTorch's .pth.", show_default=False)],
) -> None:
    """Copy a file into the cache as the weights of a network, for machines without a network connection."""
    from fastcomus.networks import weights
    from fastcomus.objects.saliency.skeletons import create_saliency_network

    typer.echo(f"{name} is in {weights.add(name, file, create_saliency_network)}")
