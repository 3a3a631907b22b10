"""``dermdistill predict`` and ``bundle``: what a server does with a bundle. Nothing here needs the training extra."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dermdistill.bundle.predictor import Prediction

app = typer.Typer(help="Check, compare, install and pack bundles.", no_args_is_help=True, rich_markup_mode=None)

Bundle = Annotated[Path, typer.Argument(help="Bundle folder.")]
Run = Annotated[Path, typer.Argument(help="Folder of a finished run, or a bundle folder.")]
FP32 = Annotated[bool, typer.Option("--fp32", help="Use the FP32 model instead of the INT8 one.")]
Flips = Annotated[bool, typer.Option("--flips", help="Average over four reflections of each image; gives no decision.")]
DIFFERENT = 1
DECISIONS = {"refer": "refer", "no_referral": "no referral", "no_threshold": "-"}


def predict(
    words: Annotated[
        list[Path],
        typer.Argument(
            metavar="[BUNDLE] IMAGE...",
            help="Image files; before them a bundle folder, if not the one of `bundle where`.",
        ),
    ],
    fp32: FP32 = False,
    flips: Flips = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
) -> None:
    """Classify images with a bundle. Research software, not a medical device."""
    import json
    from dataclasses import asdict

    from dermdistill.bundle.predictor import Predictor
    from dermdistill.pictures import printable

    bundle, images = _bundle_and_images(words)
    predictions = Predictor(bundle, int8=not fp32).predict(list(images), flips=flips)
    if not as_json:
        _print_table(images, predictions)
        return
    for image, prediction in zip(images, predictions, strict=True):
        typer.echo(json.dumps({"image": printable(str(image)), **asdict(prediction)}))


def score(
    words: Annotated[
        list[Path],
        typer.Argument(
            metavar="[BUNDLE] SOURCE",
            help="Folder of images, or a Parquet table of paths or images; "
            "before it a bundle folder, if not the one of `bundle where`.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    fp32: FP32 = False,
    flips: Flips = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Threads; by default one a core.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a job that was stopped.")] = False,
) -> None:
    """Classify all images of a folder or a table; an image that cannot be used gets a row with the reason."""
    from dermdistill.bundle.scoring import score_images

    bundle, source = _bundle_and_source(words)
    done = score_images(bundle, source, out, int8=not fp32, flips=flips, workers=workers, resume=resume)
    before = f", {done.images - done.now:,} of them before" if done.now < done.images else ""
    typer.echo(f"{out}: {done.images:,} images{before}, {done.failed:,} could not be used")


def _default_bundle() -> Path:
    from dermdistill.bundle.shipped import find_bundle

    found = find_bundle()
    typer.echo(f"bundle: {found.folder} ({found.place})", err=True)
    return found.folder


def _names_bundle(words: "list[Path]") -> bool:
    """Whether the first word is a folder, or, before others, the name of one that is not there."""
    first = words[0]
    return first.is_dir() or (len(words) > 1 and not first.suffix and not first.exists())


def _bundle_and_images(words: "list[Path]") -> "tuple[Path, list[Path]]":
    from dermdistill.errors import ConfigError

    if not _names_bundle(words):
        return _default_bundle(), words
    if len(words) == 1:
        raise ConfigError(
            f"{words[0]}: is a folder, and no image was named",
            rule="predict [BUNDLE] IMAGE...: image files, and before them a bundle folder if you want one",
            next_step="name image files; for all images of a folder there is `dermdistill score`",
        )
    return words[0], words[1:]


def _bundle_and_source(words: "list[Path]") -> "tuple[Path, Path]":
    from dermdistill.bundle.manifest import MANIFEST_FILE
    from dermdistill.errors import ConfigError

    if len(words) > 2 or (len(words) == 1 and (words[0] / MANIFEST_FILE).is_file()):
        problem = f"{len(words)} names were given" if len(words) > 2 else f"{words[0]}: is a bundle, and no images"
        raise ConfigError(
            problem,
            rule="score [BUNDLE] SOURCE: one folder or table of images, and before it a bundle folder if you want one",
            next_step="name one folder of images, or one table",
        )
    return (words[0], words[1]) if len(words) == 2 else (_default_bundle(), words[0])


def _print_table(images: "list[Path]", predictions: "list[Prediction]") -> None:
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dermdistill.pictures import printable

    columns = ("image", "label", "confidence", "melanoma", "decision at 95% sensitivity", "could be", "do not use, as")
    table = Table(*columns, box=None)
    for column in (2, 3):
        table.columns[column].justify = "right"
    for image, prediction in zip(images, predictions, strict=True):
        table.add_row(
            Text(printable(str(image))),
            prediction.label,
            f"{prediction.confidence:.3f}",
            f"{prediction.melanoma_probability:.3f}",
            DECISIONS[prediction.decision],
            " ".join(prediction.prediction_set),
            ", ".join(reason.replace("_", " ") for reason in prediction.reasons),
        )
    # A pipe gets whole lines, however long the names of the files are.
    width = None if sys.stdout.isatty() else 240 + max((len(str(image)) for image in images), default=0)
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


@app.command()
def install(run: Run) -> None:
    """Make a bundle the one that `predict` and `score` take where none is named."""
    from dermdistill.bundle.shipped import install_bundle

    typer.echo(f"installed: {install_bundle(run)}")


@app.command()
def uninstall() -> None:
    """Remove the bundle that `install` put in place."""
    from dermdistill.bundle.shipped import uninstall_bundle

    typer.echo(f"removed: {uninstall_bundle()}")


@app.command()
def where() -> None:
    """Say which bundle `predict` and `score` take where none is named, and check it."""
    from dermdistill.bundle.manifest import read_manifest
    from dermdistill.bundle.shipped import find_bundle

    found = find_bundle()
    manifest = read_manifest(found.folder)
    recipe = manifest.provenance.get("recipe", "unknown")
    name = recipe.get("name", "unknown") if isinstance(recipe, dict) else recipe
    size = sum(entry.bytes for entry in manifest.files.values())
    typer.echo(f"{found.folder}: {found.place}")
    typer.echo(f"recipe {name}, task {manifest.task}, input {manifest.spec.size} x {manifest.spec.size} pixels")
    typer.echo(f"{', '.join(manifest.files)}: {size:,} bytes")


@app.command()
def pack(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Model file that stays, by default model.int8.onnx. Repeatable.")
    ] = None,
) -> None:
    """Write a smaller bundle: some of a bundle's models, its card and its notices, and a new manifest."""
    from dermdistill.bundle.pack import pack_bundle
    from dermdistill.bundle.variants import INT8_FILE

    manifest = pack_bundle(run, out, only=only or [INT8_FILE])
    size = sum(entry.bytes for entry in manifest.files.values())
    typer.echo(f"{out}: {', '.join(manifest.files)}, {size:,} bytes")
