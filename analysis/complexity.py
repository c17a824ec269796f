"""What methods cost, as tables: the layout of Robult, Table 5, and a table by modality subset.

Every quantity carries its convention: a MAC is one multiply-add of a matrix product, convolution or attention, and
counts as 2 FLOPs; inference is of one sample with all branches computed. The paper states neither a batch size nor a
tool; its figures fit a batch of about 8, so compare ratios between methods, not absolute numbers, with it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from datasets.errors import UserError

COLUMNS = (
    "dataset", "method", "modalities", "total_parameters", "trainable_parameters", "used_parameters",
    "inference_flops", "inference_macs", "inference_needed_flops", "inference_latency_ms", "inference_peak_bytes",
    "batch_size", "step_flops", "step_macs", "step_latency_ms", "step_peak_bytes", "device", "threads",
)  # fmt: skip
"""The columns of a cost frame; one row is one method on one data set with one modality subset."""

QUANTITIES: Mapping[str, str] = {
    "inference_flops": "FLOPs (2 per MAC; inference, one sample)",
    "inference_macs": "MACs (multiply-adds; inference, one sample)",
    "total_parameters": "parameters",
    "trainable_parameters": "parameters, trainable",
    "used_parameters": "parameters, with influence at inference",
    "step_flops_per_sample": "FLOPs (2 per MAC; training step, per sample)",
    "inference_latency_ms": "latency in ms (inference, one sample, median)",
    "step_latency_ms": "latency in ms (training step without optimiser, batch, median)",
    "inference_peak_bytes": "peak memory in bytes (inference, one sample, without parameters)",
    "step_peak_bytes": "peak memory in bytes (training step, batch, with gradients)",
}
"""Column -> what its row is called, convention included."""
TABLE_5 = ("inference_flops", "inference_macs", "total_parameters")


def check_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one row per data set, method and modality subset, counts as they are, times as medians.

    Raises:
        UserError: a column is missing, there is no row, or repeated rows disagree in a count.
    """
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise UserError(f"a cost frame lacks the columns: {', '.join(missing)}.")
    if frame.empty:
        raise UserError("there are no costs to report yet.")
    keys = ["dataset", "method", "modalities"]
    counts = ["total_parameters", "trainable_parameters", "used_parameters", "inference_flops"]
    groups = frame.groupby(keys, sort=False)
    differ = groups[counts].nunique().gt(1).any(axis=1)
    if differ.any():
        dataset, method, subset = differ.index[differ][0]
        raise UserError(
            f"{method} on {dataset} with {subset} has costs that disagree: rows of different hyper-parameters need "
            "method names of their own."
        )
    times = ["inference_latency_ms", "step_latency_ms"]
    merged = groups[[name for name in COLUMNS if name not in (*keys, *times)]].first()
    merged[times] = groups[times].median()
    merged["step_flops_per_sample"] = merged["step_flops"] / merged["batch_size"].where(merged["batch_size"] > 0)
    return merged.reset_index()


def si(value: float) -> str:
    """A count as Table 5 prints it: 1.08 G, 507.44 M, 888.32 K, 640; a dash for NaN."""
    if np.isnan(value):
        return "—"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if abs(value) >= 0.99995 * size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f}" if value == round(value) else f"{value:.2f}"


def complexity_table(
    frame: pd.DataFrame, methods: Sequence[str] | None = None, quantities: Sequence[str] = tuple(QUANTITIES)
) -> pd.DataFrame:
    """The layout of Robult, Table 5: data sets and quantities down, methods across, full modality set, as text.

    Args:
        frame: cost rows, see `COLUMNS`.
        methods: columns, in their order; as in the frame by default.
        quantities: rows, of `QUANTITIES`; `TABLE_5` for the paper's three.
    """
    costs = check_costs(frame)
    methods = list(dict.fromkeys(costs["method"])) if methods is None else list(methods)
    costs["n_modalities"] = costs["modalities"].str.count(r"\+") + 1
    full = costs.sort_values("n_modalities", kind="stable").groupby(["dataset", "method"], sort=False).tail(1)
    rows = {
        (dataset, QUANTITIES[quantity]): {
            str(method): si(float(value)) for method, value in zip(part["method"], part[quantity], strict=True)
        }
        for dataset, part in full.groupby("dataset", sort=False)
        for quantity in quantities
    }
    index = pd.MultiIndex.from_tuples(list(rows), names=["dataset", "quantity"])
    return pd.DataFrame([[row.get(method, "—") for method in methods] for row in rows.values()], index, methods)


def subset_table(frame: pd.DataFrame, quantity: str, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """One quantity by modality subset: data sets and subsets down, methods across, as text.

    Args:
        quantity: of `QUANTITIES`, or `inference_needed_flops`.
    """
    costs = check_costs(frame)
    if quantity not in costs:
        raise UserError(f"there is no quantity '{quantity}' in costs; there are: {', '.join(QUANTITIES)}.")
    methods = list(dict.fromkeys(costs["method"])) if methods is None else list(methods)
    order = list(dict.fromkeys(zip(costs["dataset"], costs["modalities"], strict=True)))
    wide = costs.pivot(index=["dataset", "modalities"], columns="method", values=quantity)
    wide = wide.reindex(index=pd.MultiIndex.from_tuples(order, names=["dataset", "modalities"]), columns=methods)
    return wide.map(lambda value: si(float(value)))
