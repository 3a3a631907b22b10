"""What makes a training step on the CPU faster: memory layout, keeping freed memory, torch.compile.

An EfficientNet-Lite0 with exits and layer fusion, batches of 64 at 64 px, one thread; each case in a process of its
own, in turn. Prints one JSON object: median CPU milliseconds a step, page faults a step, and ratios to the plain case.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys

from dermdistill.provenance import origin

CASES = {
    "plain": "",
    "channels_last": "layout",
    "channels_last, memory kept": "layout memory",
    "channels_last, memory kept, compiled": "layout memory compile",
}


def measure(words: list[str], steps: int, size: int, batch: int) -> dict[str, float]:
    """One case, in this process."""
    import torch
    from torch.nn import functional

    from dermdistill.models.build import build_model
    from dermdistill.recipes.load import load_recipe
    from dermdistill.training.memory import keep_freed_memory

    torch.set_num_threads(1)
    if "memory" in words:
        keep_freed_memory()
    recipe = load_recipe("edge", ["student.model.branches.0.weights=none"])
    model = build_model(recipe.student.model, classes=7, size=size, seed=0).train()
    images, labels = torch.randn(batch, 3, size, size), torch.arange(batch) % 7
    if "layout" in words:
        model, images = (
            model.to(memory_format=torch.channels_last),
            images.contiguous(memory_format=torch.channels_last),
        )
    if "compile" in words:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    times, faults = [], []
    for _ in range(3 + steps):
        before = resource.getrusage(resource.RUSAGE_SELF)
        output = model(images)
        loss = functional.cross_entropy(torch.cat([output.logits, *output.exits]), labels.repeat(3))
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        after = resource.getrusage(resource.RUSAGE_SELF)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        faults.append(after.ru_minflt - before.ru_minflt)
    return {"cpu_ms": 1000 * statistics.median(times[3:]), "page_faults": statistics.median(faults[3:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--case", help="measure one case in this process")
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(measure(options.case.split(), options.steps, options.size, options.batch)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for _ in range(options.repeats):
        for name, words in CASES.items():
            command = [sys.executable, __file__, "--case", words, "--steps", str(options.steps)]
            command += ["--size", str(options.size), "--batch", str(options.batch)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: {key: round(statistics.median(one[key] for one in many), 2) for key in many[0]}
        for name, many in found.items()
    }
    plain = medians["plain"]["cpu_ms"]
    ratios = {f"plain / {name}": round(plain / one["cpu_ms"], 3) for name, one in medians.items()}
    print(
        json.dumps(
            {"benchmark": "training_step", "threads": 1, **vars(options), "cases": medians, **ratios, **origin()}
        )
    )


if __name__ == "__main__":
    main()
