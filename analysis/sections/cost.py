"""What methods cost: counted operations and parameters, and what trainings took."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.complexity import TABLE_5, complexity_table
from analysis.paper_tables import MEASURED
from analysis.results import base_method, order_methods
from analysis.sections.base import Block, Grid, Head, Inputs, Section, Value, attempt, grid_of, number

COUNTED = (*TABLE_5, "trainable_parameters", "used_parameters", "step_flops_per_sample")
MEASURES = {
    "cost/train_s": "training, s", "cost/wall_s": "with evaluation, s", "cost/step_ms": "step, ms",
    "cost/peak_mib": "peak memory, MiB", "cost/parameters": "parameters",
}  # fmt: skip


def cost_section(inputs: Inputs) -> Section | None:
    """Counts in the layout of Robult, Table 5, and the medians of what trainings took; None where nothing is known."""
    blocks: list[Block] = []
    if inputs.counts is not None and not inputs.counts.empty:
        blocks += attempt("Operations and parameters", lambda: _counts(inputs))
    if inputs.trainings is not None and not inputs.trainings.empty:
        blocks += attempt("What trainings took", lambda: _taken(inputs))
    return Section("cost", "Cost", tuple(blocks)) if blocks else None


def _counts(inputs: Inputs) -> Iterator[Block]:
    assert inputs.counts is not None
    methods = order_methods(inputs.counts["method"])
    table = complexity_table(inputs.counts, methods, COUNTED)
    rows = tuple(
        (*map(Value, (str(name) for name in index)), *(Value(text, _plain(text)) for text in row))
        for index, row in zip(table.index, table.to_numpy(), strict=True)
    )
    heads = (("data set",), ("quantity",), *((method,) for method in methods))
    notes = (
        "Counted, not measured: the full modality set, one sample at inference. A MAC is one multiply-add and counts "
        "as 2 FLOPs; element-wise work counts nothing. Robult's Table 5 states neither batch size nor tool: compare "
        "ratios between methods with it.",
    )
    yield Head("Operations and parameters (Robult, Table 5)")
    yield Grid("Operations and parameters by data set", heads, 2, rows, notes)


_UNITS = {"T": 1e12, "G": 1e9, "M": 1e6, "K": 1e3}


def _plain(text: str) -> float | None:
    """`1.08 G` -> 1.08e9."""
    value, _, unit = text.partition(" ")
    try:
        return float(value) * _UNITS.get(unit, 1.0)
    except ValueError:
        return None


def _taken(inputs: Inputs) -> Iterator[Block]:
    assert inputs.trainings is not None
    frame = inputs.trainings
    there = [name for name in MEASURES if name in frame]
    for name in there:
        frame = frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce")})
    grouped = frame.groupby(["dataset", "method"], sort=True)
    table = grouped[there].median()
    table.insert(0, "n", grouped.size())
    order = {method: at for at, method in enumerate(order_methods(frame["method"]))}
    table = table.reset_index().sort_values(
        ["dataset", "method"], key=lambda c: c.map(order) if c.name == "method" else c
    )
    links = [
        inputs.links.search({"stage": "training", "dataset": str(dataset), "method": str(method)})
        for dataset, method in zip(table["dataset"], table["method"], strict=True)
    ]
    yield Head("What trainings took")
    yield grid_of(
        table,
        "Medians over the trainings of a method on a data set",
        columns={"dataset": "data set", "method": "method", "n": "trainings"} | {m: MEASURES[m] for m in there},
        n_stubs=2, digits=2, links=links, shown={"cost/parameters": lambda n: number(int(n))},
        notes=["Times are those of the machine that ran the grid, with whatever else it did; memory is the highest of "
               "the process so far on a CPU, of the device on a GPU."],
    )  # fmt: skip


def measured_counts(inputs: Inputs) -> pd.DataFrame:
    """The counts of full modality sets as rows of `analysis.paper_tables.MEASURED`, for Table 5."""
    if inputs.counts is None or inputs.counts.empty:
        return pd.DataFrame(columns=MEASURED)
    full = inputs.counts.assign(n=inputs.counts["modalities"].str.count(r"\+"))
    full = full.sort_values("n", kind="stable").groupby(["dataset", "method"], sort=False).tail(1)
    names = {"inference_flops": "flops", "inference_macs": "macs", "total_parameters": "params"}
    long = full.melt(["dataset", "method", "modalities"], list(names), "metric", "value")
    inside = long["method"].str.partition("[")[2].str.removesuffix("]")
    return pd.DataFrame({
        "dataset": long["dataset"].map(inputs.origins.name), "label_ratio": np.nan, "modalities": long["modalities"],
        "method": long["method"].map(base_method), "variant": inside.where(inside != "", "default"),
        "metric": long["metric"].map(names), "protocol": "", "sigma": np.nan, "mask_p": np.nan,
        "train_dataset": long["dataset"].map(inputs.origins.trained_on), "reference_modalities": "", "seed": 0,
        "value": long["value"].astype(float), "higher_is_better": False, "source": long["dataset"], "run_id": "",
    })[MEASURED]  # fmt: skip
