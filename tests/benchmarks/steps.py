"""Items a, d, e, f, g: single steps and evaluations on one thread of this CPU, and `paper`, what they add up to."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import yaml

from bench.cost import count_flops, peak_bytes
from bench.grid.file import read_text
from bench.training.evaluation import Asked, outputs_one_by_one, subset_masks
from datasets.base import all_subsets
from methods.registry import METHODS
from tests.benchmarks import straightforward
from tests.benchmarks.measure import Row, at_least, at_most, exponent, interleaved_ms
from tests.benchmarks.shapes import SHAPES, Steps, random_data

MOST = 1024
"""Samples a split at most."""


def plain_steps(method: str, name: str) -> Callable[[], object]:
    """The straightforward implementation on the same data, a step a call."""
    data, batch_size = random_data(name, MOST), SHAPES[name][3]
    inputs = [torch.as_tensor(x) for x in data.parts["train"].inputs.values()]
    target = torch.as_tensor(data.parts["train"].target)
    labelled = torch.rand(len(target), generator=torch.Generator().manual_seed(0)) < 0.5
    batches = straightforward.loader(inputs, target, labelled, batch_size)
    width = data.spec.task.width
    told: Iterator[float]
    if method == "gmc":
        told = straightforward.train_gmc(straightforward.GMC(data.spec.modalities, width), batches)
    else:
        told = straightforward.train_robult(straightforward.Robult(data.spec.modalities, width), batches)
    return lambda: next(told)


def training_steps() -> Iterator[Row]:
    """a: our training step against how such models are usually written; vectors alone and, a replica, in a stack."""
    for method, name, replicas in [
        ("gmc", "cmu_mosi", 1),
        ("robult", "cmu_mosi", 1),
        ("gmc", "digits", 8),
        ("robult", "digits", 8),
    ]:
        limit, rounds = (2.0, 15) if replicas == 1 else (1.5, 60)
        ways = [Steps(method, random_data(name, MOST), SHAPES[name][3], seeds=k) for k in dict.fromkeys((1, replicas))]
        *ours, theirs = interleaved_ms([*ways, plain_steps(method, name)], rounds)
        each = ours[-1] / replicas
        what = f"training step of {method} on {name} shapes" + (f", of {replicas} in a stack" if replicas > 1 else "")
        told = f"ours {each:.1f} ms a replica, straightforward with a DataLoader {theirs:.1f} ms"
        yield Row("a", what, theirs / each, "x", *at_least(theirs / each, limit), told)
        if replicas > 1:
            yield Row("a", "  alone", theirs / ours[0], "x", told=f"ours {ours[0]:.1f} ms")


def evaluation() -> Iterator[Row]:
    """d: all modality subsets in one pass, against one subset, and against a pass each."""
    shapes = {f"m{i}": (768,) for i in range(3)}
    for method, name, data in [
        ("gmc", "cmu_mosi", random_data("cmu_mosi", 96)),
        ("robult", "cmu_mosi", random_data("cmu_mosi", 96)),
        ("robult", "3 vectors of 768", random_data("hateful_memes", 500, shapes)),
    ]:
        made = Steps(method, data, 24).trainer
        part, subsets = made.parts["valid"], all_subsets(data.spec.modalities)
        every, full = [Asked(part, s) for s in subsets], [Asked(part, data.spec.full)]
        masks = subset_masks(made.spec, subsets, "cpu")
        calls = [lambda: made.outputs(every), lambda: made.outputs(full)]  # noqa: B023 - called before the next turn
        together, one = interleaved_ms(calls, rounds=5)
        (apart,) = interleaved_ms([lambda: outputs_one_by_one(made._predict, every, masks)], rounds=2, warm_up=1)  # noqa: B023
        told = f"together {together:.1f} ms, the full set alone {one:.1f} ms, one by one {apart:.1f} ms"
        what = f"7 subsets of {method} on {name} shapes, against one"
        yield Row("d", what, together / one, "x", *at_most(together / one, 1.5), told)
        yield Row("d", "  against a pass each", apart / together, "x quicker")


def efficiency() -> Iterator[Row]:
    """e: floating-point operations a second, as a share of those of a large matrix product."""
    a = torch.randn(1024, 1024)
    for method, name in [
        ("gmc", "cmu_mosi"),
        ("robult", "cmu_mosi"),
        ("robult", "hateful_memes"),
        ("robult", "digits"),
    ]:
        step = Steps(method, random_data(name, MOST), SHAPES[name][3])
        flops, _ = count_flops(step)
        mine, large = interleaved_ms([step, lambda: a @ a], rounds=5)
        achieved, possible = flops / mine / 1e6, 2 * 1024**3 / large / 1e6
        told = f"{achieved:.1f} of {possible:.0f} GFLOP/s (1024 x 1024 x 1024); {flops / 1e9:.3f} GFLOP a step"
        yield Row("e", f"arithmetic reached by {method} on {name} shapes", 100 * achieved / possible, "%", told=told)


def growth() -> Iterator[Row]:
    """f: how cost grows with modalities and with replicas."""
    counts = [2, 3, 4, 5, 6, 7, 8]
    entry = "robult: {fc: plain}"  # one layer on the concatenated inputs: the joint encoder is not Robult's own
    steps = [Steps(entry, random_data("hateful_memes", 256, {f"m{i}": (256,) for i in range(m)}), 128) for m in counts]
    flops = [count_flops(step)[0] for step in steps]
    times = interleaved_ms(steps, rounds=9)
    told = "  ".join(f"{m}: {ms:.1f} ms, {f / 1e6:.0f} MFLOP" for m, ms, f in zip(counts, times, flops, strict=True))
    b = exponent(counts, times)
    yield Row("f", "Robult's step, exponent in modalities M = 2..8, by time", b, "", *at_most(b, 1.1, ""), told)
    b = exponent(counts, flops)
    yield Row("f", "  by operations", b, "", *at_most(b, 1.1, ""))
    replicas = [1, 2, 4, 8, 16, 32, 64]
    data = random_data("digits", 512)
    times = interleaved_ms([Steps("robult", data, 64, seeds=k) for k in replicas], rounds=5, warm_up=1)
    told = "  ".join(f"{k}: {ms:.1f} ms" for k, ms in zip(replicas, times, strict=True))
    yield Row("f", "a stack's step, exponent in replicas K = 1..64", exponent(replicas, times), "", told=told)
    yield Row("f", "  64 replicas against 64 steps of one", 64 * times[0] / times[-1], "x quicker")


def memory() -> Iterator[Row]:
    """g: peak memory of a step a replica."""
    for name, replicas in (("digits", (1, 8)), ("cmu_mosi", (1, 3))):
        peaks = [
            peak_bytes(Steps("robult", random_data(name, 256), SHAPES[name][3], seeds=k), torch.device("cpu"))
            for k in replicas
        ]
        each = (peaks[1] - peaks[0]) / (replicas[1] - replicas[0]) / 2**20
        told = "  ".join(f"{k} replicas: {peak / 2**20:.1f} MiB" for k, peak in zip(replicas, peaks, strict=True))
        yield Row("g", f"tensors of a step of robult on {name} shapes, a replica", each, "MiB", told=told)


# ---- the whole paper, projected -------------------------------------------------------------------------------------

PAPER = "robult-paper"
EPOCHS = 40


def paper_trainings() -> dict[tuple[str, str], int]:
    """How many trainings the paper's tables take of each (method, data set), shared ones counted once."""
    found: set[tuple[str, str, str, float, int]] = set()
    for table in dict.fromkeys(yaml.safe_load(text_of(PAPER))["grids"]):
        grid = yaml.safe_load(text_of(table))
        if grid["train"]["epochs"] == 1:
            continue  # parameters and operations, next to nothing
        for name, variant in entries(grid["methods"]):
            for dataset, option in entries(grid["datasets"]):
                on = "cmu_mosei" if dataset == "transfer" else dataset
                for ratio in grid["label_ratios"]:
                    found |= {(name, on, f"{variant} {dataset} {option}", ratio, s) for s in range(grid["seeds"])}
    counts: dict[tuple[str, str], int] = {}
    for name, on, *_ in found:
        if name != "constant":
            counts[name, on] = counts.get((name, on), 0) + 1
    return counts


def text_of(grid: str) -> str:
    from importlib import resources

    return read_text(resources.files("bench.grids") / f"{grid}.yaml", grid)


def entries(listed: list[Any]) -> Iterator[tuple[str, str]]:
    """Names with what distinguishes them; a list of values is one entry each."""
    for entry in listed:
        if isinstance(entry, str):
            yield entry, ""
            continue
        ((name, options),) = entry.items()
        lists = [value for key, value in options.items() if isinstance(value, list) and key in ("variant", "align")]
        yield from ((name, str(value)) for value in (lists[0] if lists else [options.get("variant", "")]))


def paper() -> Iterator[Row]:
    """Hours of one core for every training of the paper's tables: measured step and evaluation times, multiplied.

    Variants count as their method, transfer as the data set it trains on.
    """
    total = trainings = 0.0
    for (method, name), count in sorted(paper_trainings().items()):
        _, _, (n_train, n_valid, n_test), batch_size = SHAPES[name]
        data, cls = random_data(name, 2 * batch_size), METHODS.get(method)
        if cls.refuses(data.spec, cls.Config()) is not None:
            continue  # a plan leaves these out as well
        step = Steps(method, data, batch_size)
        made, n_steps = step.trainer, n_train // batch_size
        valid = [Asked(made.parts["valid"], s) for s in [*made.spec.modalities, made.spec.full]]
        step_ms, pass_ms = interleaved_ms([step, lambda: made.outputs(valid)], rounds=3, warm_up=1)  # noqa: B023
        a_row = pass_ms / len(made.parts["valid"])
        hours = count * (EPOCHS * (n_steps * step_ms + n_valid * a_row) + n_test * a_row) / 3.6e6
        told = (
            f"{count} trainings x ({EPOCHS} epochs x ({n_steps} steps x {step_ms:.2f} ms + {n_valid} samples x "
            f"{a_row:.3f} ms) + {n_test} samples x {a_row:.3f} ms)"
        )
        total, trainings = total + hours, trainings + count
        yield Row("paper", f"{method} on {name}", hours, "h", told=told)
    yield Row("paper", f"all {trainings:.0f} trainings of {PAPER}, one core of this CPU", total, "h")
