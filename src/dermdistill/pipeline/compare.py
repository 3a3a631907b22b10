"""Finished runs side by side: what their recipes differ in, their figures, and paired differences of any two models.

Predictions are read and evaluated again, so runs that different versions made are treated alike. Every model's
calibration and thresholds come from its own validation rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from dermdistill.config import EvaluateConfig
from dermdistill.errors import ConfigError
from dermdistill.evaluate.decide import decide_all
from dermdistill.evaluate.evaluation import scored_rows
from dermdistill.evaluate.figures import Scored
from dermdistill.evaluate.run_comparison import compare_scored
from dermdistill.pipeline.compared_runs import ComparedRun, read_compared
from dermdistill.provenance import origin, sha256_json
from dermdistill.report.formats import model_title

SHIPPED = "student_int8"

Json = dict[str, Any]
Groups = Mapping[str, Sequence[ComparedRun]]


def compare_runs(folders: Sequence[Path], *, models: Sequence[str] = (), all_pairs: bool = False) -> Json:
    """Compare runs that were tested on the same images.

    Runs whose recipes differ in the seed alone are one recipe that was trained several times.

    Args:
        folders: finished runs, two or more; others are compared with the first.
        models: of each run; by default the shipped student, or with ``all_pairs`` every model.
        all_pairs: every two of these models are compared, not each with that of the first run.

    Returns:
        JSON-able: the result of ``compare_scored`` with ``runs`` [{name, group, ...}], ``recipes`` [{key, values
        {run: value}}] (keys that differ; a run that lacks a key is not in its values), ``robustness``
        (``spoilt_alike``), and where it was computed (``origin``). A row is called ``GROUP: MODEL``, and a group of one
        run by that run's name.

    Raises:
        ConfigError: fewer than two runs, one twice, or a model that a run does not have.
        RunFolderError: a folder is no finished run.
        DataError: tasks or test parts that differ, with every run and fault.
    """
    runs = read_compared(folders)
    groups, apart = grouped(runs)
    chosen = _chosen_models(runs, models, all_pairs=all_pairs)
    settings = runs[0].evaluation["bootstrap"]
    rows: dict[str, dict[int, Scored]] = {}
    scored = {run.name: _scored(run, chosen) for run in runs}
    for group, members in groups.items():
        for model in chosen:
            own = {run.seed: scored[run.name][model] for run in members if model in scored[run.name]}
            if own:
                rows[_row(group, model)] = own
    result = compare_scored(
        rows,
        runs[0].test,
        _pairs(rows, groups, chosen, all_pairs=all_pairs),
        task=runs[0].task,
        samples=settings["samples"],
        seed=settings["seed"],
    )
    group_of = {run.name: group for group, members in groups.items() for run in members}
    return {
        **result,
        "notes": [*result["notes"], *apart, *_run_notes(runs)],
        "runs": [run.facts() | {"group": group_of[run.name]} for run in runs],
        "recipes": recipe_differences(runs),
        "robustness": spoilt_alike(runs, chosen),
        **origin(),
    }


def grouped(runs: Sequence[ComparedRun]) -> tuple[dict[str, list[ComparedRun]], list[str]]:
    """Runs of one recipe, seeds aside, under one name, in the order of the first of each.

    Returns:
        {name: runs} and notes: which runs are one recipe, and which could not be as they have the same seed.
    """
    by_recipe: dict[str, list[ComparedRun]] = {}
    for run in runs:
        recipe = {key: value for key, value in run.settings.items() if key != "seed"}
        by_recipe.setdefault(sha256_json(recipe), []).append(run)
    groups: dict[str, list[ComparedRun]] = {}
    notes = []
    for members in by_recipe.values():
        names, seeds = ", ".join(run.name for run in members), [run.seed for run in members]
        if len(members) == 1 or len(set(seeds)) < len(seeds):
            groups |= {run.name: [run] for run in members}
            if len(members) > 1:
                notes.append(f"The same recipe, and a seed more than once: {names}. They stand apart.")
            continue
        groups[f"{members[0].recipe.get('name', 'one recipe')}, {len(members)} seeds ({names})"] = list(members)
        listed = ", ".join(map(str, sorted(seeds)))
        notes.append(f"One recipe, trained with the seeds {listed}: {names}. They are one row.")
    return groups, notes


def recipe_differences(runs: Sequence[ComparedRun]) -> list[Json]:
    """Keys of the recipes whose values are not the same in all runs."""
    keys = list(dict.fromkeys(key for run in runs for key in run.settings))
    found = []
    for key in keys:
        values = {run.name: run.settings[key] for run in runs if key in run.settings}
        if len(values) < len(runs) or any(value != next(iter(values.values())) for value in values.values()):
            found.append({"key": key, "values": values})
    return found


def spoilt_alike(runs: Sequence[ComparedRun], chosen: Sequence[str]) -> Json | None:
    """Each run's figures on spoilt pictures.

    Returns:
        ``images``, ``level`` and ``rows`` [{run, model, ``clean`` {FIGURE: cell}, ``groups`` {GROUP: {FIGURE: cell}}}],
        means over kinds and severities; None unless all runs spoilt the same pictures in the same ways.
    """
    blocks = [run.evaluation.get("robustness") for run in runs]
    own = [block for block in blocks if block]
    if len(own) < len(runs) or any(
        block[key] != own[0][key] for block in own for key in ("sample", "severities", "kinds")
    ):
        return None
    rows = [
        {
            "run": run.name,
            "model": model,
            "clean": block["models"][model]["clean"],
            "groups": {group: values["mean"] for group, values in block["models"][model]["groups"].items()},
        }
        for run, block in zip(runs, own, strict=True)
        for model in chosen
        if model in block["models"]
    ]
    return {"images": own[0]["sample"]["images"], "level": own[0]["bootstrap"]["level"], "rows": rows}


def _chosen_models(runs: Sequence[ComparedRun], models: Sequence[str], *, all_pairs: bool) -> list[str]:
    known = list(dict.fromkeys(model for run in runs for model in run.models))
    if all_pairs and not models:
        return known
    chosen = list(dict.fromkeys(models)) or [SHIPPED]
    lacking = [f"{run.name} lacks {model}" for run in runs for model in chosen if model not in run.models]
    if lacking:
        raise ConfigError(
            f"models cannot be compared: {', '.join(lacking)}",
            rule=f"each run has the model; there are {', '.join(known)}",
            next_step="choose with --model, which may be given several times",
        )
    return chosen


def _row(group: str, model: str) -> str:
    return f"{group}: {model_title(model)}"


def _pairs(rows: Mapping[str, Any], groups: Groups, chosen: Sequence[str], *, all_pairs: bool) -> list[tuple[str, str]]:
    """(row, row it is compared with).

    Raises:
        ConfigError: all runs are one recipe and one model is chosen: there is nothing to compare it with.
    """
    if all_pairs:
        pairs = [(second, first) for first, second in combinations(rows, 2)]
    else:
        first, *others = groups
        pairs = [(_row(other, model), _row(first, model)) for model in chosen for other in others]
    if not pairs:
        raise ConfigError(
            f"nothing to compare: all runs are one recipe ({', '.join(groups)})",
            rule="two recipes, or two models with --all-pairs",
            next_step="add a run of another recipe, or --all-pairs to compare the models of this one",
        )
    return pairs


def _scored(run: ComparedRun, chosen: Sequence[str]) -> dict[str, Scored]:
    frame = run.predictions[run.predictions["model"].isin(chosen)]
    decided = decide_all(frame, run.task)
    test = frame[frame["split"] == "test"]
    bins = EvaluateConfig().calibration_bins
    rows: dict[str, pd.DataFrame] = {str(model): part for model, part in test.groupby("model")}
    return {model: scored_rows(rows[model], run.task, bins, decided[model][0]) for model in rows}


def _run_notes(runs: Sequence[ComparedRun]) -> Iterator[str]:
    first = runs[0]
    yield (
        "Calibration and thresholds were decided again, by this version, on the validation rows of each model; labels "
        "are by raw scores."
    )
    leaky = [run.name for run in runs if run.leaky]
    if leaky:
        yield f"Leaky protocol: {', '.join(leaky)}. A lesion may lie in training and test, which inflates the figures."
    for key, what in (("catalog_sha256", "catalog"), ("split_sha256", "split")):
        others = [run.name for run in runs if run.split.get(key) != first.split.get(key)]
        if others:
            yield (
                f"Another {what} than {first.name}, although the test images are the same: {', '.join(others)}. They "
                "may have learnt from other images."
            )
    changed = [run.name for run in runs if (run.provenance.get("code") or {}).get("dirty")]
    if changed:
        yield f"Made by code with uncommitted changes: {', '.join(changed)}."
