"""Whether two experiments differ, and where: the same cells in both, value by value and mean over seeds by mean.

A is what B is compared with: a difference is B minus A, and `better` means that B is better. For other methods
against each other there are tables and rankings; here a method is compared with itself, after a change of settings,
code, versions or machine. S seeds, R resamples.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.ranking import holm, p_told, signed_rank
from analysis.results import CELL, CHECKPOINTS, TIE, check_frame, order_corruptions, order_methods, order_subsets, some
from analysis.tables import percent
from datasets.errors import UserError, did_you_mean

Floats = NDArray[np.float64]

AXES = ["dataset", "label_ratio", "method", "corruption", "modalities", "seed"]
"""What names a cell of both experiments."""
CONDITION = ["dataset", "method", "label_ratio", "corruption", "modalities"]
GROUP_COLUMNS = [
    "dataset", "method", "metric", "higher_is_better", "n_cells", "n_identical", "n_undefined", "n_seeds", "a", "b",
    "difference", "low", "high", "n_better", "n_worse", "p",
]  # fmt: skip
ALPHA = 0.05
N_RESAMPLES = 5000
ROUNDING = 1e-6
"""Values closer than this may differ by the order of sums alone."""
N_LARGEST = 8
SETTINGS = ("dataset", "method", "key", "value")
"""Columns of how an experiment was made."""
PROTOCOL_KEY = "protocol"
FIRST_PACKAGES = ("robult-bench", "torch", "numpy", "scikit-learn", "scipy", "pandas")


def _no_settings() -> pd.DataFrame:
    return pd.DataFrame(columns=list(SETTINGS))


@dataclass(frozen=True, eq=False)
class Experiment:
    """One side of a comparison.

    Attributes:
        name: of the experiment.
        frame: its results, see `analysis.results.check_frame`.
        settings: one row a setting of a training, with the columns of `SETTINGS`; empty: not known.
        versions: of what it ran on: `python`, `platform`, `commit`, packages; empty: not known.
    """

    name: str
    frame: pd.DataFrame
    settings: pd.DataFrame = field(default_factory=_no_settings)
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is the same in two experiments and what is not.

    Attributes:
        a, b: names of the experiments.
        checkpoint: the one that means and differences are of; identity is of all that both have.
        n_common: cells in both.
        n_identical: those of them whose every value is the same to the last bit, undefined ones included.
        n_rounding: others whose values are all within `ROUNDING`.
        n_torn: cells that are not identical although their trainings have one identity, so should be.
        only: `experiment`, `why`, `n_cells`: cells in one alone.
        groups: a row a data set and method, by the primary metric: `dataset`, `method`, `metric`,
            `higher_is_better`, `n_cells`, `n_identical`, `n_undefined` (in one of the two alone), `n_seeds`, `a`, `b`
            (means over the common cells), `difference`, `low`, `high` (interval), `n_better`, `n_worse` (seeds),
            `p` (after Holm; NaN where not testable), `test`, `verdict`.
        largest: a row a condition, the largest differences first: `CONDITION`, `metric`, `n_seeds`, `a`, `b`,
            `difference`, `spreads` (its size in standard deviations of the data set's results), `verdict`.
        settings: `key`, `a`, `b`, `where`: what the trainings were made with, where it differs.
        versions: `name`, `a`, `b`, where they differ.
        notes: what else must be known, in sentences.
    """

    a: str
    b: str
    checkpoint: str
    n_common: int
    n_identical: int
    n_rounding: int
    n_torn: int
    only: pd.DataFrame
    groups: pd.DataFrame
    largest: pd.DataFrame
    settings: pd.DataFrame
    versions: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether both have the same cells with the same values."""
        return self.n_identical == self.n_common and self.only.empty

    @property
    def headline(self) -> str:
        """The comparison in a sentence."""
        if self.same:
            return f"The same: all {_count(self.n_common, 'cell')} of {self.a} and {self.b} have identical values."
        if self.n_identical == self.n_common:
            return f"The same where both have results: {_count(self.n_common, 'common cell')}, identical values."
        unequal = self.n_common - self.n_identical
        close = f", {self.n_rounding} of them by less than {ROUNDING:g}" if self.n_rounding else ""
        return f"Different: {unequal} of {_count(self.n_common, 'common cell')} have other values{close}."

    def to_json(self) -> str:
        """All of it as JSON; what is undefined is null."""
        plain = {name: getattr(self, name) for name in ("a", "b", "checkpoint", "same", "headline", "n_common",
                 "n_identical", "n_rounding", "n_torn")}  # fmt: skip
        tables = {
            name: json.loads(getattr(self, name).to_json(orient="records", double_precision=15))
            for name in ("only", "groups", "largest", "settings", "versions")
        }
        return json.dumps(plain | tables | {"notes": list(self.notes)}, indent=2)


def compare_experiments(
    a: Experiment, b: Experiment, *, checkpoint: str | None = None, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """Compare the cells that two experiments have in common, paired seed by seed.

    Cells are matched by data set, label ratio, method label, corruption, modality subset and seed. Of each data set
    and method the seeds' differences (means over common conditions) give a percentile bootstrap interval of the mean
    difference over seeds, and Wilcoxon's signed-rank test where that many seeds can pass it, adjusted by Holm over
    the groups tested.

    Args:
        a: what to compare with.
        b: what is compared.
        checkpoint: `last` or `best`; None: `last` where both have it.
        confidence: of the intervals.
        seed: of the resampling.

    Raises:
        UserError: an experiment has no results or a bad frame, they have no cell in common, or none at `checkpoint`.
    """
    left, right = _checked(a), _checked(b)
    checkpoint = _common_checkpoint(left, right, a, b, checkpoint)
    pairs = left.merge(right, on=CELL, suffixes=("_a", "_b"), how="inner")
    if pairs.empty:
        raise UserError(f"experiments '{a.name}' and '{b.name}' have no cell in common: {_why_apart(left, right)}.")
    primary = _primary_metrics(left, right)
    pairs = _judge(pairs)
    shown = pairs[(pairs["checkpoint"] == checkpoint) & (pairs["metric"] == pairs["dataset"].map(primary))]
    cells = pairs.groupby(AXES, sort=False)[["identical", "close", "one_training"]].all()
    unequal = ~cells["identical"]
    groups = _groups(shown, cells, confidence, seed)
    settings = _differing_settings(a, b, pairs)
    return Comparison(
        a.name, b.name, checkpoint, len(cells), int(cells["identical"].sum()), int((unequal & cells["close"]).sum()),
        int((unequal & cells["one_training"]).sum()), _only(left, right, a.name, b.name), groups,
        _largest(shown, left, right), settings, _differing_versions(a.versions, b.versions),
        tuple(_notes(a, b, left, right, pairs, groups, settings, primary)),
    )  # fmt: skip


# ---- what is compared -------------------------------------------------------------------------------------


def _checked(experiment: Experiment) -> pd.DataFrame:
    if len(experiment.frame) == 0:
        raise UserError(f"experiment '{experiment.name}' has no finished cell: there is nothing to compare.")
    return check_frame(experiment.frame)


def _common_checkpoint(
    left: pd.DataFrame, right: pd.DataFrame, a: Experiment, b: Experiment, checkpoint: str | None
) -> str:
    """The checkpoint asked for, else `last` where both have it, else what they have in common."""
    if checkpoint is not None and checkpoint not in CHECKPOINTS:
        hint = did_you_mean(checkpoint, list(CHECKPOINTS))
        raise UserError(f"checkpoint must be one of {', '.join(CHECKPOINTS)}, got '{checkpoint}'.{hint}")
    known = {x.name: set(part["checkpoint"]) for x, part in ((a, left), (b, right))}
    common = [name for name in CHECKPOINTS if all(name in own for own in known.values())]
    chosen = [name for name in common if checkpoint in (None, name)]
    if not chosen:
        told = "; ".join(f"'{name}' has {some(sorted(own))}" for name, own in known.items())
        raise UserError(f"the experiments have no results of one checkpoint to compare: {told}.")
    return chosen[0]


def _why_apart(left: pd.DataFrame, right: pd.DataFrame) -> str:
    """The first axis on which two experiments share no value."""
    words = {"dataset": "data set", "method": "method", "label_ratio": "label ratio", "modalities": "modality subset"}
    for axis in (*words, "corruption", "seed", "metric"):
        one, other = (_values(part, axis) for part in (left, right))
        if not set(one) & set(other):
            return f"no {words.get(axis, axis)} is in both ({some(one, 3)} against {some(other, 3)})"
    return "every data set, method, label ratio, condition and seed that is in both is combined differently"


def _values(part: pd.DataFrame, axis: str) -> list[Any]:
    """The values of an axis, as they are printed, in a fixed order."""
    found = part[axis].unique()
    if axis == "label_ratio":
        return [percent(float(value)) for value in sorted(found)]
    if axis == "method":
        return order_methods(found)
    if axis == "corruption":
        return [name or "clean" for name in order_corruptions(found)]
    return order_subsets(found) if axis == "modalities" else sorted(found)


def _primary_metrics(left: pd.DataFrame, right: pd.DataFrame) -> dict[str, str]:
    """Data set -> its primary metric; A's, if B has another."""
    rows = pd.concat([right, left]).sort_values("primary", kind="stable")  # the last one of a data set stays
    return dict(zip(rows["dataset"], rows["metric"], strict=True))


def _judge(pairs: pd.DataFrame) -> pd.DataFrame:
    """Each pair of values: whether it is the same, and how far B is from A and from being worse."""
    a, b = pairs["value_a"].to_numpy(float), pairs["value_b"].to_numpy(float)
    undefined = ~np.isfinite(a) & ~np.isfinite(b)
    defined = np.isfinite(a) & np.isfinite(b)
    difference = np.where(defined, b, np.nan) - np.where(defined, a, np.nan)
    return pairs.assign(
        identical=(a == b) | (np.isnan(a) & np.isnan(b)),
        close=(np.abs(difference) <= ROUNDING) | undefined,
        torn=defined == undefined,
        difference=difference,
        gain=np.where(pairs["higher_is_better_a"], 1.0, -1.0) * difference,
        one_training=pairs["training_id_a"] == pairs["training_id_b"],
    )


# ---- cells in one alone -----------------------------------------------------------------------------------


def _only(left: pd.DataFrame, right: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """How many cells are in one experiment alone, by the first axis that tells why."""
    rows = []
    for name, own, other in ((a, left, right), (b, right, left)):
        cells = own[AXES].drop_duplicates().merge(other[AXES].drop_duplicates(), how="left", indicator=True)
        alone = cells.loc[cells["_merge"] == "left_only", AXES]
        known = {axis: set(other[axis].unique()) for axis in AXES}
        why = Counter(_why_alone(cell, known) for cell in alone.to_dict("records"))
        rows += [(name, reason, n) for reason, n in why.items()]
    return pd.DataFrame(rows, columns=["experiment", "why", "n_cells"])


def _why_alone(cell: Mapping[Any, Any], known: Mapping[str, set[Any]]) -> str:
    for axis, values in known.items():
        if cell[axis] not in values:
            value = percent(cell[axis]) if axis == "label_ratio" else cell[axis]
            return f"{axis.replace('_', ' ')} {'clean' if value == '' else value}"
    return "not finished, or not asked for, in the other"


# ---- means over seeds -------------------------------------------------------------------------------------


def _groups(shown: pd.DataFrame, cells: pd.DataFrame, confidence: float, seed: int) -> pd.DataFrame:
    """One row a data set and method; see `Comparison.groups`."""
    identical = cells["identical"].groupby(level=["dataset", "method"])
    counts, sames = identical.size(), identical.sum()
    rows = []
    for dataset, part in shown.groupby("dataset", sort=True):
        for method in order_methods(part["method"]):
            own = part[part["method"] == method]
            key = (dataset, method)
            rows.append(
                {"dataset": dataset, "method": method, "metric": own["metric"].iloc[0],
                 "higher_is_better": bool(own["higher_is_better_a"].iloc[0]), "n_cells": int(counts[key]),
                 "n_identical": int(sames[key]), **_paired(own, confidence, seed)}
            )  # fmt: skip
    groups = pd.DataFrame(rows, columns=GROUP_COLUMNS)
    testable = groups["p"].notna().to_numpy()
    if testable.any():
        groups.loc[testable, "p"] = holm(groups.loc[testable, "p"].to_numpy(float))
    groups["test"] = [_tested(row) for row in groups.to_dict("records")]
    groups["verdict"] = [_verdict(row) for row in groups.to_dict("records")]
    return groups


def _paired(own: pd.DataFrame, confidence: float, seed: int) -> dict[str, Any]:
    """Means, their difference with its interval, and the raw p value, of one data set and method."""
    defined = own[own["difference"].notna()]
    # A cell that is undefined in one experiment alone is left out of both means.
    by_seed = defined.groupby("seed", sort=True)
    sums, sizes = by_seed["difference"].sum().to_numpy(float), by_seed.size().to_numpy().astype(np.float64)
    gains = by_seed["gain"].mean().to_numpy(float)
    low, high = _interval(sums, sizes, confidence, seed)
    n = len(sums)
    same = bool(own["identical"].all())
    testable = n > 0 and 2.0 ** (1 - n) <= ALPHA and not same
    return {
        "n_undefined": int(own["torn"].sum()), "n_seeds": n, "a": defined["value_a"].mean(),
        "b": defined["value_b"].mean(), "difference": sums.sum() / sizes.sum() if n else np.nan, "low": low,
        "high": high, "n_better": int((gains > TIE).sum()), "n_worse": int((gains < -TIE).sum()),
        "p": signed_rank(gains)[0] if testable else np.nan,
    }  # fmt: skip


def _interval(sums: Floats, sizes: Floats, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile bootstrap over S seeds of the mean over cells, which each seed has `sizes` of; NaN for one seed."""
    n = len(sums)
    if n < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)  # (R, S)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _tested(row: Mapping[Any, Any]) -> str:
    """The test in words: a p value, or why there is none."""
    if row["n_identical"] == row["n_cells"]:
        return ""
    if row["n_seeds"] == 0:
        return "undefined"
    return p_told(row["p"]) if row["p"] == row["p"] else f"not testable with {_count(row['n_seeds'], 'seed')}"


def _verdict(row: Mapping[Any, Any]) -> str:
    """B against A in words: of what could be tested what the test says, else what the seeds say."""
    if row["n_identical"] == row["n_cells"]:
        return "identical"
    n, better, worse = row["n_seeds"], row["n_better"], row["n_worse"]
    if n == 0:
        return "undefined"
    gain = row["difference"] if row["higher_is_better"] else -row["difference"]
    if row["p"] == row["p"]:
        return "no clear difference" if row["p"] > ALPHA or abs(gain) <= TIE else _word(gain)
    if better == worse == 0:
        return "equal"
    for word, count in (("better", better), ("worse", worse)):
        if count == n:
            return f"{word} in {'the only seed' if n == 1 else 'both seeds' if n == 2 else f'all {n} seeds'}"
    return f"mixed: better in {better}, worse in {worse} of {n} seeds"


def _word(gain: float) -> str:
    return "equal" if abs(gain) <= TIE else "better" if gain > 0 else "worse"


def _largest(shown: pd.DataFrame, left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """The conditions whose means over common seeds differ most, in standard deviations of the data set's results."""
    defined = shown[shown["difference"].notna()]
    grouped = defined.groupby(CONDITION, sort=True)
    table = grouped.agg(
        metric=("metric", "first"), n_seeds=("seed", "size"), a=("value_a", "mean"), b=("value_b", "mean"),
        difference=("difference", "mean"), gain=("gain", "mean"),
    ).reset_index()  # fmt: skip
    both = pd.concat([left, right])
    both = both[np.isfinite(both["value"])].groupby(["dataset", "metric"])["value"].std(ddof=0)
    keys = pd.MultiIndex.from_frame(table[["dataset", "metric"]])
    spread = both.reindex(keys).to_numpy(float)
    table["spreads"] = np.abs(table["difference"]) / np.where(spread > 0, spread, np.nan)
    table["verdict"] = [_word(gain) for gain in table["gain"]]
    table = table[table["difference"].abs() > TIE].sort_values("spreads", ascending=False, kind="stable")
    return table.drop(columns="gain").head(N_LARGEST).reset_index(drop=True)


# ---- how they were made -----------------------------------------------------------------------------------


def _differing_settings(a: Experiment, b: Experiment, pairs: pd.DataFrame) -> pd.DataFrame:
    """Settings that differ between trainings of one data set and method, put together where they differ alike."""
    empty = pd.DataFrame(columns=["key", "a", "b", "where"])
    if a.settings.empty or b.settings.empty:
        return empty
    common = pairs[["dataset", "method"]].drop_duplicates()
    keys = ["dataset", "method", "key"]
    sides = [
        side.settings.merge(common, on=["dataset", "method"]).groupby(keys)["value"].agg(_set_told)
        for side in (a, b)
    ]  # fmt: skip
    table = pd.concat(sides, axis=1, keys=["a", "b"]).fillna("not set").reset_index()
    table = table[table["a"] != table["b"]]
    rows = []
    for (key, one, other), part in table.groupby(["key", "a", "b"], sort=True):
        places = [f"{method} on {dataset}" for dataset, method in zip(part["dataset"], part["method"], strict=True)]
        everywhere = len(places) == len(common) and len(places) > 1
        rows.append((key, one, other, "everywhere" if everywhere else some(places, 3)))
    return pd.DataFrame(rows, columns=list(empty.columns)) if rows else empty


def _set_told(values: "pd.Series[str]") -> str:
    return " | ".join(sorted(set(values)))


def _differing_versions(a: Mapping[str, str], b: Mapping[str, str]) -> pd.DataFrame:
    """What differs of two environments, the packages that results depend on first."""
    rank = {name: at for at, name in enumerate(("python", "platform", "devices", "commit", *FIRST_PACKAGES))}
    names = sorted({*a, *b} if a and b else (), key=lambda name: (rank.get(name, len(rank)), name))
    rows = [(name, a.get(name, "none"), b.get(name, "none")) for name in names if a.get(name) != b.get(name)]
    return pd.DataFrame(rows, columns=["name", "a", "b"])


# ---- what else must be known ------------------------------------------------------------------------------


def _notes(
    a: Experiment,
    b: Experiment,
    left: pd.DataFrame,
    right: pd.DataFrame,
    pairs: pd.DataFrame,
    groups: pd.DataFrame,
    settings: pd.DataFrame,
    primary: Mapping[str, str],
) -> Iterator[str]:
    torn = pairs[pairs["one_training"] & ~pairs["identical"]]
    if len(torn):
        yield (
            f"{_count(len(torn[AXES].drop_duplicates()), 'cell')} differ although their trainings have one identity "
            "(method, settings, data, seed, protocol): another machine, other versions, or work that does not repeat."
        )
    yield from _protocol_notes(a, b, pairs, settings)
    few = groups[(groups["n_identical"] < groups["n_cells"]) & groups["p"].isna() & (groups["n_seeds"] > 1)]
    if len(few):
        least = next(n for n in range(1, 64) if 2.0 ** (1 - n) <= ALPHA)
        yield (
            f"Intervals over {some(sorted(few['n_seeds'].unique()))} seeds are too short (of 3 seeds a 95 % interval "
            f"holds the true mean about 3 times in 4); a test takes {least} seeds."
        )
    if groups["p"].notna().any():
        n = int(groups["p"].notna().sum())
        yield f"p: Wilcoxon's signed-rank test over seeds, two-sided, after Holm for {_count(n, 'test')}."
    if n_torn := int(groups["n_undefined"].sum()):
        yield f"{_count(n_torn, 'value')} undefined in one experiment alone: left out of the means of both."
    yield from _metric_notes(a, b, left, right, primary)


def _protocol_notes(a: Experiment, b: Experiment, pairs: pd.DataFrame, settings: pd.DataFrame) -> Iterator[str]:
    if a.settings.empty or b.settings.empty:
        return
    told = [_set_told(side.settings.loc[side.settings["key"] == PROTOCOL_KEY, "value"]) for side in (a, b)]
    if all(told) and told[0] != told[1]:
        yield f"Protocol version {told[0]} against {told[1]}: the code that makes results changed in between."
    elif not all(told) and settings.empty and not pairs["one_training"].any():
        yield (
            "Settings and data are the same and the identities of the trainings are not: the protocol version, which "
            "was not recorded, or a choice of the code must differ."
        )


def _metric_notes(
    a: Experiment, b: Experiment, left: pd.DataFrame, right: pd.DataFrame, primary: Mapping[str, str]
) -> Iterator[str]:
    """Metrics that only one has, or that the two read differently."""
    facts = ["dataset", "metric", "higher_is_better", "primary"]
    both = left[facts].drop_duplicates().merge(
        right[facts].drop_duplicates(), on=["dataset", "metric"], how="outer", suffixes=("_a", "_b"), indicator=True
    )  # fmt: skip
    both = both[both["dataset"].isin(left["dataset"]) & both["dataset"].isin(right["dataset"])]
    for name, side in ((a.name, "left_only"), (b.name, "right_only")):
        alone = both[both["_merge"] == side]
        if len(alone):
            words = [f"{m} of {d}" for d, m in zip(alone["dataset"], alone["metric"], strict=True)]
            yield f"Metrics of {name} alone: {some(words)}."
    shared = both[both["_merge"] == "both"]
    for dataset in shared.loc[shared["primary_a"] != shared["primary_b"], "dataset"].unique():
        yield f"The primary metric of {dataset} is another in {b.name}: compared by {primary[dataset]}, as in {a.name}."
    turned = shared[shared["higher_is_better_a"] != shared["higher_is_better_b"]]
    for dataset, metric in zip(turned["dataset"], turned["metric"], strict=True):
        yield f"{metric} of {dataset} is read in opposite directions: better and worse are as in {a.name}."


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
