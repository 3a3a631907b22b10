"""How long does an evaluation take, and how much memory: of a test part of usual size, and of 100,000 images?

Four models on 1,500 test images, and one model on 100,000, each evaluated as a run evaluates them, with 2,000 bootstrap
replicates over lesions, in a process of its own. Predictions are drawn: classes as frequent as in HAM10000, three
images for two lesions. The limits: 20 seconds on one core, and 5 minutes on two cores below 4 GB.

Prints one JSON object: seconds on the clock and of the processor, median and extremes over the repeats, and the peak of
the process's memory; `met` says whether the medians keep the limits.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.provenance import origin

# Case: models, test images, cores, repeats, limits of seconds and of bytes.
CASES: dict[str, tuple[int, int, int, int, float, float]] = {
    "four models, 1,500 images": (4, 1_500, 1, 3, 20, 4e9),
    "one model, 100,000 images": (1, 100_000, 2, 1, 300, 4e9),
}
SHARES = {"akiec": 0.033, "bcc": 0.051, "bkl": 0.110, "df": 0.011, "mel": 0.111, "nv": 0.670, "vasc": 0.014}
VALIDATION = 1_500
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def drawn_predictions(models: int, images: int) -> pd.DataFrame:
    """A long table of predictions of both parts, and of models that resemble each other."""
    from dermdistill.evaluate.predictions import predictions_frame

    rng = np.random.default_rng(0)
    frames = []
    for part, count in (("val", VALIDATION), ("test", images)):
        lesion_of = np.sort(rng.integers(0, 2 * count // 3, count))
        kinds = rng.choice(len(SHARES), 2 * count // 3, p=list(SHARES.values()))
        labels = kinds[lesion_of]
        names = np.array(list(SHARES))
        rows = pd.DataFrame(
            {
                "image_id": [f"{part}{place:06}" for place in range(count)],
                "lesion_id": [f"{part}L{place:06}" for place in lesion_of],
                "diagnosis": names[labels],
            }
        )
        common = rng.normal(size=(count, len(SHARES)))
        common[np.arange(count), labels] += 1.6
        for model in range(models):
            logits = common + 0.3 * rng.normal(size=common.shape)
            frames.append(predictions_frame(f"model_{model}", part, rows, logits, "diagnosis", models=None))
    return pd.concat(frames, ignore_index=True)


def measure(case: str, samples: int) -> dict[str, float]:
    """One evaluation, in this process."""
    from dermdistill.config import EvaluateConfig
    from dermdistill.evaluate.evaluation import evaluate_predictions

    models, images, cores, *_ = CASES[case]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    table = drawn_predictions(models, images)
    wall, processor = time.perf_counter(), time.process_time()
    evaluate_predictions(
        table,
        task="diagnosis",
        protocol="lesion",
        leaky=False,
        config=EvaluateConfig(bootstrap_samples=samples),
        models=tuple(f"model_{number}" for number in range(models)),
    )
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - processor,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def summarised(found: list[dict[str, float]], case: str) -> dict[str, Any]:
    """Median and extremes of every figure, and whether the limits are kept."""
    *_, cores, _, seconds, size = CASES[case]
    spread = {
        key: {
            name: round(take([one[key] for one in found]), 2)
            for name, take in (("median", statistics.median), ("low", min), ("high", max))
        }
        for key in found[0]
    }
    kept = spread["seconds"]["median"] <= seconds and spread["peak_bytes"]["median"] <= size
    return {**spread, "cores": cores, "repeats": len(found), "limit_seconds": seconds, "limit_bytes": size, "met": kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000, help="bootstrap replicates")
    parser.add_argument("--only", choices=CASES, help="one of the cases")
    parser.add_argument("--case", choices=CASES, help="measure one case in this process")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(options.case, options.samples)))
        return
    results = {}
    for case, (_, _, _, repeats, *_) in CASES.items():
        if options.only in (None, case):
            command = [sys.executable, __file__, "--case", case, "--samples", str(options.samples)]
            environment = {**os.environ, **THREADS}
            answers = [
                subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
                for _ in range(repeats)
            ]
            results[case] = summarised([json.loads(answer.splitlines()[-1]) for answer in answers], case)
            print(case, results[case])
    print(
        json.dumps(
            {
                "benchmark": "evaluation",
                "unit": "seconds, bytes",
                "samples": options.samples,
                "results": results,
                **origin(),
            }
        )
    )


if __name__ == "__main__":
    main()
