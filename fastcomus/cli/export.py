"""The commands of `fastcomus export`: masks in the formats of other tools, and the network as a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastcomus.cli.options import register_command
from fastcomus.config import IMAGE_TRANSFERS

if TYPE_CHECKING:
    from fastcomus.run.run import Run

export_app = typer.Typer(help="Masks in the formats of other tools, or the trained network as a file.")

Given = dict[str, dict[str, Any]]
Output = Annotated[
    Path | None,
    typer.Option(
        help="New folder to write; by default exports/iteration-N-FORMAT in the run, with -2 beside an earlier one."
    ),
]
Iteration = Annotated[int | None, typer.Option(help="Iteration whose masks to take; by default the last.")]
Transfer = Annotated[
    str,
    typer.Option(
        help="link shares the disk space of the images with hard links where they lie on the same disk (a tool that "
        "changes one changes both), copy never does. Images that other tools would not open or would show otherwise "
        "(palettes, CMYK, 16 bits, floats, transparency, turned by EXIF) are written as RGB.",
    ),
]

_FORMATS = {
    "coco": "COCO JSON: a run-length mask per connected region, exact to the pixel, beside the images.",
    "voc": "PASCAL VOC: VOCdevkit/VOC2012 with palette PNGs, exact to the pixel, and labelmap.txt; other images become "
    "JPEGs.",
    "yolo": "YOLO segmentation: a text file of polygons per image, and data.yaml; classes count from 0 without "
    "background, folders become part of the names.",
    "labelme": "LabelMe: a JSON file of polygons beside every image, to be looked at and corrected by hand.",
    "label-studio": "Label Studio: tasks.json with a brush per connected region as predictions, exact to the pixel, "
    "label-config.xml, and the images.",
    "cvat": "CVAT: images, labels.json, and annotations.zip (Segmentation mask 1.1), exact to the pixel.",
    "fiftyone": "FiftyOne: an ImageSegmentationDirectory of images and grey masks, exact to the pixel, and "
    "mask_targets.json.",
    "huggingface": "Hugging Face datasets: a folder for load_dataset with the columns image, mask and classes, exact "
    "to the pixel.",
    "csv": "Tables without images: regions.csv with class, box and area of every connected region, and images.csv with "
    "each image's main class.",
}


def _register_format(format_name: str, explanation: str) -> None:
    def command(
        run: "Run",
        given: Given,
        output: Output = None,
        iteration: Iteration = None,
        transfer: Transfer = IMAGE_TRANSFERS[0],
    ) -> None:
        run.export(format_name, output or "", iteration, transfer=transfer)

    command.__name__, command.__doc__ = format_name.replace("-", "_"), explanation
    register_command(export_app, reads_images=True)(command)


for _format, _explanation in _FORMATS.items():
    _register_format(_format, _explanation)


@register_command(export_app)
def onnx_command(
    run: "Run",
    given: Given,
    output: Annotated[Path | None, typer.Option(help="File to write; by default segmenter.onnx in the run.")] = None,
    iteration: Annotated[int | None, typer.Option(help="Iteration whose network to take; by default the last.")] = None,
) -> None:
    """Write a trained network as ONNX: images (B, 3, H, W) uint8 in, labels (B, H, W) and coarse logits out."""
    run.export("onnx", output or "", iteration)
