"""Many modality subsets in few rows: single modalities, means over the subsets of each size, the full set."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.figures import MAX_SUBSETS
from analysis.results import order_methods, order_subsets, summarise

GROUP = [
    "dataset", "label_ratio", "corruption", "method", "seed", "checkpoint", "metric", "higher_is_better", "primary",
]  # fmt: skip


def has_many_subsets(summary: pd.DataFrame, dataset: str) -> bool:
    """Whether a data set has more modality subsets than a reader takes in row by row."""
    return int(summary.loc[summary["dataset"] == dataset, "modalities"].nunique()) > MAX_SUBSETS


def means_by_size(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """A data set's results with means over the subsets of each size in place of these, a row a seed.

    Single modalities and the full set stay, and the mean over all subsets is added. A mean is there where every
    subset of its size that any method was tested on has a result, and undefined where one of these is.

    Args:
        frame: checked results (`analysis.results.check_frame`).
        dataset: label of the data set.
    """
    own = frame[frame["dataset"] == dataset]
    most = int(own["n_modalities"].max())
    between = own[(own["n_modalities"] > 1) & ~own["full"]]
    parts = [own[(own["n_modalities"] == 1) | own["full"]]]
    parts += [_mean(part, f"{n} of {most}", int(str(n))) for n, part in between.groupby("n_modalities")]
    parts.append(_mean(own, "all", most))
    return pd.concat(parts, ignore_index=True)[list(frame.columns)]


def _mean(part: pd.DataFrame, name: str, n_modalities: int) -> pd.DataFrame:
    """The mean over a frame's subsets, by each corruption's own number of them."""
    expected = part.groupby("corruption")["modalities"].nunique()
    grouped = part.groupby(GROUP, sort=False).agg(
        total=("value", "sum"), known=("value", "count"), n=("value", "size"), training_id=("training_id", "first")
    )
    means = grouped.reset_index()
    wanted = means["corruption"].map(expected)
    means = means[means["n"] == wanted]
    value = np.where(means["known"] == means["n"], means["total"] / means["n"], np.nan)
    told = name + ", mean of " + wanted[means.index].astype(str)
    return means.assign(value=value, modalities=told, n_modalities=n_modalities, full=False, run_id="")


def summary_by_size(frame: pd.DataFrame, dataset: str, checkpoint: str, methods: Sequence[str]) -> pd.DataFrame:
    """As `analysis.results.summarise`, of `means_by_size`; all `methods` have a column, those without results too."""
    summary = summarise(means_by_size(frame, dataset), checkpoint, methods=order_methods(methods))
    place = {name: at for at, name in enumerate(_in_order(summary))}
    keys = [summary["modalities"].map(place).to_numpy()]
    keys += [pd.factorize(summary[name])[0] for name in ("corruption", "label_ratio", "metric")]
    return summary.iloc[np.lexsort(keys)].reset_index(drop=True)


def _in_order(summary: pd.DataFrame) -> list[str]:
    """Single modalities, sizes upwards, the full set, all."""
    facts = summary[["modalities", "n_modalities", "full"]].drop_duplicates("modalities")
    is_mean = facts["modalities"].str.contains(", mean of ")
    given = order_subsets(facts.loc[~is_mean, "modalities"])  # the full set tells the order of modalities
    means = facts[is_mean].sort_values("n_modalities", kind="stable")
    is_all = means["modalities"].str.startswith("all,")
    whole = facts.loc[facts["full"], "modalities"].tolist()
    single = [name for name in given if name not in whole]
    return [*single, *means.loc[~is_all, "modalities"], *whole, *means.loc[is_all, "modalities"]]


def means_by_number(frame: pd.DataFrame, dataset: str, checkpoint: str) -> pd.DataFrame:
    """The primary metric of clean inputs by the number of modalities: the mean over all subsets of that size.

    Columns: `label_ratio`, `method`, `n_modalities`, `mean` and `std` over seeds, `n_seeds`, `n_nan`, and `dataset`,
    `metric`, `higher_is_better`, as summaries have them. A number of which not every subset was tested is left out.

    Args:
        frame: checked results.
        dataset: label of the data set.
        checkpoint: `last` or `best`.
    """
    own = frame[(frame["dataset"] == dataset) & (frame["checkpoint"] == checkpoint) & (frame["corruption"] == "")]
    own = own[own["primary"]]
    numbers = own.groupby("n_modalities")["modalities"].nunique()
    most = int(own.loc[own["full"], "n_modalities"].max()) if own["full"].any() else 0
    whole = [n for n in numbers.index if numbers[n] == math.comb(most, int(n))]
    seeds = [_mean(own[own["n_modalities"] == n], str(n), int(n)) for n in whole]
    if not seeds:
        return pd.DataFrame()
    keys = ["dataset", "metric", "higher_is_better", "label_ratio", "method", "n_modalities"]
    grouped = pd.concat(seeds).groupby(keys, sort=True)["value"]
    table = pd.DataFrame({"mean": grouped.mean(), "std": grouped.std(ddof=1), "n_seeds": grouped.size()})
    table["n_nan"] = table["n_seeds"] - grouped.count()
    table.loc[table["n_nan"] > 0, ["mean", "std"]] = np.nan
    return table.reset_index()
