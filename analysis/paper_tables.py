"""The tables of the Robult and RAML papers as layouts that any results can fill.

A layout says which data sets, modality subsets, metrics and methods stand where; `fill` puts the printed numbers and
ours into its cells. A cell without a result stays in its place and is missing.
"""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis.published import AVERAGE, PLAIN_PROTOCOLS, published, subset_key
from analysis.results import CONSTANT, TIE, at_checkpoint, base_method
from datasets.errors import UserError, did_you_mean

Where = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One heading of a row or column and what it fixes: column of the printed numbers -> value."""

    label: str
    where: Where


Axis = tuple[Entry, ...]


@dataclass(frozen=True)
class Panel:
    """A part of a table with headings of its own: rows and columns are products of axes, the last varying fastest."""

    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    fixed: Where = field(default_factory=dict)
    title: str = ""

    @property
    def methods_in_columns(self) -> bool:
        """Whether methods (or variants) are columns, as in Robult, or rows, as in RAML."""
        return any("method" in entry.where for axis in self.columns for entry in axis)


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        paper, number: as in `analysis.published`.
        caption: what it shows, in our words.
        panels: its parts, in order.
        fixed: what holds for all of its cells.
        lead_of: a method whose lead over the best of the others the paper prints in a last row; empty: none.
        decimals: digits after the point.
    """

    paper: str
    number: str
    caption: str
    panels: tuple[Panel, ...]
    fixed: Where
    lead_of: str = ""
    decimals: int = 3

    @property
    def name(self) -> str:
        return f"{ {'robult': 'Robult', 'raml': 'RAML'}[self.paper] }, Table {self.number}"


# ---- headings ---------------------------------------------------------------------------------------------

DATASETS = {
    "cmu_mosi": "CMU-MOSI", "cmu_mosei": "CMU-MOSEI", "mm_imdb": "MM-IMDb", "food101": "UPMC Food-101",
    "hateful_memes": "Hateful Memes", "n24news": "N24News", "iemocap": "IEMOCAP",
}  # fmt: skip
METHODS = {
    "unimodal": "Unimodal", "gmc": "GMC", "actionmae": "ActionMAE", "prompt_trans": "Prompt-Trans", "robult": "Robult",
    "dicmor": "DiCMoR", "sem": "SEM", "raml": "RAML", "concat": "Concat", "augmentation": "Augmentation",
    "mvae": "MVAE", "mmvae": "MMVAE", "cra": "CRA", "mmin": "MMIN", "tate": "TATE", "tmc": "TMC", "md": "MD",
    "etmc": "ETMC",
}  # fmt: skip
METRICS = {
    "mae": "MAE ↓", "corr": "Corr ↑", "f1": "F1 ↑", "acc": "Acc ↑", "f1_macro": "Macro F1 ↑", "auroc": "AUROC ↑",
    "wa": "WA ↑", "ua": "UA ↑", "flops": "FLOPs ↓", "macs": "MACs ↓", "params": "Parameters ↓",
    "dca_harmonic_mean": "DCA ↑", "mutual_information": "MI ↑", "entropy": "Entropy",
}  # fmt: skip
SUBSETS = {
    "text": "Text", "audio": "Audio", "vision": "Vision", "image": "Image", "text+audio": "Text + Audio",
    "text+vision": "Text + Vision", "audio+vision": "Audio + Vision", "text+audio+vision": "Full",
    "text+image": "Full",
}  # fmt: skip

OUR_METRICS = {("robult", "f1"): "f1_swapped", ("raml", "wa"): "acc"}
"""(paper, printed metric) -> what ours is called, where the two differ: Robult's F1 of sentiment sets has prediction
and truth exchanged, RAML's weighted accuracy is accuracy."""


def _axis(column: str, values: Sequence[str], labels: Mapping[str, str]) -> Axis:
    return tuple(Entry(labels[value], {column: value}) for value in values)


def _datasets(*names: str) -> Axis:
    return _axis("dataset", names, DATASETS)


def _methods(*names: str) -> Axis:
    return tuple(Entry(METHODS[name], {"method": name, "variant": "default"}) for name in names)


def _variants(method: str, labels: Mapping[str, str]) -> Axis:
    return tuple(Entry(label, {"method": method, "variant": name}) for name, label in labels.items())


def _metrics(*names: str) -> Axis:
    return _axis("metric", names, METRICS)


def _subsets(*names: str) -> Axis:
    return _axis("modalities", names, SUBSETS)


def _braces(*letters: str) -> Axis:
    """RAML's headings: `{A,T}`, and the average over all subsets."""
    modality = {"I": "image", "T": "text", "A": "audio", "V": "vision"}
    named = [
        Entry("{" + ",".join(group) + "}", {"modalities": "+".join(modality[c] for c in group)}) for group in letters
    ]
    return (*named, Entry("Average", {"modalities": AVERAGE}))


SENTIMENT = _metrics("mae", "corr", "f1", "acc")
MEMES = _metrics("auroc", "acc")
FOUR = _subsets("text", "audio", "vision", "text+audio+vision")
SEVEN = _subsets(
    "text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision"
)  # fmt: skip
THREE = _subsets("text", "image", "text+image")
CMU = _datasets("cmu_mosi", "cmu_mosei")
FIRST_FOUR = _methods("unimodal", "gmc", "actionmae", "robult")
ALL_FIVE = _methods("unimodal", "prompt_trans", "gmc", "actionmae", "robult")
RAML_METHODS = _methods(
    "concat", "augmentation", "mvae", "mmvae", "cra", "mmin", "tate", "tmc", "md", "etmc", "raml"
)  # fmt: skip
PAIRS, TRIPLES = _braces("I", "T", "IT"), _braces("A", "T", "V", "AT", "AV", "TV", "ATV")
SIGMAS, MASKS = (0.08, 0.12, 0.18, 0.26, 0.38), (0.05, 0.1, 0.15, 0.2, 0.25)
LOSSES = {"only_m": "M", "m_d": "M + D", "m_u": "M + U", "default": "M + U + D"}
FIVE_PERCENT, HALF, ALL_LABELS = ({"label_ratio": ratio, "protocol": "missing_at_test"} for ratio in (0.05, 0.5, 1.0))
RAML_FIXED = {"label_ratio": 1.0, "protocol": "missing_modality"}


def _mosi_and_memes(methods: Axis) -> tuple[Panel, ...]:
    """CMU-MOSI by modality and metric, then Hateful Memes."""
    return (
        Panel((FOUR, SENTIMENT), (methods,), {"dataset": "cmu_mosi"}, "CMU-MOSI"),
        Panel((THREE, MEMES), (methods,), {"dataset": "hateful_memes"}, "Hateful Memes"),
    )


def _pairs_and_triples(rows: Axis) -> tuple[Panel, ...]:
    """RAML's Tables I and VI: two data sets of two modalities side by side, then two of three."""
    return (
        Panel((rows,), (_datasets("food101", "n24news"), PAIRS), {"metric": "wa"}),
        Panel((rows,), (_datasets("iemocap"), TRIPLES), {"metric": "ua"}),
        Panel((rows,), (_datasets("cmu_mosei"), TRIPLES), {"metric": "wa"}),
    )


def _four_sets(pair: str, triple: str) -> Axis:
    """RAML's Tables IV and V: one column a data set."""
    return tuple(
        Entry(DATASETS[name], {"dataset": name, "metric": metric, "modalities": subset})
        for name, metric, subset in (
            ("food101", "wa", pair), ("n24news", "wa", pair), ("iemocap", "ua", triple), ("cmu_mosei", "wa", triple)
        )
    )  # fmt: skip


def _sweeps(datasets: Axis, other_sigma: float, other_mask: float) -> tuple[Panel, ...]:
    """RAML's Tables II and III: more and more noise on images, then more and more masked words."""
    base = {"modalities": "text+image", "metric": "wa"}
    sigma = tuple(Entry(f"σ = {s:g}", {"sigma": s, "mask_p": other_mask, "sweep": "sigma"}) for s in SIGMAS)
    mask = tuple(Entry(f"p = {p:g}", {"sigma": other_sigma, "mask_p": p, "sweep": "mask_p"}) for p in MASKS)
    return Panel((RAML_METHODS,), (datasets, sigma), base), Panel((RAML_METHODS,), (datasets, mask), base)


PAPER_TABLES: tuple[PaperTable, ...] = (
    PaperTable("robult", "1", "Sentiment from text, audio, vision or all of them, 5 % of the labels",
               (Panel((FOUR, SENTIMENT), (CMU, FIRST_FOUR)),), FIVE_PERCENT),
    PaperTable("robult", "2", "Classes of image-text pairs from either or both, 5 % of the labels", tuple(
        Panel((THREE,), (ALL_FIVE,), {"dataset": name, "metric": metric}, f"{DATASETS[name]}: {METRICS[metric]}")
        for name, metric in (("mm_imdb", "f1_macro"), ("food101", "acc"), ("hateful_memes", "auroc"))), FIVE_PERCENT),
    PaperTable("robult", "3", "Robult without one of its losses, 5 % of the labels", _mosi_and_memes((
        *_methods("gmc"), *_variants("robult", {
            "default": "Robult", "no_sup": "no L_sup", "no_rec": "no L_rec", "no_lb": "no L_lb",
            "no_ulb": "no L_ulb"}))), FIVE_PERCENT),
    PaperTable("robult", "5", "Operations and parameters", tuple(
        Panel((_metrics("flops", "macs", "params"),), (_methods("robult", "gmc", "actionmae"),),
              {"dataset": name, "modalities": full}, DATASETS[name])
        for name, full in (("cmu_mosi", "text+audio+vision"), ("cmu_mosei", "text+audio+vision"),
                           ("hateful_memes", "text+image"))), {"label_ratio": np.nan, "protocol": "cost"}),
    PaperTable("robult", "6", "Sentiment from every modality subset, 5 % of the labels",
               (Panel((SEVEN, SENTIMENT), (CMU, FIRST_FOUR)),), FIVE_PERCENT),
    PaperTable("robult", "7", "Half of the labels", _mosi_and_memes(ALL_FIVE), HALF),
    PaperTable("robult", "8", "All labels", _mosi_and_memes(ALL_FIVE), ALL_LABELS),
    PaperTable("robult", "9", "Two further methods on every modality subset, 5 % of the labels",
               (Panel((SEVEN, SENTIMENT), (CMU, _methods("dicmor", "sem", "robult"))),), FIVE_PERCENT),
    PaperTable("robult", "10", "Robult without one of its parts, 5 % of the labels", _mosi_and_memes(
        _variants("robult", {"default": "Robult", "no_weighting": "no weighting",
                             "no_unique_branches": "no unique branches",
                             "no_pseudo_labelling": "no pseudo-labels"})), FIVE_PERCENT),
    PaperTable("robult", "11", "Other weights of proximity than the Gaussian of Robult, 5 % of the labels",
               (Panel((SEVEN, SENTIMENT), (CMU, _variants("robult", {
                   "weight_l1": "L1", "weight_l2": "L2", "default": "Robult"}))),), FIVE_PERCENT),
    PaperTable("robult", "12", "Mutual information of the fused and each single representation, CMU-MOSI", (
        Panel(((Entry("Text", {"modalities": "text", "metric": "mutual_information"}),
                Entry("Audio", {"modalities": "audio", "metric": "mutual_information"}),
                Entry("Vision", {"modalities": "vision", "metric": "mutual_information"}),
                Entry("Fused (entropy)", {"modalities": "text+audio+vision", "metric": "entropy"})),),
              (_variants("robult", {"default": "Robult", "no_soft_pu": "no soft P-U loss"}),),
              {"dataset": "cmu_mosi"}),), {"label_ratio": np.nan, "protocol": "representations"}),
    PaperTable("robult", "13", "Trained on CMU-MOSEI with 5 % of the labels, tested on CMU-MOSI",
               (Panel((SEVEN, SENTIMENT), (FIRST_FOUR,), {"dataset": "cmu_mosi"}),),
               {"label_ratio": 0.05, "protocol": "zero_shot", "train_dataset": "cmu_mosei"}),
    PaperTable("robult", "14", "DCA: how representations of one modality align with those of the full set, "
               "half of the labels", tuple(
                   Panel((_subsets(*subsets),),
                         ((*_methods("unimodal", "gmc"), *_variants("robult", {"plus_gmc": "Robult + GMC"})),),
                         {"dataset": name, "metric": "dca_harmonic_mean", "reference_modalities": full}, DATASETS[name])
                   for name, subsets, full in (("cmu_mosi", ("text", "audio", "vision"), "text+audio+vision"),
                                               ("hateful_memes", ("text", "image"), "text+image"))),
               {"label_ratio": 0.5, "protocol": "representations"}),
    PaperTable("raml", "I", "Every modality subset; UA on IEMOCAP, WA elsewhere", _pairs_and_triples(RAML_METHODS),
               RAML_FIXED, "raml", 4),
    PaperTable("raml", "II", "Noise on images, then masked words",
               _sweeps(_datasets("food101", "n24news"), 0.0, 0.0), RAML_FIXED | {"protocol": "single_corruption"},
               "raml", 4),
    PaperTable("raml", "III", "Noise on images and masked words together", _sweeps(_datasets("food101"), 0.18, 0.1),
               RAML_FIXED | {"protocol": "dual_corruption"}, "raml", 4),
    PaperTable("raml", "IV", "Trained and tested on complete samples alone; UA on IEMOCAP, WA elsewhere",
               (Panel((_methods("concat", "tmc", "md", "etmc", "raml"),),
                      (_four_sets("text+image", "text+audio+vision"),)),),
               RAML_FIXED | {"protocol": "full_modality_training"}, "", 4),
    PaperTable("raml", "V", "Weights of modalities, average over all subsets; UA on IEMOCAP, WA elsewhere",
               (Panel((_variants("raml", {"weight_identical": "Identical", "weight_fixed": "Fixed",
                                          "default": "Adaptive (RAML)"}),), (_four_sets(AVERAGE, AVERAGE),)),),
               RAML_FIXED, "", 4),
    PaperTable("raml", "VI", "RAML with some of its losses; UA on IEMOCAP, WA elsewhere",
               _pairs_and_triples(_variants("raml", LOSSES)), RAML_FIXED, "", 4),
)  # fmt: skip


def paper_table(paper: str, number: str) -> PaperTable:
    """The layout of one table.

    Raises:
        UserError: no such paper or table.
    """
    for table in PAPER_TABLES:
        if (table.paper, table.number) == (paper, number):
            return table
    known = [f"{table.paper} {table.number}" for table in PAPER_TABLES]
    hint = did_you_mean(f"{paper} {number}", known)
    raise UserError(f"there is no layout of '{paper} {number}'; there are: {', '.join(known)}.{hint}")


# ---- ours -------------------------------------------------------------------------------------------------

IDENTITY = [
    "dataset", "label_ratio", "modalities", "method", "variant", "metric",
    "protocol", "sigma", "mask_p", "train_dataset", "reference_modalities",
]  # fmt: skip
MEASURED = [*IDENTITY, "seed", "value", "higher_is_better", "source", "run_id"]
"""Columns of measured numbers, one row a seed. `modalities` in the order of `subset_key`; `protocol` is empty where
samples lack modalities and no more; `sigma` and `mask_p` are NaN and the two after them empty where they play no part.
`source` is our label of the data set, `run_id` the run behind the number, empty for a mean of several."""
COMPLETE = "full_modality_training"
COMPLETE_BY_NATURE = ("concat", CONSTANT)
"""Methods that see complete samples alone in every table of RAML."""


@dataclass(frozen=True)
class Origins:
    """What a results frame does not say of its trainings, and the papers' protocols depend on.

    Attributes:
        names: our label of a data set -> its name in `analysis.published`, where they differ.
        transfers: our label of a data set -> the names of those it is trained and tested on, where these differ.
        complete: ids of the trainings that were asked to see complete samples alone (RAML, Table IV).
        epochs: id of a training -> how many epochs it had.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    transfers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    complete: Container[str] = frozenset()
    epochs: Mapping[str, int] = field(default_factory=dict)

    def name(self, label: str) -> str:
        """The published name of the data set that is tested."""
        return self.transfers[label][1] if label in self.transfers else self.names.get(label, label)

    def trained_on(self, label: str) -> str:
        """The published name of the data set that is trained on, empty where it is the one that is tested."""
        return self.transfers[label][0] if label in self.transfers else ""


def measured(frame: pd.DataFrame, checkpoint: str, origins: Origins | None = None) -> pd.DataFrame:
    """A results frame in the papers' terms, with the columns of `MEASURED`.

    A label such as `robult[no_rec]` is method and variant. Noise on images and masked words are `sigma` and `mask_p`
    of RAML's protocols; other corruptions belong to no table and are left out. The average over all subsets of a
    data set is added, a row a seed, where every non-empty subset was measured. Numbers that are no cells of a grid
    (operations, DCA, mutual information) have these columns too: append them with `pandas.concat`.

    Args:
        frame: results, see `analysis.results.check_frame`, folds merged (`analysis.folds`).
        checkpoint: `last` or `best`.
        origins: what the frame does not say.

    Raises:
        UserError: the frame is bad, or has nothing at this checkpoint.
    """
    origins = origins or Origins()
    chosen = at_checkpoint(frame, checkpoint)
    labels = {label: origins.name(label) for label in chosen["dataset"].unique()}
    methods = {label: (base_method(label), _variant(label)) for label in chosen["method"].unique()}
    subsets = {subset: subset_key(subset) for subset in chosen["modalities"].unique()}
    ours = pd.DataFrame({
        "dataset": chosen["dataset"].map(labels), "label_ratio": chosen["label_ratio"],
        "modalities": chosen["modalities"].map(subsets),
        "method": chosen["method"].map({label: parts[0] for label, parts in methods.items()}),
        "variant": chosen["method"].map({label: parts[1] for label, parts in methods.items()}),
        "metric": chosen["metric"], "reference_modalities": "", "seed": chosen["seed"], "value": chosen["value"],
        "higher_is_better": chosen["higher_is_better"], "source": chosen["dataset"], "run_id": chosen["run_id"],
        "train_dataset": chosen["dataset"].map({label: origins.trained_on(label) for label in labels}),
    })  # fmt: skip
    protocols = {text: _corruption_protocol(text) for text in chosen["corruption"].unique()}
    for at, name in enumerate(("protocol", "sigma", "mask_p")):
        ours[name] = chosen["corruption"].map({text: found[at] for text, found in protocols.items()})
    transferred = ours["train_dataset"] != ""
    ours.loc[transferred, "protocol"] = ours.loc[transferred, "protocol"].replace({"": "zero_shot"})
    whole = chosen.loc[chosen["full"], ["dataset", "n_modalities"]].drop_duplicates("dataset").set_index("dataset")
    ours["n_subsets"] = chosen["dataset"].map(2 ** whole["n_modalities"] - 1)
    asked = chosen["training_id"].map(lambda name: name in origins.complete) & (ours["protocol"] == "")
    if asked.any():
        ours = _with_complete(ours, asked, chosen["full"])
    ours = ours[ours["protocol"] != _OTHER]
    return pd.concat([ours[MEASURED], _averages(ours)], ignore_index=True)


def _averages(ours: pd.DataFrame) -> pd.DataFrame:
    """Means over all subsets of clean inputs, a row a seed, where all `n_subsets` were measured."""
    keys = [name for name in MEASURED if name not in ("modalities", "value", "sigma", "mask_p", "run_id")]
    grouped = ours[ours["protocol"] == ""].groupby(keys, sort=False, as_index=False)
    means = grouped.agg(value=("value", _mean_of_all), found=("value", "size"), n_subsets=("n_subsets", "first"))
    means = means[means["found"] == means["n_subsets"]]
    return means.assign(modalities=AVERAGE, sigma=np.nan, mask_p=np.nan, run_id="")[MEASURED]


def _variant(label: str) -> str:
    inside = label.partition("[")[2].removesuffix("]")
    return inside or "default"


_ASKED_COMPLETE = {f"{COMPLETE}=true", "full_modality", "patterns=none"}
"""What labels say of trainings that were asked to see complete samples alone."""


def _with_complete(ours: pd.DataFrame, asked: "pd.Series[bool]", full: "pd.Series[bool]") -> pd.DataFrame:
    """Rows of trainings on complete samples under RAML's protocol of them, which also has what is so by nature."""

    def plain(variant: str) -> str:
        return ",".join(part for part in variant.split(",") if part not in _ASKED_COMPLETE) or "default"

    moved = ours[asked].assign(protocol=COMPLETE)
    moved["variant"] = moved["variant"].map(plain)
    by_nature = ours[full & (ours["protocol"] == "") & ours["method"].isin(COMPLETE_BY_NATURE)]
    return pd.concat([ours[~asked], moved, by_nature.assign(protocol=COMPLETE)], ignore_index=True)


_OTHER = "other"
_CORRUPTION = re.compile(r"(?:gaussian\(image\)=(?P<sigma>[^&]+))?&?(?:mask\(text\)=(?P<mask_p>[^&]+))?")


def _corruption_protocol(corruption: str) -> tuple[str, float, float]:
    """RAML's protocol, sigma and masking probability of a corruption; clean inputs have neither."""
    if not corruption:
        return "", np.nan, np.nan
    found = _CORRUPTION.fullmatch("&".join(sorted(corruption.split("&"))))
    if found is None:
        return _OTHER, np.nan, np.nan
    sigma, mask_p = float(found["sigma"] or 0), float(found["mask_p"] or 0)
    return "dual_corruption" if sigma and mask_p else "single_corruption", sigma, mask_p


def _mean_of_all(values: "pd.Series[float]") -> float:
    return float(values.mean(skipna=False))


# ---- filled -----------------------------------------------------------------------------------------------

_PLACE = ["panel", "row", "column"]
_NO_SWEEP = {"sigma": np.nan, "mask_p": np.nan, "sweep": ""}


def layout(table: PaperTable) -> pd.DataFrame:
    """One row a cell: its place, what it holds, and its headings.

    Columns: `panel`, `row`, `column` (counted from 0), the columns of `IDENTITY` and `sweep`, `row_labels` and
    `column_labels` (tuples).
    """
    cells = []
    for at, panel in enumerate(table.panels):
        for (i, row), (j, column) in product(enumerate(product(*panel.rows)), enumerate(product(*panel.columns))):
            where = {"train_dataset": "", "reference_modalities": "", **_NO_SWEEP, **table.fixed, **panel.fixed}
            for entry in (*row, *column):
                where |= entry.where
            labels = {"row_labels": tuple(e.label for e in row), "column_labels": tuple(e.label for e in column)}
            cells.append({"panel": at, "row": i, "column": j, **where, **labels})
    frame = pd.DataFrame(cells)
    frame["modalities"] = frame["modalities"].map(subset_key)
    return frame[[*_PLACE, *IDENTITY, "sweep", "row_labels", "column_labels"]]


def fill(table: PaperTable, ours: pd.DataFrame | None = None) -> pd.DataFrame:
    """The cells of a table with the printed numbers and ours, none left out.

    Columns: those of `layout`; `higher_is_better`; of the paper `published` (NaN where it prints a dash), `printed`,
    `note`, `decides` (see `analysis.published.published`), `published_best`, `published_second`; of ours `mean`, `std`
    (ddof = 1), `n_seeds` (0 = missing), `n_nan`, `is_constant` (equals the constant predictor), `best`, `second`;
    `difference`, ours minus the paper's; `runs`, a tuple of the runs behind ours, empty where these are means of
    several; `group`, a number shared by the cells that compete for best.

    Args:
        table: of `PAPER_TABLES`.
        ours: from `measured`; None: nothing was measured.

    Raises:
        UserError: a column of `ours` is missing.
    """
    cells = layout(table)
    printed = published(table.paper, table.number)
    printed = printed.assign(modalities=printed["modalities"].map(subset_key))
    keys = [name for name in [*IDENTITY, "sweep"] if name != "label_ratio"]
    columns = ["value", "printed", "note", "decides", "higher_is_better"]
    printed = printed[[*keys, *columns]].rename(columns={"value": "published"})
    cells = cells.merge(printed, on=keys, how="left", validate="one_to_one")  # NaN matches NaN
    cells = cells.join(_summary_of(table, cells, ours))
    cells[["n_seeds", "n_nan"]] = cells[["n_seeds", "n_nan"]].fillna(0).astype(np.int64)
    cells["is_constant"] = cells["is_constant"].eq(True)
    cells["runs"] = [runs if isinstance(runs, tuple) else () for runs in cells["runs"]]
    cells["difference"] = cells["mean"] - cells["published"]
    apart = [name for name in [*IDENTITY, "sweep"] if name not in ("method", "variant")]
    cells["group"] = cells.groupby(["panel", *apart], dropna=False, sort=False).ngroup()
    cells["published_best"], cells["published_second"] = _marks(cells, "published")
    cells["best"], cells["second"] = _marks(cells, "mean")
    return cells


def versions(table: PaperTable, ours: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Measured numbers with one of our data sets for each of the paper's, where we have several of one: title -> rows.

    Such as CMU-MOSEI to CMU-MOSI with features aligned in two ways, or two kinds of features of one data set: means
    over both would be of nothing. One version has an empty title.
    """
    found = _found(table, layout(table), ours)
    sources = {name: sorted(part["source"].unique()) for name, part in found.groupby("dataset", sort=False)}
    n = max(map(len, sources.values()), default=1)
    if n < 2:
        return {"": ours}
    chosen = {}
    for at in range(n):
        own = {name: labels[min(at, len(labels) - 1)] for name, labels in sources.items()}
        title = ", ".join(label for name, label in own.items() if len(sources[name]) > 1)
        wanted = ours["dataset"].map(own)
        chosen[title] = ours[wanted.isna() | (wanted == ours["source"])]
    return chosen


def _found(table: PaperTable, cells: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """The measured numbers that belong into a table, with `at`, the index of their cell.

    Raises:
        UserError: a column of `ours` is missing.
    """
    missing = [name for name in MEASURED if name not in ours.columns]
    if missing:
        raise UserError(f"the measured numbers lack columns: {', '.join(missing)}. Make them with `measured`.")
    wanted = cells[IDENTITY].assign(at=cells.index)
    wanted["metric"] = [OUR_METRICS.get((table.paper, name), name) for name in wanted["metric"]]
    wanted["protocol"] = wanted["protocol"].replace(dict.fromkeys((*PLAIN_PROTOCOLS, "cost", "representations"), ""))
    ours = ours.assign(
        value=ours["value"].where(np.isfinite(ours["value"])),
        modalities=ours["modalities"].map(subset_key),
        reference_modalities=ours["reference_modalities"].map(subset_key),
    )
    wanted["reference_modalities"] = wanted["reference_modalities"].map(subset_key)
    keys = list(IDENTITY)
    if wanted["label_ratio"].isna().all():  # the paper does not say: the fewest labels that were measured
        mine = ours[ours["metric"].isin(wanted["metric"])]
        wanted["label_ratio"] = mine["label_ratio"].min()
    for name in ("source", "run_id"):
        ours = ours.assign(**{name: ours[name].astype(object).where(ours[name].notna(), "")})
    return wanted.merge(ours, on=keys, how="inner")


def _summary_of(table: PaperTable, cells: pd.DataFrame, ours: pd.DataFrame | None) -> pd.DataFrame:
    """`mean`, `std`, `n_seeds`, `n_nan`, `is_constant` and `runs`, indexed as `cells`, for cells that were measured."""
    names = ["mean", "std", "n_seeds", "n_nan", "is_constant", "runs"]
    nothing = pd.DataFrame(columns=names, index=cells.index[:0], dtype=float)
    if ours is None or ours.empty:
        return nothing
    found = _found(table, cells, ours)
    if found.empty:
        return nothing
    grouped = found.groupby("at")["value"]
    summary = pd.DataFrame({"mean": grouped.mean(), "std": grouped.std(ddof=1), "n_seeds": grouped.size()})
    summary["runs"] = found.sort_values("seed", kind="stable").groupby("at")["run_id"].agg(_runs)
    summary["n_nan"] = summary["n_seeds"] - grouped.count()
    summary.loc[summary["n_nan"] > 0, ["mean", "std"]] = np.nan
    summary["is_constant"] = _equals_constant(found, ours).reindex(summary.index, fill_value=False)
    return summary


def _runs(names: "pd.Series[str]") -> tuple[str, ...]:
    """Each run once; none where a number is of several."""
    return tuple(dict.fromkeys(names)) if (names != "").all() else ()


def _equals_constant(found: pd.DataFrame, ours: pd.DataFrame) -> "pd.Series[bool]":
    """Where the mean, or the value of every seed, is the constant predictor's."""
    keys = [name for name in [*IDENTITY, "seed"] if name not in ("method", "variant")]
    constant = ours.loc[ours["method"] == CONSTANT, [*keys, "value"]]
    pairs = found.merge(constant, on=keys, how="left", suffixes=("", "_constant"))
    every = (pairs["value"] - pairs["value_constant"]).abs().le(TIE).groupby(pairs["at"]).all()
    means = pairs.groupby("at")[["value", "value_constant"]].agg(_mean_of_all)
    return every | (means["value"] - means["value_constant"]).abs().le(TIE)


def _marks(cells: pd.DataFrame, column: str) -> tuple["pd.Series[bool]", "pd.Series[bool]"]:
    """Best and second of each group; equal values share a mark, groups with fewer than two values have none."""
    score = cells[column].where(cells["higher_is_better"], -cells[column]).astype(np.float64)
    competes = score.notna() & (score.groupby(cells["group"]).transform("count") > 1)
    score = score.where(competes)
    best = competes & (score >= score.groupby(cells["group"]).transform("max") - TIE)
    rest = score.mask(best)
    second = competes & ~best & (score >= rest.groupby(cells["group"]).transform("max") - TIE)
    return best, second


# ---- agreement --------------------------------------------------------------------------------------------


def agreement(cells: pd.DataFrame) -> pd.DataFrame:
    """Whether ours rank methods as the paper does, one row a group of competing cells.

    Columns: `group`, `n_common` (methods that both have), `tau` (Kendall's tau-b over them; NaN below two, or where
    all are equal on one side), `same_best` (some method is best in both; missing below two).

    Args:
        cells: from `fill`.
    """
    from scipy.stats import kendalltau

    rows: list[tuple[int, int, float, bool | None]] = []
    for group, part in cells.groupby("group", sort=True):
        both = part[part["published"].notna() & part["mean"].notna()]
        tau, same = float("nan"), None
        if len(both) > 1:
            sign = np.where(both["higher_is_better"], 1.0, -1.0)
            theirs = both["published"].to_numpy(np.float64) * sign
            mine = np.round(both["mean"].to_numpy(np.float64) / TIE) * TIE * sign
            if np.ptp(theirs) > 0 and np.ptp(mine) > 0:
                tau = float(kendalltau(theirs, mine).statistic)
            same = bool(((theirs == theirs.max()) & (mine == mine.max())).any())
        rows.append((int(str(group)), len(both), tau, same))
    table = pd.DataFrame(rows, columns=["group", "n_common", "tau", "same_best"])
    return table.astype({"same_best": "boolean"})


def agreement_told(cells: pd.DataFrame) -> str:
    """How far ours rank as the paper does, in a sentence."""
    table = agreement(cells)
    comparable = table[table["n_common"] > 1]
    if comparable.empty:
        return "No ranking can be compared: nowhere have two methods both a printed number and one of ours."
    n = len(comparable)
    taus = comparable["tau"].dropna()
    mean = f", mean Kendall's tau {taus.mean():.2f}" if len(taus) else ""
    low, high = int(comparable["n_common"].min()), int(comparable["n_common"].max())
    methods = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"Rankings compared: {n} of {len(table)}, over {methods} methods that both have. "
        f"The best is the same in {int(comparable['same_best'].sum())}, "
        f"the whole order in {int((taus > 1 - 1e-9).sum())}{mean}."
    )


def leads(table: PaperTable, cells: pd.DataFrame, column: str) -> pd.DataFrame:
    """The lead of `table.lead_of` over the best of the others, in percentage points, by panel and column.

    Columns: `panel`, `column`, `lead` (NaN where either side is missing). Empty for a table without such a row.

    Args:
        table: the layout.
        cells: from `fill`.
        column: `published` or `mean`.
    """
    score = cells[column].where(cells["higher_is_better"], -cells[column]).astype(np.float64)
    own = cells["method"] == table.lead_of
    places = [cells["panel"], cells["column"]]
    gap = 100 * (score.where(own).groupby(places).max() - score.where(~own).groupby(places).max())
    found = gap.rename("lead").reset_index()
    return found if table.lead_of else found.iloc[:0]
