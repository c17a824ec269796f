"""The printed numbers: complete, in range, with their notes, and the papers' own arithmetic held against them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.published import (
    COLUMNS,
    KEY,
    TABLES,
    _read,
    fingerprints,
    printed_margins,
    published,
    read_paper,
    subset_key,
    table_notes,
)
from datasets.errors import DataError, UserError

SHARED = Path(__file__).parents[3] / "shared" / "paper"
COUNTS = {
    ("robult", "1"): 2 * 4 * 4 * 4, ("robult", "2"): 3 * 5 * 3, ("robult", "3"): 6 * (4 * 4 + 2 * 3),
    ("robult", "5"): 3 * 3 * 3, ("robult", "6"): 2 * 4 * 4 * 7, ("robult", "7"): 5 * (4 * 4 + 2 * 3),
    ("robult", "8"): 5 * (4 * 4 + 2 * 3), ("robult", "9"): 2 * 3 * 4 * 7, ("robult", "10"): 4 * (4 * 4 + 2 * 3),
    ("robult", "11"): 2 * 3 * 4 * 7, ("robult", "12"): 2 * 4, ("robult", "13"): 4 * 4 * 7, ("robult", "14"): 3 * 5,
    ("raml", "I"): 11 * (2 * 4 + 8 + 8), ("raml", "II"): 11 * 2 * 2 * 5, ("raml", "III"): 11 * 2 * 5,
    ("raml", "IV"): 5 * 4, ("raml", "V"): 3 * 4, ("raml", "VI"): 4 * (4 + 4 + 8 + 8),
}  # fmt: skip
"""Methods or variants x metrics x conditions, counted on the papers' pages."""


def value(paper: str, table: str, **where: object) -> float:
    frame = published(paper, table)
    for name, wanted in where.items():
        frame = frame[frame[name] == wanted]
    assert len(frame) == 1
    return float(frame["value"].iloc[0])


def test_every_table_is_complete() -> None:
    assert published().groupby(["paper", "table"]).size().to_dict() == COUNTS
    assert {(paper, table) for paper in TABLES for table in TABLES[paper]} == set(COUNTS)


def test_columns_and_keys() -> None:
    frame = published()
    assert tuple(frame.columns) == COLUMNS
    assert not frame.duplicated(list(KEY)).any()
    dashes = frame[frame["value"].isna()]
    assert set(dashes["method"]) == {"prompt_trans"}
    assert dashes.groupby("table").size().to_dict() == {"7": 16, "8": 16}
    assert frame["label_ratio"].isna().sum() == 27 + 8  # Tables 5 and 12


def test_a_caller_cannot_change_what_the_next_one_gets() -> None:
    first = published("robult", "1")
    first["value"] = 0.0
    assert value("robult", "1", dataset="cmu_mosi", modalities="text", method="robult", metric="mae") == 1.397


def test_spot_checks_against_the_page() -> None:
    """Corners of tables, read off the papers."""
    full = "text+audio+vision"
    assert value("robult", "1", dataset="cmu_mosei", modalities=full, method="robult", metric="corr") == 0.504
    assert value("robult", "2", dataset="hateful_memes", modalities="text+image", method="prompt_trans") == 0.635
    assert value("robult", "5", dataset="hateful_memes", method="actionmae", metric="params") == 1.04e6
    assert value("robult", "13", modalities=full, method="robult", metric="acc") == 0.585
    assert value("robult", "14", dataset="hateful_memes", modalities="image", method="robult") == 0.509
    assert value("raml", "I", dataset="cmu_mosei", modalities="average", method="raml") == 0.6089
    assert value("raml", "III", sweep="mask_p", mask_p=0.25, method="raml") == 0.5825


def test_cells_that_several_tables_print_agree() -> None:
    frame = published("robult")
    plain = frame[(frame["protocol"] == "missing_at_test") & frame["value"].notna()]
    cell = ["dataset", "label_ratio", "modalities", "method", "variant", "metric"]
    assert plain.groupby(cell)["printed"].nunique().max() == 1
    assert plain.groupby(cell).size().max() >= 4  # Robult on CMU-MOSI: Tables 1, 3, 6, 9, 10 and 11


def test_ramls_averages_are_the_means_of_their_rows_except_where_noted() -> None:
    frame = published("raml")
    frame = frame[frame["table"].isin(["I", "VI"])]
    rows = ["table", "dataset", "method", "variant"]
    average = frame[frame["modalities"] == "average"].set_index(rows)
    means = frame[frame["modalities"] != "average"].groupby(rows)["value"].mean()
    off = average["value"].sub(means).abs() > 2.5e-4  # means of rounded digits, and cut off themselves
    assert set(off[off].index) == {("I", "iemocap", "tate", "default"), ("I", "n24news", "mmvae", "default")}
    assert average.loc[off, "note"].str.contains("the row's mean is").all()


def test_printed_margins_follow_from_the_table_except_where_noted() -> None:
    frame = published("raml")
    frame = frame[frame["table"].isin(["I", "II", "III"])]
    keys = ["table", "dataset", "modalities", "sigma", "mask_p", "sweep"]
    flat = frame.fillna({"sigma": -1, "mask_p": -1})
    own = flat[flat["method"] == "raml"].set_index(keys)
    second = flat[flat["method"] != "raml"].groupby(keys)["value"].max()
    margins = printed_margins().fillna({"sigma": -1, "mask_p": -1}).set_index(keys)["delta_percent_points"]
    assert len(margins) == len(own) == 54
    wrong = (100 * (own["value"] - second) - margins).abs() > 0.0101
    noted = own["note"].str.contains("rinted margin")
    assert wrong.sum() == 5
    assert set(wrong[wrong].index) == set(noted[noted].index)


def test_the_lower_half_of_table_iii_repeats_sigma_012() -> None:
    frame = published("raml", "III")
    lower = frame[(frame["sweep"] == "mask_p") & (frame["mask_p"] == 0.1)].set_index("method")["value"]
    upper = frame[frame["sweep"] == "sigma"].pivot(index="method", columns="sigma", values="value")
    pd.testing.assert_series_equal(lower.sort_index(), upper[0.12].sort_index(), check_names=False)
    assert (lower - upper[0.18]).abs().min() > 0.01


def test_robult_is_strictly_best_as_often_as_counted() -> None:
    """Counts of rows in which Robult itself is strictly best, by table."""
    counts = {}
    for table in ("1", "2", "3", "6", "7", "8", "9", "11", "13"):
        frame = published("robult", table)
        score = frame["value"].where(frame["higher_is_better"], -frame["value"])
        own = (frame["method"] == "robult") & (frame["variant"] == "default")
        keys = [frame[name] for name in ("dataset", "modalities", "metric")]
        rest = score.where(~own).groupby(keys).max()
        mine = score.where(own).groupby(keys).max()
        counts[table] = (int((mine > rest).sum()), len(mine))
    assert counts == {
        "1": (32, 32), "2": (8, 9), "3": (18, 22), "6": (54, 56), "7": (17, 22), "8": (14, 22), "9": (54, 56),
        "11": (30, 56), "13": (16, 28),
    }  # fmt: skip


# ---- constant predictors ----------------------------------------------------------------------------------


def test_fingerprints_are_what_a_constant_predictor_scores() -> None:
    """From the class counts; F1 with prediction and truth exchanged is that of the one class that is predicted."""
    for positive, total, dataset in ((277, 656, "cmu_mosi"), (656 - 277, 656, "cmu_mosi")):
        acc = positive / total
        f1 = 2 * acc / (1 + acc)
        cut = {"acc": f"{int(acc * 1000) / 1000:.3f}", "f1": f"{int(f1 * 1000) / 1000:.3f}"}
        assert [entry["values"] for entry in fingerprints() if entry["values"] == cut and entry["dataset"] == dataset]
    assert f"{2284 / 4659:.4f}" == "0.4902"


def test_rows_of_constant_predictors_are_marked() -> None:
    frame = published()
    marked = frame[frame["decides"] != ""]
    where = {
        (row.paper, row.table, row.dataset, row.modalities, row.method, row.variant)
        for row in marked.itertuples()
    }  # fmt: skip
    assert where == {
        ("robult", "3", "cmu_mosi", "text", "robult", "no_lb"),
        ("robult", "10", "cmu_mosi", "vision", "robult", "no_weighting"),
        ("robult", "10", "cmu_mosi", "vision", "robult", "no_pseudo_labelling"),
        ("robult", "13", "cmu_mosi", "vision", "gmc", "default"),
        ("robult", "13", "cmu_mosi", "text+vision", "gmc", "default"),
        ("robult", "13", "cmu_mosi", "vision", "robult", "default"),
        ("robult", "10", "hateful_memes", "image", "robult", "no_pseudo_labelling"),
        ("robult", "10", "hateful_memes", "text+image", "robult", "no_pseudo_labelling"),
        ("raml", "I", "cmu_mosei", "audio", "mvae", "default"),
        ("raml", "I", "cmu_mosei", "audio+vision", "mvae", "default"),
        ("raml", "I", "cmu_mosei", "audio", "mmvae", "default"),
        ("raml", "I", "cmu_mosei", "vision", "mmvae", "default"),
        ("raml", "I", "cmu_mosei", "audio", "tate", "default"),
        ("raml", "I", "cmu_mosei", "audio", "md", "default"),
    }
    assert set(marked["metric"]) == {"acc", "f1", "wa"}  # not MAE, correlation, AUROC
    vision = marked[(marked["table"] == "13") & (marked["modalities"] == "vision") & (marked["method"] == "robult")]
    assert vision["decides"].unique().tolist() == ["all negative"]


# ---- notes ------------------------------------------------------------------------------------------------


def test_notes() -> None:
    assert [note.kind for note in table_notes("robult", "10")] == ["protocol", "claim"]
    suspect = published("robult", "10").query("variant == 'no_weighting' and value == 0.345")
    assert suspect["note"].str.contains("below chance").all()
    assert len(suspect) == 1
    assert published("robult", "14")["note"].str.contains("three causes").sum() == 3


# ---- hostile input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "text", "told"),
    [
        ("value", "1.2.3", "must hold numbers"),
        ("value", "7", "line 4: value out of its metric's range"),
        ("value", "", "not printed as a dash"),
        ("metric", "accuracy", "unknown metric"),
        ("table", "4", "table that the paper does not have"),
        ("label_ratio", "0", "label ratio outside"),
        ("protocol", "?", "unknown protocol"),
        ("higher_is_better", "true", "wrong direction"),
        ("higher_is_better", "yes", "wrong direction"),
        ("method", "unimodal", "number that occurs twice"),
        ("dataset", "", "empty dataset"),
    ],
)
def test_a_damaged_file_is_told(column: str, text: str, told: str) -> None:
    frame = _read("robult.csv")
    frame.loc[2, column] = text
    with pytest.raises(DataError, match=told):
        read_paper(frame, "robult")


def test_a_missing_column_is_told() -> None:
    with pytest.raises(DataError, match=r"robult.csv: missing columns: metric"):
        read_paper(_read("robult.csv").drop(columns="metric"), "robult")


def test_unknown_tables_are_told() -> None:
    with pytest.raises(UserError, match=r"no paper 'robut'.*Did you mean 'robult'"):
        published("robut")
    with pytest.raises(UserError, match="no table '4'"):
        published("robult", "4")
    with pytest.raises(UserError, match="no table '1'"):
        table_notes("raml", "1")


@given(st.permutations(["text", "audio", "vision", "image"]))
def test_subsets_are_compared_as_sets(order: list[str]) -> None:
    assert subset_key("+".join(order)) == "audio+image+text+vision"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the transcribed tables are not beside the repository")
def test_equals_the_transcription() -> None:
    frame = published().set_index(["paper", "table", "dataset", "modalities", "method", "variant", "metric"])
    rows = pd.concat([pd.read_csv(path, dtype=str, keep_default_na=False) for path in SHARED.glob("*_table*.csv")])
    assert len(rows) == len(frame)
    rows = rows.fillna("")
    theirs = rows.assign(
        value=pd.to_numeric(rows["value"]), sigma=pd.to_numeric(rows["sigma"]), mask_p=pd.to_numeric(rows["mask_p"])
    ).set_index(list(frame.index.names))
    both = [part.sort_values(["sigma", "mask_p", "sweep"]).sort_index(kind="stable") for part in (frame, theirs)]
    np.testing.assert_array_equal(both[0]["value"], both[1]["value"])
