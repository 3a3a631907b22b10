"""``dermdistill review``: experts judge the maps of a run, blind."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Experts judge a run's heat maps, blind: make a study, serve it, sum it up.", no_args_is_help=True
)

FOLDER = "review"
StudyFolder = Annotated[Path, typer.Argument(help="Folder of the study.")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database", help="URL of SQLite or PostgreSQL; by default a file in the study's folder.")
]


@app.command()
def create(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; by default RUN/review.")] = None,
    size: Annotated[int, typer.Option("--size", min=2, help="Images, each of another lesion.")] = 50,
    methods: Annotated[str, typer.Option("--methods", help="Whose maps are shown, commas between.")] = (
        "grad_cam,score_cam"
    ),
    repeats: Annotated[int, typer.Option("--repeats", min=0, help="Items shown twice.")] = 5,
    shams: Annotated[float, typer.Option("--shams", min=0.0, max=0.5, help="Share of maps that are shams.")] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    title: Annotated[
        str, typer.Option("--title", help="What raters read above every page.")
    ] = "Heat maps under review",
) -> None:
    """Sample a study: by class and by right and wrong, with repeats and shams, in names that tell nothing."""
    from dermdistill.pipeline.review_study import create_study

    folder = out or run / FOLDER
    sample = create_study(
        run,
        folder,
        title=title,
        size=size,
        methods=[name.strip() for name in methods.split(",") if name.strip()],
        repeats=repeats,
        shams=shams,
        seed=seed,
    )
    for note in sample.notes:
        typer.echo(note, err=True)
    typer.echo(f"study: {folder} ({len(sample.plans)} items)")
    typer.echo(f"Next: dermdistill review serve {folder}")


@app.command()
def serve(
    study: StudyFolder,
    database: DatabaseUrl = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; by default this machine alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8321,
    public_url: Annotated[
        str | None, typer.Option("--public-url", help="What raters type, where a proxy for https stands in front.")
    ] = None,
) -> None:
    """Serve a study until Ctrl+C. The admin page, whose link is printed, makes the raters' personal links."""
    from dermdistill.review.serve import serve as serve_study

    serve_study(study, database, host, port, public_url=public_url, say=typer.echo)


@app.command()
def summary(
    study: StudyFolder,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write; by default that of the study.")] = None,
    database: DatabaseUrl = None,
    answers: Annotated[
        Path | None, typer.Option("--answers", help="CSV that the admin page exported, instead of the database.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Bootstrap replicates.")] = 2000,
) -> None:
    """Agreement, ratings against the shams, change of diagnosis: of the answers that raters gave."""
    from dermdistill.errors import ConfigError
    from dermdistill.review.export import read_answers
    from dermdistill.review.summary_files import write_summary

    if answers is not None and database is not None:
        raise ConfigError("--answers and --database", rule="answers come from one of them")
    folder = out or study / "summary"
    found = write_summary(study, answers or read_answers(study, database), folder, samples=samples)
    for note in found["notes"]:
        typer.echo(note, err=True)
    counts = found["counts"]
    typer.echo(f"{counts['answers']} answers of {counts['raters']} raters; {counts['missing']} missing")
    for scale, block in found["agreement"]["scales"].items():
        alpha = block["alpha"]
        shown = "not computable" if alpha["value"] is None else f"{alpha['value']:.2f} ({alpha['band']})"
        typer.echo(f"{scale}: Krippendorff's alpha {shown}")
    typer.echo(f"summary: {folder / 'summary.json'}")
    if study.name == FOLDER and (study.parent / "run.json").is_file() and out is None:
        typer.echo(f"Next: dermdistill report {study.parent} shows it in the run's report")
