"""Folds of cross-validation as repetitions of one data set, for tables, rankings and figures.

A data set in folds comes as `iemocap[fold=1]`, `iemocap[fold=2]`, ...: the same samples, split another way. They are
no data sets of their own in a ranking, for they share their samples; as RAML reports IEMOCAP, a value is the mean
over folds, here over folds x seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd


def fold_of(label: str) -> tuple[str, str]:
    """A label without its fold, and the fold: `iemocap[fold=3,scaling=none]` -> `iemocap[scaling=none]`, `3`.

    The fold is empty where the label names none, or was cut for its length.
    """
    base, bracket, rest = label.partition("[")
    parts = split_options(rest.removesuffix("]")) if bracket and "~" not in rest else []
    fold = next((part.removeprefix("fold=") for part in parts if part.startswith("fold=")), "")
    if not fold:
        return label, ""
    others = ",".join(part for part in parts if not part.startswith("fold="))
    return f"{base}[{others}]" if others else base, fold


def split_options(text: str) -> list[str]:
    """The options of a label, `a=1,b=(2,3)`, at commas outside round brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


@dataclass(frozen=True)
class Folds:
    """The data sets of which there are several folds.

    Attributes:
        bases: label of a fold -> label of the data set as a whole.
        repetitions: (label of a fold, seed) -> the number it has among the repetitions of the data set.
    """

    bases: Mapping[str, str] = field(default_factory=dict)
    repetitions: Mapping[tuple[str, int], int] = field(default_factory=dict)

    def merged(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame with `dataset` and `seed`, folds and seeds together in place of seeds."""
        inside = frame["dataset"].isin(list(self.bases)).to_numpy()
        if not inside.any():
            return frame
        pairs = zip(frame.loc[inside, "dataset"], frame.loc[inside, "seed"], strict=True)
        known = dict(self.repetitions)
        seeds = frame["seed"].to_numpy(np.int64).copy()
        seeds[inside] = [known.setdefault((label, int(seed)), len(known)) for label, seed in pairs]
        return frame.assign(dataset=frame["dataset"].replace(dict(self.bases)), seed=seeds)

    def names(self, names: Mapping[str, str]) -> dict[str, str]:
        """Label -> id, for the data sets as a whole too."""
        return dict(names) | {base: names.get(label, base) for label, base in self.bases.items()}

    @property
    def told(self) -> list[str]:
        """A sentence on each data set."""
        folds: dict[str, list[str]] = {}
        for label, base in self.bases.items():
            folds.setdefault(base, []).append(label)
        return [
            f"The {len(labels)} folds of {base} are shown as one data set: each fold with each seed counts as a seed, "
            "so that means and deviations are over folds x seeds."
            for base, labels in folds.items()
        ]


def find_folds(frame: pd.DataFrame) -> Folds:
    """The folds among the data sets of a frame with `dataset` and `seed`; a single fold stays as it is."""
    known = frame[["dataset", "seed"]].drop_duplicates()
    pairs = [(str(label), int(seed)) for label, seed in zip(known["dataset"], known["seed"], strict=True)]
    pairs.sort(key=lambda pair: (_place(pair[0]), pair[1]))
    found: dict[str, list[str]] = {}
    for label in dict.fromkeys(label for label, _ in pairs):
        base, fold = fold_of(label)
        if fold:
            found.setdefault(base, []).append(label)
    taken = {label for label, _ in pairs}
    bases: dict[str, str] = {}
    repetitions: dict[tuple[str, int], int] = {}
    for base, members in found.items():
        if len(members) < 2:
            continue
        whole = f"{base}[all folds]" if base in taken else base
        bases |= dict.fromkeys(members, whole)
        own = [pair for pair in pairs if pair[0] in members]
        repetitions |= {pair: at for at, pair in enumerate(own)}
    return Folds(bases, repetitions)


def _place(label: str) -> tuple[str, int, str]:
    """By data set, then by the number of the fold."""
    base, fold = fold_of(label)
    return base, int(fold) if fold.isdigit() else -1, fold
