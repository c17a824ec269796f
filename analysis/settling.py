"""Results that can be compared: one version of the protocol, no contradictions, each cell once."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from analysis.results import CELL, CHECKPOINTS, COLUMNS, FACTS, some


def settle(frame: pd.DataFrame, protocols: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    """Results of one version of the protocol, each cell once, and sentences on what was left out for it.

    Args:
        frame: results, older trainings first.
        protocols: training id -> version; a training without one is older than all versions.
    """
    notes: list[str] = []
    if frame.empty or not set(COLUMNS) <= set(frame.columns):
        return frame, notes  # told by `check_frame`
    for step in (_known_values, partial(_of_one_protocol, protocols=protocols), _consistent, _once):
        frame, told = step(frame)
        notes += told
    return frame, notes


def _known_values(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Numbers, at checkpoints that are known."""
    notes = []
    strange = ~frame["checkpoint"].isin(list(CHECKPOINTS))
    if strange.any():
        names = some(sorted(map(repr, frame.loc[strange, "checkpoint"].unique())))
        notes.append(
            f"{_count(int(strange.sum()), 'value is', 'values are')} left out, of checkpoints that this version does "
            f"not know: {names}."
        )
        frame = frame[~strange]
    if frame["value"].dtype == object:
        value = pd.to_numeric(frame["value"], errors="coerce")
        wrong = frame["value"].notna() & value.isna()
        if wrong.any():
            n, runs = int(wrong.sum()), some(frame.loc[wrong, "run_id"].unique(), 3)
            notes.append(f"{_count(n, 'value is', 'values are')} left out: not a number in the store (run {runs}).")
        frame = frame.assign(value=value)[~wrong]
    return frame, notes


# ---- versions of the protocol -----------------------------------------------------------------------------


def _of_one_protocol(frame: pd.DataFrame, protocols: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    version = frame["training_id"].map(lambda name: _version(protocols.get(name, "")))
    found = sorted(version[frame["training_id"].isin(set(protocols))].unique()) if protocols else []
    if len(found) < 2:
        return frame, []
    keep = version == found[-1]
    n_left = int(frame.loc[~keep, "run_id"].nunique())
    told = ", ".join("one not recorded" if v < 0 else str(v) for v in found)
    note = (
        f"The experiment mixes results of several versions of the protocol ({told}), which must not be compared: "
        f"{_count(n_left, 'cell', 'cells')} of others than version {found[-1]} are left out. Run the grid again to "
        "have them."
    )
    return frame[keep], [note]


def _version(text: str) -> int:
    return int(text) if text.isdecimal() else -1


# ---- contradictions ---------------------------------------------------------------------------------------


def _consistent(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Without the trainings that say of a metric or a modality subset what most others on the data set do not."""
    notes = []
    for keys, fact in (*FACTS, (["dataset"], "metric")):
        said = frame[frame["primary"]] if fact == "metric" else frame
        for dataset, about, odd in _odd_trainings(said, keys, fact):
            of = f"{fact} of {about}" if about else "the primary metric"
            notes.append(
                f"{_count(len(odd), 'training is', 'trainings are')} left out on {dataset}, as most others say "
                f"something else about {of}: {some(sorted(odd), 3)}. Give what differs a data set label of its own."
            )
            frame = frame[~((frame["dataset"] == dataset) & frame["training_id"].isin(odd))]
    ranked = frame["dataset"].isin(frame.loc[frame["primary"], "dataset"].unique())
    notes += [
        f"{dataset} is left out: none of the metrics it has results of is its primary one."
        for dataset in frame.loc[~ranked, "dataset"].unique()
    ]
    return frame[ranked], notes


def _odd_trainings(frame: pd.DataFrame, keys: Sequence[str], fact: str) -> Iterator[tuple[str, str, set[str]]]:
    """Data set, metric or modality subset, and the trainings in the minority on `fact`; of equal parts the older."""
    facts = frame[[*keys, fact]].drop_duplicates()
    torn = facts.loc[facts.duplicated(keys), keys].drop_duplicates()
    for key in torn.itertuples(index=False, name=None):
        own = frame[np.logical_and.reduce([frame[name] == value for name, value in zip(keys, key, strict=True)])]
        sides = [set(part["training_id"]) for _, part in own.groupby(fact, sort=False)]
        newest = list(dict.fromkeys(own["training_id"]))[-1]
        most = max(sides, key=lambda side: (len(side), newest in side))
        yield str(key[0]), str(key[1]) if len(key) > 1 else "", set(own["training_id"]) - most


# ---- one result a cell ------------------------------------------------------------------------------------


def _once(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Each cell once, the latest."""
    repeated = frame.duplicated(CELL, keep=False)
    if not repeated.any():
        return frame, []
    again = frame[repeated]
    n = len(again.drop_duplicates(["dataset", "label_ratio", "modalities", "corruption", "method", "seed"]))
    methods = some(f"{m} on {d}" for d, m in sorted(set(zip(again["dataset"], again["method"], strict=True))))
    if not again.duplicated([*CELL, "training_id"], keep=False).all():
        were = _count(n, "cell was", "cells were")
        how = f"{were} run more than once, with other settings or data under the same names"
        remedy = "; give the others an experiment or a label of their own"
    else:
        how, remedy = f"{_count(n, 'cell is', 'cells are')} in the store more than once", ""
    return frame[~frame.duplicated(CELL, keep="last")], [f"{how}: {methods}. The latest are shown{remedy}."]


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
