"""``dermdistill data``: catalog, split, audit, exploration, synthetic lesions."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Read, split, audit and explore images.", no_args_is_help=True, rich_markup_mode=None)

Source = Annotated[Path, typer.Argument(metavar="PATH", help="Folder of images with their metadata.")]
Layout = Annotated[
    str | None, typer.Option("--layout", help="ham10000, folder or isic; found out where it is not given.")
]
LEAKS_FOUND = 1


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; defaults stand in ``dermdistill.config`` alone."""
    return {name: value for name, value in options.items() if value is not None}


@app.command()
def index(
    path: Source,
    out: Annotated[Path | None, typer.Option("--out", help="Write the catalog here (.parquet).")] = None,
    layout: Layout = None,
) -> None:
    """Read a folder, check every row and image, and count what is there."""
    from dermdistill.data.catalog import catalog_sha256, write_catalog
    from dermdistill.data.readers import read_catalog
    from dermdistill.labels import DIAGNOSES

    catalog = read_catalog(path, layout)
    typer.echo(f"{len(catalog)} images of {catalog['lesion_id'].nunique()} lesions in {path}")
    counts = catalog["diagnosis"].value_counts()
    for diagnosis in DIAGNOSES:
        typer.echo(f"  {diagnosis.code:6} {counts.get(diagnosis.code, 0):6}  {diagnosis.name}")
    typer.echo(f"catalog sha256 {catalog_sha256(catalog)}")
    if out is not None:
        write_catalog(catalog, out)
        typer.echo(f"catalog: {out}")


@app.command()
def split(
    path: Source,
    out: Annotated[Path, typer.Option("--out", help="Folder for split.csv and split.json.")],
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", help="lesion (default), published, published-oversampled, given."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    split_file: Annotated[
        str | None, typer.Option("--split-file", help="image_id,split table for the protocol `given`.")
    ] = None,
    layout: Layout = None,
) -> None:
    """Cut the images in train, val and test."""
    from dermdistill.config import DataConfig
    from dermdistill.data.copies import exact_copies
    from dermdistill.data.readers import read_catalog
    from dermdistill.data.split import make_split, write_split
    from dermdistill.recipes.load import parse_config

    config = parse_config(DataConfig, _given(protocol=protocol, seed=seed, split_file=split_file), source="data split")
    catalog = read_catalog(path, layout)
    made = make_split(catalog, config, same_image=exact_copies(catalog))
    write_split(made, out)
    for part, images in made.info["images"].items():
        typer.echo(f"{part:6} {images:6} images  {made.info['lesions'][part]:6} lesions")
    if made.info["leaky"]:
        typer.echo(
            f"warning: protocol {config.protocol!r} lets photos of one lesion stand in several parts: "
            "figures are inflated"
        )
    typer.echo(f"split: {out / 'split.csv'}")


@app.command()
def audit(
    path: Source,
    split: Annotated[Path, typer.Option("--split", help="Folder with split.csv and split.json.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write the findings here (.json).")] = None,
    layout: Layout = None,
) -> None:
    """Look for lesions, exact copies and near copies in several parts. Status 1 where a promise is broken."""
    from dermdistill.atomic import write_json
    from dermdistill.data.audit import audit_split
    from dermdistill.data.readers import read_catalog
    from dermdistill.data.split import load_split

    catalog = read_catalog(path, layout)
    report = audit_split(catalog, load_split(split))
    typer.echo(f"protocol {report['protocol']}, promises disjoint parts: {report['promises_disjoint']}")
    typer.echo(f"lesions in several parts: {report['lesions_across']['count']}")
    typer.echo(f"exact copies in several parts: {report['exact_copies_across']['count']}")
    near = report["near_copies"]
    typer.echo(f"near copies in several parts (distance <= {near['threshold']}): {near['count']}")
    for pair in near["pairs"]:
        typer.echo(f"  {pair['a']} {pair['b']}  distance {pair['distance']:.4f}  {' / '.join(pair['parts'])}")
    if out is not None:
        write_json(out, report)
    typer.echo("passed" if report["passed"] else "FAILED: a lesion or an exact copy lies in several parts")
    if not report["passed"]:
        raise typer.Exit(LEAKS_FOUND)


@app.command()
def explore(
    path: Source,
    out: Annotated[Path, typer.Option("--out", help="Folder for plots, contact sheet and summary.json.")],
    layout: Layout = None,
) -> None:
    """Plots of class, age, sex, site, source of label and images per lesion, and a contact sheet."""
    from dermdistill.data.explore import SUMMARY
    from dermdistill.data.explore import explore as draw
    from dermdistill.data.readers import read_catalog
    from dermdistill.errors import OutputError

    if out.is_dir() and any(out.iterdir()) and not (out / SUMMARY).is_file():
        raise OutputError(
            f"{out}: is not empty and holds no earlier exploration",
            rule=f"plots go to a new or empty folder, or replace one that holds {SUMMARY}",
            next_step="choose another folder with --out",
        )
    draw(read_catalog(path, layout), out)
    typer.echo(f"plots: {out}")


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    lesions: Annotated[int | None, typer.Option("--lesions")] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    artefacts: Annotated[
        str | None,
        typer.Option("--artefacts", help="Comma-separated of hair, ruler, ink, corners (default: all); or none."),
    ] = None,
) -> None:
    """Draw synthetic dermatoscopic lesions in HAM10000's layout."""
    from dermdistill.config import SyntheticConfig
    from dermdistill.data.synthetic import write_synthetic
    from dermdistill.recipes.load import parse_config

    chosen = [] if artefacts == "none" else artefacts.split(",") if artefacts else None
    config = parse_config(SyntheticConfig, _given(lesions=lesions, seed=seed, artefacts=chosen), source="data synth")
    typer.echo(f"images: {write_synthetic(folder, config)}")
