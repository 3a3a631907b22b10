"""Size, start, speed and memory of every model file of a bundle, in the runtimes for which it was made.

Each figure comes from processes of their own (``bench_case.py``), and the files take turns in rounds
(``bench_rounds.py``), so that a busy machine disturbs all of them alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime

from dermdistill.atomic import make_folder, write_json, write_text
from dermdistill.bundle.manifest import Manifest, read_manifest
from dermdistill.bundle.variants import VARIANTS
from dermdistill.errors import BundleError, RunFolderError
from dermdistill.pipeline.bench_case import WARM_UP, Runtime
from dermdistill.pipeline.bench_rounds import Answer, BenchPlan, Case, measure_rounds, summarise
from dermdistill.provenance import origin, sha256_json

# The packages that a runtime needs, and the extra that brings them.
NEEDS: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "executorch": ("executorch", "torch"),
    "torch": ("torch", "timm"),
}
NOTES = (
    "The network alone: normalised noise in, logits out. Decoding, resizing and normalising are not included.",
    "Each figure is the median over the rounds, each round a fresh process; low and high are the extremes of them.",
    "Cold start: from the start of the process to the first logits, imports included. Load: loading the file and the "
    "first run alone. Files were in the operating system's cache.",
    "Peak memory: the largest resident memory of the process at batch size 1, interpreter and imports included.",
)
RUNTIME_NOTES: dict[Runtime, str] = {
    "executorch": "ExecuTorch files are run through their Python binding, which imports PyTorch: on a phone start and "
    "memory are another matter. They take one image at a time.",
    "torch": "PyTorch runs eagerly, in its usual memory layout.",
}


def bench_bundle(
    bundle: Path, *, teacher: Path | None = None, pytorch: bool = False, plan: BenchPlan | None = None
) -> dict[str, Any]:
    """Measure every model file of a bundle.

    Args:
        bundle: a bundle folder.
        teacher: an ONNX file to measure beside it; by default ``../teacher/model.onnx`` where that is there.
        pytorch: also the FP32 networks in ``../student`` and ``../teacher``, in PyTorch.
        plan: how much.

    Returns:
        JSON-able: ``bundle``, ``plan``, ``memory`` (how it was read), ``rows``, ``notes`` and the provenance. A row has
        ``name``, ``title``, ``file``, ``runtime``, ``version``, ``precision``, ``bytes``, ``size``, ``not_measured`` (a
        reason, or null) and ``threads``: {number: {``p50_ms``, ``p95_ms``, ``cold_start_seconds``, ``load_seconds``,
        ``peak_bytes``, ``images_per_second`` {batch size: ...}}}; each figure is {``median``, ``low``, ``high``} over
        the rounds.

    Raises:
        BundleError: the bundle is not whole, the teacher is no ONNX classifier, or no file could be measured.
        RunFolderError: ``pytorch`` is asked for and no network lies beside the bundle.
    """
    used = plan or BenchPlan()
    manifest = read_manifest(bundle)
    cases = [*_bundle_cases(bundle, manifest), *_teacher_cases(bundle, teacher)]
    cases += _pytorch_cases(bundle) if pytorch else []
    missing = {case.name: reason for case in cases if (reason := _missing_packages(case.runtime))}
    found, failed = measure_rounds([case for case in cases if case.name not in missing], used)
    reasons = {**missing, **failed}
    if not found:
        faults = "\n".join(f"{case.file}: {reasons[case.name]}" for case in cases)
        raise BundleError(f"{bundle}: no file could be measured\n{faults}", next_step="install what its files need")
    first = next(answers[0] for answers in next(iter(found.values())).values())
    runtimes = {case.runtime for case in cases if case.name in found}
    return {
        "bundle": {
            "content_sha256": sha256_json(manifest.to_dict()),
            "files": {name: entry.sha256 for name, entry in manifest.files.items()},
        },
        "plan": {
            "repeats": used.repeats,
            "rounds": used.rounds,
            "warm_up": WARM_UP,
            "threads": list(used.threads),
            "batch_sizes": [1, *used.batch_sizes],
        },
        "memory": first["memory"],
        "rows": [_row(case, found.get(case.name), reasons.get(case.name)) for case in cases],
        "notes": [*NOTES, *(note for runtime, note in RUNTIME_NOTES.items() if runtime in runtimes)],
        **origin(),
    }


def write_bench(result: Mapping[str, Any], folder: Path) -> None:
    """Write ``bench.json``, ``bench.md`` and ``bench.svg``, each whole or not at all.

    Raises:
        OutputError: a file cannot be written.
    """
    from dermdistill.report.bench import bench_plot
    from dermdistill.report.bench_table import bench_markdown

    make_folder(folder)
    write_text(folder / "bench.svg", bench_plot(result))
    write_text(folder / "bench.md", bench_markdown(result, "bench.svg"))
    write_json(folder / "bench.json", result)


def _bundle_cases(bundle: Path, manifest: Manifest) -> Iterator[Case]:
    for one in VARIANTS.values():
        if one.file in manifest.files:
            size, count = manifest.spec.size, manifest.files[one.file].bytes
            yield Case(one.name, one.title, one.file, bundle / one.file, one.runtime, one.precision, count, size)


def _teacher_cases(bundle: Path, given: Path | None) -> Iterator[Case]:
    path = given or bundle.resolve().parent / "teacher" / "model.onnx"
    if given is None and not path.is_file():
        return
    size = _input_size(path)
    file = f"{path.resolve().parent.name}/{path.name}"
    yield Case("teacher", "Teacher, ONNX Runtime", file, path, "onnxruntime", "as given", path.stat().st_size, size)


def _input_size(path: Path) -> int:
    """Side of the square input of an ONNX classifier, pixels."""
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        shapes = [list(item.shape) for item in session.get_inputs()]
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise BundleError(
            f"{path}: cannot be loaded ({reason})",
            rule="a teacher is measured as an ONNX file, such as teacher/model.onnx of a run",
        ) from error
    side = shapes[0][-1] if shapes and shapes[0] else None
    if not isinstance(side, int) or [shape[1:] for shape in shapes] != [[3, side, side]]:
        raise BundleError(f"{path}: has the inputs {shapes}", rule="one input [batch, 3, S, S], S a number of pixels")
    return side


def _pytorch_cases(bundle: Path) -> list[Case]:
    cases = []
    for role in ("student", "teacher"):
        weights = bundle.resolve().parent / role / "model.safetensors"
        if weights.is_file():
            title = "PyTorch FP32" if role == "student" else "Teacher, PyTorch FP32"
            count = weights.stat().st_size
            file = f"{role}/{weights.name}"
            cases.append(Case(f"{role}_pytorch", title, file, weights.parent, "torch", "fp32", count, 0))
    if not cases:
        raise RunFolderError(
            f"{bundle}: no trained network lies beside it",
            rule="PyTorch is measured on ../student and ../teacher of a run folder",
            next_step="give the bundle inside its run folder, or leave --pytorch away",
        )
    return cases


def _missing_packages(runtime: Runtime) -> str | None:
    missing = [name for name in NEEDS[runtime] if find_spec(name) is None]
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed" if missing else None


def _row(case: Case, found: Mapping[int, Sequence[Answer]] | None, reason: str | None) -> dict[str, Any]:
    """One row of the result; exactly one of ``found`` and ``reason`` is given."""
    return {
        "name": case.name,
        "title": case.title,
        "file": case.file,
        "runtime": case.runtime,
        "version": _version(case.runtime),
        "precision": case.precision,
        "bytes": case.bytes,
        "size": next(iter(found.values()))[0]["size"] if found else case.size or None,
        "not_measured": reason,
        "threads": {str(threads): summarise(answers) for threads, answers in (found or {}).items()},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
