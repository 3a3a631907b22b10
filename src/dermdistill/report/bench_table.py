"""What a bench found as a table and as a Markdown page."""

from collections.abc import Mapping, Sequence
from typing import Any

from dermdistill.report.formats import megabytes
from dermdistill.report.markdown import plain, table

NOTHING = "-"
Result = Mapping[str, Any]


def bench_head(result: Result) -> list[str]:
    """The titles of the columns."""
    rates = [f"images/s at {batch}" for batch in result["plan"]["batch_sizes"]]
    return ["model", "px", "file", "threads", "p50 ms", "p95 ms", *rates, "cold start s", "load s", "peak MB"]


def bench_rows(result: Result) -> list[list[str]]:
    """A line a model and number of threads; one that was not measured says why."""
    batches = [str(batch) for batch in result["plan"]["batch_sizes"]]
    lines = []
    for row in result["rows"]:
        facts = [str(row["size"] or NOTHING), megabytes(row["bytes"])]
        if row["not_measured"]:
            title = f"{row['title']}: not measured: {row['not_measured']}"
            lines.append([title, *facts, *[NOTHING] * (6 + len(batches))])
        for threads, found in row["threads"].items():
            rates = [_cell(found["images_per_second"].get(batch), 1) for batch in batches]
            times = [_cell(found["p50_ms"], 2, spread=True), _cell(found["p95_ms"], 2)]
            starts = [_cell(found[name], 2) for name in ("cold_start_seconds", "load_seconds")]
            peak = _cell(found["peak_bytes"], 0, unit=1e6)
            lines.append([row["title"], *facts, threads, *times, *rates, *starts, peak])
    return lines


def _cell(figure: Mapping[str, float] | None, digits: int, *, unit: float = 1.0, spread: bool = False) -> str:
    """A figure in some unit, on request with its lowest and highest round."""
    if figure is None:
        return NOTHING
    middle, low, high = (f"{figure[name] / unit:.{digits}f}" for name in ("median", "low", "high"))
    return f"{middle} ({low}-{high})" if spread else middle


def bench_facts(result: Result) -> list[str]:
    """On what and how it was measured, then what the figures mean; a sentence each."""
    plan, machine = result["plan"], result["machine"]
    cores = f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    measured = {row["runtime"]: row["version"] for row in result["rows"] if not row["not_measured"]}
    versions = ", ".join(f"{name} {version}" for name, version in measured.items())
    much = f"{plan['rounds']} rounds of {plan['repeats']} runs after {plan['warm_up']} that do not count"
    memory = f"Peak memory was read as {result['memory']}."
    return [f"{cores}; {versions}.", f"{much[0].upper()}{much[1:]}.", *result["notes"], memory]


def bench_markdown(result: Result, picture: str) -> str:
    """A page: the plot, the table, and how it was measured.

    Args:
        result: of ``bench_bundle``.
        picture: the plot's file, as the page links it.
    """
    cells: Sequence[Sequence[str]] = [[plain(cell) for cell in line] for line in bench_rows(result)]
    listed = "".join(f"- {plain(fact)}\n" for fact in bench_facts(result))
    code = result["code"]
    origin = f"dermdistill {code['version']}, commit {code['commit'][:12]}{' (changed)' if code['dirty'] else ''}"
    bundle = f"bundle {result['bundle']['content_sha256'][:12]}"
    return (
        f"# Size and speed\n\n![Latency against size]({picture})\n\n{table(bench_head(result), cells)}\n"
        f"{listed}\nMeasured by `dermdistill bench` of {plain(origin)}, on {bundle}.\n"
    )
