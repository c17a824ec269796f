"""Folds of a data set as repetitions of one data set."""

import pandas as pd
import pytest

from analysis.folds import find_folds, fold_of


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("iemocap[fold=3]", ("iemocap", "3")),
        ("iemocap[scaling=none,fold=10]", ("iemocap[scaling=none]", "10")),
        ("own[rows=(1,2),fold=2,x=y]", ("own[rows=(1,2),x=y]", "2")),
        ("iemocap", ("iemocap", "")),
        ("own[scaffold=3]", ("own[scaffold=3]", "")),
        ("own[a,fold=3~1a2b3c4d", ("own[a,fold=3~1a2b3c4d", "")),  # cut for its length: the rest is not known
        ("odd[", ("odd[", "")),
    ],
)
def test_the_fold_is_read_off_the_label(label: str, found: tuple[str, str]) -> None:
    assert fold_of(label) == found


def frame(*pairs: tuple[str, int]) -> pd.DataFrame:
    return pd.DataFrame(pairs, columns=["dataset", "seed"]).assign(value=0.5)


def test_every_fold_and_seed_is_a_repetition_of_its_own() -> None:
    own = frame(*((f"x[fold={fold}]", seed) for fold in (2, 10, 1) for seed in (5, 0)), ("y", 5))
    folds = find_folds(own)
    merged = folds.merged(own)
    assert set(merged["dataset"]) == {"x", "y"}
    of_x = merged.loc[merged["dataset"] == "x", "seed"]
    assert sorted(of_x) == list(range(6))
    assert merged.loc[merged["dataset"] == "y", "seed"].tolist() == [5]
    # Folds by number, seeds within: another method's rows get the same numbers, whatever their order.
    assert merged["seed"].iloc[:6].tolist() == [3, 2, 5, 4, 1, 0]
    assert find_folds(own.iloc[::-1]) == folds


def test_one_fold_and_data_sets_without_any_stay_as_they_are() -> None:
    own = frame(("x[fold=2]", 0), ("y", 1))
    assert find_folds(own).merged(own) is own
    assert find_folds(own).told == []


def test_a_data_set_of_the_same_name_is_kept_apart() -> None:
    folds = find_folds(frame(("x[fold=1]", 0), ("x[fold=2]", 0), ("x", 0)))
    assert set(folds.bases.values()) == {"x[all folds]"}
    assert folds.names({"x[fold=1]": "iemocap", "x[fold=2]": "iemocap"})["x[all folds]"] == "iemocap"


def test_rows_of_trainings_that_the_results_lack_get_numbers_too() -> None:
    folds = find_folds(frame(("x[fold=1]", 0), ("x[fold=2]", 0)))
    more = folds.merged(frame(("x[fold=1]", 0), ("x[fold=2]", 7), ("x[fold=2]", 0)))
    assert more["seed"].tolist() == [0, 2, 1]
