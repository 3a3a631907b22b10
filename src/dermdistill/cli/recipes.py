"""``dermdistill recipes``: what can be run."""

from typing import Annotated

import typer

app = typer.Typer(help="List and print recipes.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_recipes() -> None:
    """Names and what they are."""
    from dermdistill.recipes.load import load_recipe, recipe_names

    for name in recipe_names():
        typer.echo(f"{name:10} {load_recipe(name).description}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe or a YAML file.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value. Repeatable.")] = None,
) -> None:
    """Print every key of a recipe, defaults included, as YAML that `run` takes."""
    from dermdistill.recipes.load import load_recipe, recipe_text

    typer.echo(recipe_text(load_recipe(name, settings)), nl=False)
