"""The commands that put objects into clusters: `cluster`, `suggest-k`, `assign`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcomus.cli.log import print_json, suggest_next
from fastcomus.cli.options import IMAGES_HELP, Address, Engine, Json, register_command

if TYPE_CHECKING:
    from fastcomus.run.run import Run

clustering_app = typer.Typer()


@register_command(clustering_app, "cluster")
def cluster_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    embeddings: Annotated[
        Path | None, typer.Option(help="Cluster these rows instead: .npy (N, D), or Parquet with a column embedding.")
    ] = None,
    graph: Annotated[
        Path | None,
        typer.Option(help="Weights of links between the objects, instead of neighbours: .npz of SciPy, (N, N)."),
    ] = None,
    levels: Annotated[
        bool,
        typer.Option("--levels", help="Also find coarser and finer clusters, nested: columns of clusters.parquet."),
    ] = False,
    engine: Engine = "local",
    address: Address = "",
) -> None:
    """Cluster the objects and write the class maps of the clusters."""
    run.cluster(embeddings, graph, levels=levels, engine=engine, address=address, **given["cluster"])
    suggest_next(run.folder.path, "view", "report", "train")


@register_command(clustering_app, "cluster")
def suggest_k_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    embeddings: Annotated[
        Path | None, typer.Option(help="Look at these rows instead: .npy (N, D), or Parquet with a column embedding.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how many clusters the objects hold, by several criteria, and draw what a person needs to decide."""
    suggested = run.suggest_k(embeddings, **given["cluster"])
    if as_json:
        print_json(suggested.summarise())
        return
    taken = given["cluster"].get("choose_k", run.config.cluster.choose_k)
    for criterion, count in suggested.counts.items():
        chosen = taken == criterion
        typer.echo(f"{criterion}: {count}" + ("  (what --k auto takes)" if chosen else ""))
    if one := suggested.granularity:
        typer.echo(f"mixing gives {one.low} to {one.high}; {one.certainty:.0%} of its runs agree within a tenth")
        if one.is_unsure():
            typer.echo(
                "that is unsure: clusters overlap so much that their number depends on how much mixing is borne; look "
                "at pictures of several numbers before you choose --k"
            )
        numbers, told = suggested.levels.count(), suggested.summarise()
        if numbers["coarse"]:
            joined = ", ".join("+".join(map(str, clusters)) for clusters in told["coarse"].values())
            typer.echo(f"coarser: {numbers['coarse']}, joins {joined}")
        if numbers["fine"]:
            split = ", ".join(f"{cluster} in {len(parts)}" for cluster, parts in told["fine"].items())
            typer.echo(f"finer: {numbers['fine']}, splits {split}")


@register_command(clustering_app, "assign")
def assign_command(
    run: "Run",
    given: dict[str, dict[str, Any]],
    images: Annotated[str, typer.Argument(help=IMAGES_HELP, show_default=False)] = "",
    embeddings: Annotated[
        Path | None, typer.Option(help="Assign these rows instead: .npy (N, D), or Parquet with a column embedding.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of object masks of the new images, where the run had such of its own.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for assigned.parquet; by default assigned/ in the run.")
    ] = None,
    engine: Engine = "local",
    address: Address = "",
) -> None:
    """Put the objects of other images into the clusters that are there, without clustering again."""
    where: dict[str, Any] = {"engine": engine, "address": address}
    run.assign(images, output or "", embeddings=embeddings or "", masks=masks or "", **where, **given["assign"])
