"""Cases of a bench measured in turn: some rounds, each a fresh process for each case and number of threads."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from dermdistill.errors import ConfigError
from dermdistill.pipeline.bench_case import Order, Runtime
from dermdistill.progress import StepProgress

CHILD = "from dermdistill.pipeline.bench_case import main; main()"
FIGURES = ("p50_ms", "p95_ms", "cold_start_seconds", "load_seconds", "peak_bytes")
# A file that is made for one image at a time.
ONE_IMAGE: tuple[Runtime, ...] = ("executorch",)

Answer = dict[str, Any]


@dataclass(frozen=True)
class BenchPlan:
    """How much is measured.

    Attributes:
        repeats: timed runs of one image in each round.
        rounds: processes for each file and number of threads.
        batch_sizes: for the throughput, besides 1.
        threads: numbers of CPU threads; where none is given, 1 and all cores.

    Raises:
        ConfigError: a number below 1.
    """

    repeats: int = 100
    rounds: int = 3
    batch_sizes: tuple[int, ...] = (8, 32)
    threads: tuple[int, ...] = field(default_factory=lambda: tuple(dict.fromkeys((1, core_count()))))

    def __post_init__(self) -> None:
        for name in ("repeats", "rounds", "batch_sizes", "threads"):
            value = getattr(self, name)
            if min(value if isinstance(value, tuple) else (value,), default=1) < 1:
                raise ConfigError(f"{name} is {value}", rule="at least 1")


@dataclass(frozen=True)
class Case:
    """One row: a model file, or a folder with a PyTorch network, and what runs it.

    Attributes:
        name: unique; of a bundle's files that of their variant.
        title: for tables.
        file: how the result calls it.
        path: the file or folder.
        bytes: of the file that holds the weights.
        size: side of the input, pixels; 0 where the folder says it.
    """

    name: str
    title: str
    file: str
    path: Path
    runtime: Runtime
    precision: str
    bytes: int
    size: int


class CaseError(Exception):
    """A case that its runtime cannot run; the text says why."""


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_rounds(cases: Sequence[Case], plan: BenchPlan) -> tuple[dict[str, dict[int, list[Answer]]], dict[str, str]]:
    """Measure all cases in turn, round by round. One that fails is named and not tried again.

    Returns:
        {case: {threads: one answer a round}} of those that could be measured, and {case: reason} of the others.
    """
    found: dict[str, dict[int, list[Answer]]] = {case.name: {n: [] for n in plan.threads} for case in cases}
    failures: dict[str, str] = {}
    turns = [(case, threads) for _ in range(plan.rounds) for case in cases for threads in plan.threads]
    with StepProgress("measuring", steps=len(turns)) as progress:
        for case, threads in turns:
            if case.name not in failures:
                try:
                    found[case.name][threads].append(_measure(case, threads, plan))
                except CaseError as error:
                    failures[case.name] = str(error)
            progress.step()
    return {name: many for name, many in found.items() if name not in failures}, failures


def _measure(case: Case, threads: int, plan: BenchPlan) -> Answer:
    """One process: what it answers, and ``cold_start_seconds`` as seen from here.

    Raises:
        CaseError: it ended without an answer.
    """
    batches = () if case.runtime in ONE_IMAGE else plan.batch_sizes
    order = Order(case.runtime, str(case.path.resolve()), case.size, threads, plan.repeats, batches)
    command = [sys.executable, "-P", "-c", CHILD, order.to_json()]
    with tempfile.TemporaryFile() as errors:
        begun = perf_counter()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors) as child:
            assert child.stdout is not None, "it is a pipe"
            child.stdout.readline()
            cold = perf_counter() - begun
            answer = child.stdout.read()
        if child.returncode:
            errors.seek(0)
            raise CaseError(_reason(child.returncode, errors.read().decode(errors="replace")))
    return {**json.loads(answer), "cold_start_seconds": cold}


def _reason(status: int, errors: str) -> str:
    if status < 0:
        return f"its process was ended by signal {-status}"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"its process ended with status {status}"


def summarise(answers: Sequence[Answer]) -> dict[str, Any]:
    """The rounds of one case and number of threads: ``FIGURES``, and ``images_per_second`` {batch size: figure}."""
    summary: dict[str, Any] = {name: _figure([one[name] for one in answers]) for name in FIGURES}
    rates: Mapping[str, float] = answers[0]["images_per_second"]
    summary["images_per_second"] = {
        batch: _figure([one["images_per_second"][batch] for one in answers]) for batch in rates
    }
    return summary


def _figure(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {name: round(of(known), 4) for name, of in (("median", median), ("low", min), ("high", max))}
