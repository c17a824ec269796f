"""The printed results of the Robult and RAML papers, one row a printed number, with what is known to be odd about them.

They are targets to compare with, never results of ours. Robult: Nguyen, Kamboj, Do, IJCAI 2025, Tables 1 to 3 and,
from its appendix, 5 to 14 (Table 4 lists symbols). RAML: "Redundancy-Adaptive Multimodal Learning for Imperfect
Data", Tables I to VI. The papers' figures print no numbers.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import yaml

from datasets.errors import DataError, UserError, did_you_mean

TABLES = {
    "robult": ("1", "2", "3", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14"),
    "raml": ("I", "II", "III", "IV", "V", "VI"),
}
"""Paper -> its tables of results, numbered as the paper numbers them."""

PROTOCOLS = {
    "missing_at_test": "trained on complete samples, tested on a modality subset",
    "missing_modality": "trained on complete samples and on every way of lacking modalities, tested on a subset",
    "single_corruption": "trained as for missing modalities; tested complete, one modality corrupted",
    "dual_corruption": "trained as for missing modalities; tested complete, both modalities corrupted",
    "full_modality_training": "trained and tested on complete samples alone",
    "zero_shot": "trained on one data set, tested on another",
    "cost": "operations and parameters, not scores",
    "representations": "properties of representations, not scores",
}
"""How the numbers of a row were made."""

AVERAGE = "average"
"""In `modalities`: the mean over all non-empty subsets, as RAML prints it."""

PLAIN_PROTOCOLS = ("missing_at_test", "missing_modality")
"""Protocols in which a test sample lacks modalities and nothing else was done to it."""

KEY = (
    "paper", "table", "dataset", "label_ratio", "modalities", "method", "variant", "metric",
    "protocol", "sigma", "mask_p", "sweep", "train_dataset", "reference_modalities",
)  # fmt: skip
"""The columns that identify a printed number."""
COLUMNS = (*KEY, "value", "printed", "decimals", "higher_is_better", "note", "decides")

_NUMBERS = ("label_ratio", "sigma", "mask_p")
_MAY_BE_EMPTY = ("label_ratio", "sigma", "mask_p", "sweep", "train_dataset", "reference_modalities", "note", "decides")
_RANGES: Mapping[str, tuple[float, float]] = {
    "corr": (-1, 1), "f1": (0, 1), "f1_macro": (0, 1), "acc": (0, 1), "auroc": (0, 1), "wa": (0, 1), "ua": (0, 1),
    "dca_harmonic_mean": (0, 1), "mae": (0, 6), "mutual_information": (0, np.inf), "entropy": (0, np.inf),
    "flops": (1, np.inf), "macs": (1, np.inf), "params": (1, np.inf),
}  # fmt: skip
_LOWER_IS_BETTER = ("mae", "flops", "macs", "params")


class Note(NamedTuple):
    """What a reader must know: about a table as a whole, or (in the frame's `note`) about some of its cells."""

    kind: Literal["suspect", "claim", "protocol"]
    text: str


def published(paper: str | None = None, table: str | None = None) -> pd.DataFrame:
    """The printed numbers, all of them or those of one paper or one table.

    Columns: those of `KEY`; `value` as a number, in base units (Table 5: operations and parameters), NaN where the
    paper prints a dash; `printed`, its text; `decimals`, the digits after the point; `higher_is_better`; `note`,
    what is odd about this number, empty where nothing is known; `decides`, what the method decides for every
    sample where its scores are those of a constant predictor, else empty. Empty cells of `label_ratio`, `sigma` and
    `mask_p` are NaN (not stated, or no part of the protocol), others are empty text. A subset's modalities may be
    written in another order than a data set of ours writes them: compare by `subset_key`.

    Raises:
        UserError: no such paper or table.
        DataError: the package's files are damaged.
    """
    frame = _everything()
    if paper is not None:
        _known(paper, list(TABLES), "paper")
        frame = frame[frame["paper"] == paper]
    if table is not None:
        _known(table, [number for name in TABLES if paper in (None, name) for number in TABLES[name]], "table")
        frame = frame[frame["table"] == table]
    return frame.reset_index(drop=True)


def table_notes(paper: str, table: str) -> list[Note]:
    """What is to be known about a table as a whole; notes on single cells are in the frame.

    Raises:
        UserError: no such paper or table.
    """
    _known(paper, list(TABLES), "paper")
    _known(table, list(TABLES[paper]), "table")
    return [
        Note(entry["kind"], entry["note"])
        for entry in _entries("notes.yaml")
        if entry["paper"] == paper and table in entry["tables"] and "where" not in entry
    ]


def printed_margins() -> pd.DataFrame:
    """RAML's rows of differences as printed: its lead over the second-best method in percentage points.

    Some do not follow from the numbers above them; the frame's notes name which.
    """
    frame = _read("raml_margins.csv")
    for name in ("sigma", "mask_p", "delta_percent_points"):
        frame[name] = pd.to_numeric(frame[name])
    return frame


def subset_key(modalities: str) -> str:
    """A modality subset in one order whatever order it was written in: `vision+text` -> `text+vision`."""
    return "+".join(sorted(part.strip() for part in modalities.split("+")))


# ---- reading ----------------------------------------------------------------------------------------------


def _known(name: str, known: list[str], what: str) -> None:
    if name not in known:
        raise UserError(f"there is no {what} '{name}'; there are: {', '.join(known)}.{did_you_mean(name, known)}")


def _read(name: str) -> pd.DataFrame:
    """A CSV file of this package, every field as text."""
    with files(__package__).joinpath(name).open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


@cache
def _entries(name: str) -> tuple[dict[str, Any], ...]:
    return tuple(yaml.safe_load(files(__package__).joinpath(name).read_text(encoding="utf-8")))


@cache
def _everything() -> pd.DataFrame:
    """The checked numbers of both papers. Callers get parts of it, which pandas copies on writing."""
    return pd.concat([read_paper(_read(f"{paper}.csv"), paper) for paper in TABLES], ignore_index=True)


def read_paper(text: pd.DataFrame, paper: str) -> pd.DataFrame:
    """The columns of `COLUMNS` from a paper's file, all fields of which are text, checked.

    Raises:
        DataError: a column is missing, a field has no meaning, a number is out of range or occurs twice.
    """
    file = f"{paper}.csv"
    needed = [name for name in COLUMNS if name not in ("paper", "decimals", "note", "decides")]
    missing = [name for name in needed if name not in text.columns]
    if missing:
        raise DataError(f"{file}: missing columns: {', '.join(missing)}. Reinstall the package.")
    frame = text[needed].assign(paper=paper)
    fraction = text["printed"].str.extract(r"\.(\d+)", expand=False).fillna("")
    frame["decimals"] = fraction.str.len().astype(np.int64)
    frame["note"] = _cell_notes(text, paper)
    frame["decides"] = _constant_decisions(text, paper)
    for name in (*_NUMBERS, "value"):
        try:
            frame[name] = pd.to_numeric(text[name]).astype(np.float64)
        except ValueError as error:
            raise DataError(f"{file}: column '{name}' must hold numbers: {error}. Reinstall the package.") from error
    frame["higher_is_better"] = text["higher_is_better"].map({"true": True, "false": False})
    problems = list(_problems(frame, text, paper))
    if problems:
        raise DataError(f"{file}: {'; '.join(problems)}. Reinstall the package.")
    return frame.astype({"higher_is_better": bool})[list(COLUMNS)]


def _problems(frame: pd.DataFrame, text: pd.DataFrame, paper: str) -> Iterable[str]:
    """What is wrong with a paper's numbers, each in a few words naming the first line of it."""
    checks = {
        "table that the paper does not have": ~frame["table"].isin(TABLES[paper]),
        "unknown metric": ~frame["metric"].isin(list(_RANGES)),
        "unknown protocol": ~frame["protocol"].isin(list(PROTOCOLS)),
        "wrong direction of a metric": frame["higher_is_better"] != ~frame["metric"].isin(_LOWER_IS_BETTER),
        "label ratio outside (0, 1]": frame["label_ratio"].notna() & ~frame["label_ratio"].between(0, 1, "right"),
        "masking probability outside [0, 1]": frame["mask_p"].notna() & ~frame["mask_p"].between(0, 1),
        "negative sigma": frame["sigma"] < 0,
        "value out of its metric's range": _out_of_range(frame),
        "empty value that is not printed as a dash": frame["value"].isna() != (text["printed"] == "-"),
        "number that occurs twice": frame.duplicated(list(KEY)),
    }
    for name in KEY:
        if name not in _MAY_BE_EMPTY:
            checks[f"empty {name}"] = frame[name] == ""
    for told, wrong in checks.items():
        if wrong.any():
            yield f"line {int(np.flatnonzero(wrong)[0]) + 2}: {told}"


def _out_of_range(frame: pd.DataFrame) -> "pd.Series[bool]":
    low = frame["metric"].map({name: ends[0] for name, ends in _RANGES.items()})
    high = frame["metric"].map({name: ends[1] for name, ends in _RANGES.items()})
    return frame["value"].notna() & ((frame["value"] < low) | (frame["value"] > high))


def _matches(text: pd.DataFrame, where: Mapping[str, object]) -> "pd.Series[bool]":
    """Rows whose columns have the wanted text, or one of the wanted texts."""
    matched = pd.Series(True, index=text.index)
    for name, wanted in where.items():
        matched &= text[name].isin([str(item) for item in (wanted if isinstance(wanted, list) else [wanted])])
    return matched


def _cell_notes(text: pd.DataFrame, paper: str) -> "pd.Series[str]":
    notes = pd.Series("", index=text.index)
    for entry in _entries("notes.yaml"):
        if entry["paper"] != paper or "where" not in entry:
            continue
        chosen = text["table"].isin(entry["tables"]) & _matches(text, entry["where"])
        if not chosen.any() and set(entry["tables"]) <= set(text["table"]):
            raise DataError(f"notes.yaml: no number of {paper} is meant by '{entry['note'][:40]}...'")
        notes = notes.where(~chosen, (notes + " " + entry["note"]).str.strip())
    return notes


def _constant_decisions(text: pd.DataFrame, paper: str) -> "pd.Series[str]":
    """What a cell's method decides for every sample, where all metrics of a fingerprint agree; else empty."""
    decides = pd.Series("", index=text.index)
    cell = [name for name in KEY if name in text.columns and name != "metric"]
    for entry in _entries("constants.yaml"):
        if entry["paper"] != paper:
            continue
        own = text[(text["dataset"] == entry["dataset"]) & text["metric"].isin(list(entry["values"]))]
        hit = own[own["printed"] == own["metric"].map(entry["values"])]
        counts: pd.Series[int] = hit.groupby(cell)["metric"].transform("size")
        complete = text.index.isin(hit.index[counts == len(entry["values"])])
        decides = decides.where(~complete, entry["decides"])
    return decides


def fingerprints() -> list[dict[str, Any]]:
    """The scores by which constant predictors are known in the papers' tables, and why they have these scores."""
    return [dict(entry) for entry in _entries("constants.yaml")]
