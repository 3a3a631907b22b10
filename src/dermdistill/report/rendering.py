"""One Jinja environment for every page: the page's style, its own script, and the policy that lets only that run."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dermdistill.report import formats
from dermdistill.report.downloads import content_policy, page_script

TEMPLATES = Path(__file__).parent / "templates"
Context = dict[str, Any]


def render_page(template: str, context: Context) -> str:
    """A page as HTML text; a name that the context lacks is an error, and every text of it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["title_of"] = formats.model_title
    environment.filters["millions"] = count
    environment.filters["phrase_of"] = lambda name: formats.MODEL_PHRASES.get(name, name)
    script = page_script()
    # Our own style and script, and matplotlib's SVG, whose texts matplotlib escapes, are the only unescaped parts.
    css = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    own = {"css": css, "script": Markup(script), "policy": content_policy(script)}
    return environment.get_template(template).render(**own, **context)


def count(value: float | None) -> str:
    """``3.38 M`` or ``12,345``; ``unknown`` for None."""
    if value is None:
        return "unknown"
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value:,.0f}"


def drawn(svg: str) -> Markup:
    """A figure of ours, which goes into a page as it is."""
    return Markup(svg)
