"""``dermdistill predict`` and ``bundle``: what a server does with a bundle. Nothing here needs the training extra."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dermdistill.bundle.predictor import Prediction

app = typer.Typer(help="Check and compare bundles.", no_args_is_help=True, rich_markup_mode=None)

Bundle = Annotated[Path, typer.Argument(help="Bundle folder.")]
FP32 = Annotated[bool, typer.Option("--fp32", help="Use the FP32 model instead of the INT8 one.")]
Flips = Annotated[bool, typer.Option("--flips", help="Average over four reflections of each image; gives no decision.")]
DIFFERENT = 1
DECISIONS = {"refer": "refer", "no_referral": "no referral", "no_threshold": "-"}


def predict(
    bundle: Bundle,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    fp32: FP32 = False,
    flips: Flips = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Classify images with a bundle. Not for clinical use."""
    import json
    from dataclasses import asdict

    from dermdistill.bundle.predictor import Predictor
    from dermdistill.pictures import printable

    predictions = Predictor(bundle, int8=not fp32).predict(list(images), flips=flips)
    if not as_json:
        _print_table(images, predictions)
        return
    for image, prediction in zip(images, predictions, strict=True):
        typer.echo(json.dumps({"image": printable(str(image)), **asdict(prediction)}))


def score(
    bundle: Bundle,
    source: Annotated[Path, typer.Argument(help="Folder of images, or a Parquet table of paths or images.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    fp32: FP32 = False,
    flips: Flips = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads; by default one a core.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a job that was stopped.")] = False,
) -> None:
    """Classify all images of a folder or a table; an image that cannot be used gets a row with the reason."""
    from dermdistill.bundle.scoring import score_images

    done = score_images(bundle, source, out, int8=not fp32, flips=flips, workers=workers, resume=resume)
    before = f", {done.images - done.now:,} of them before" if done.now < done.images else ""
    typer.echo(f"{out}: {done.images:,} images{before}, {done.failed:,} could not be used")


def _print_table(images: "list[Path]", predictions: "list[Prediction]") -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dermdistill.pictures import printable

    table = Table("image", "most likely", "probability", "melanoma", "decision at 95% sensitivity", box=None)
    for column in (2, 3):
        table.columns[column].justify = "right"
    for image, prediction in zip(images, predictions, strict=True):
        table.add_row(
            Text(printable(str(image))),
            prediction.label,
            f"{prediction.probs[prediction.label]:.3f}",
            f"{prediction.melanoma_probability:.3f}",
            DECISIONS[prediction.decision],
        )
    # A pipe gets whole lines, however long the names of the files are.
    width = None if sys.stdout.isatty() else 80 + max((len(str(image)) for image in images), default=0)
    Console(width=width, highlight=False, emoji=False).print(table)
    typer.echo("Research software, not a medical device.", err=True)


@app.command()
def verify(bundle: Bundle) -> None:
    """Check every byte of a bundle: status 2 and the names of all files that were changed, are missing or too many."""
    from dermdistill.bundle.manifest import read_manifest

    manifest = read_manifest(bundle)
    size = sum(entry.bytes for entry in manifest.files.values())
    typer.echo(f"{bundle}: whole, {len(manifest.files)} files besides the manifest, {size:,} bytes")


@app.command()
def diff(first: Bundle, second: Bundle) -> None:
    """Say what differs between two bundles; status 1 where anything does."""
    from dermdistill.bundle.difference import bundle_differences

    found = bundle_differences(first, second)
    for item in found:
        typer.echo(f"{item.key}: {item.first} -> {item.second}")
    if found:
        raise typer.Exit(DIFFERENT)
    typer.echo("the two bundles are the same")
