"""Layouts of the papers' tables: every printed number has its place, nothing is lost, ours and theirs are compared."""

import io
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.paper_sheets import VIEWS, make_sheet, make_sheets, to_latex, to_markdown, to_terminal
from analysis.paper_tables import (
    IDENTITY,
    MEASURED,
    OUR_METRICS,
    PAPER_TABLES,
    Origins,
    PaperTable,
    agreement,
    agreement_told,
    fill,
    layout,
    leads,
    measured,
    paper_table,
)
from analysis.published import PLAIN_PROTOCOLS, TABLES, printed_margins, published
from datasets.errors import UserError
from tests.analysis.frames import frame_of, result

NAMES = [f"{table.paper}-{table.number}" for table in PAPER_TABLES]


def as_ours(table: PaperTable, *, seeds: int = 2, noise: float = 0.0) -> pd.DataFrame:
    """The printed numbers as if we had measured them, `noise` relative to each."""
    rng = np.random.default_rng(0)
    cells = fill(table)
    rows = []
    for cell, seed in product(cells[cells["published"].notna()].to_dict("records"), range(seeds)):
        plain = cell["protocol"] in (*PLAIN_PROTOCOLS, "cost", "representations")
        rows.append({
            **{name: cell[name] for name in IDENTITY},
            "protocol": "" if plain else cell["protocol"],
            "metric": OUR_METRICS.get((table.paper, cell["metric"]), cell["metric"]),
            "seed": seed,
            "value": cell["published"] * (1 + noise * rng.standard_normal()),
            "higher_is_better": cell["higher_is_better"],
        })  # fmt: skip
    return pd.DataFrame(rows, columns=MEASURED).drop_duplicates([*IDENTITY, "seed"])


def sentiment(values: dict[str, dict[str, tuple[float, ...]]], *, metric: str = "acc") -> pd.DataFrame:
    """A results frame of CMU-MOSI: subset -> method -> a value a seed."""
    return frame_of([
        result(method, subset, seed, value, dataset="cmu_mosi", metric=metric, higher=metric != "mae",
               full="vision+audio+text")
        for subset, methods in values.items()
        for method, seeds in methods.items()
        for seed, value in enumerate(seeds)
    ])  # fmt: skip


def cell(cells: pd.DataFrame, **where: object) -> dict[str, Any]:
    for name, wanted in where.items():
        cells = cells[cells[name] == wanted]
    assert len(cells) == 1
    return {str(name): value for name, value in cells.iloc[0].items()}


# ---- layouts ----------------------------------------------------------------------------------------------


def test_there_is_a_layout_for_every_table() -> None:
    assert [(table.paper, table.number) for table in PAPER_TABLES] == [(p, n) for p in TABLES for n in TABLES[p]]


@pytest.mark.parametrize("table", PAPER_TABLES, ids=NAMES)
def test_every_printed_number_has_exactly_one_place(table: PaperTable) -> None:
    cells, printed = fill(table), published(table.paper, table.number)
    assert len(cells) == len(printed)
    assert cells["printed"].notna().all()
    assert sorted(cells["printed"]) == sorted(printed["printed"])
    for name in ("label_ratio", "protocol", "train_dataset", "reference_modalities"):
        assert set(cells[name].astype(str)) == set(printed[name].astype(str))
    assert not cells.duplicated(["panel", "row", "column"]).any()
    assert not cells.duplicated([*IDENTITY, "sweep"]).any()


def test_places_are_the_papers() -> None:
    """Corners, read off the pages."""
    first = fill(paper_table("robult", "1")).set_index(["row", "column"])
    assert first.loc[(0, 0), "printed"] == "1.41"
    assert first.loc[(0, 7), "printed"] == "0.784"
    assert first.loc[(15, 0), "printed"] == "0.594"
    assert first.loc[(15, 7), "printed"] == "0.741"
    raml = fill(paper_table("raml", "I")).set_index(["panel", "row", "column"])
    assert raml.loc[(0, 0, 0), "printed"] == "0.4115"
    assert raml.loc[(0, 10, 7), "printed"] == "0.4630"
    assert raml.loc[(2, 9, 4), "printed"] == "0.5168"
    third = fill(paper_table("robult", "3")).set_index(["panel", "row", "column"])
    assert third.loc[(0, 2, 4), "printed"] == "0.593"
    assert third.loc[(1, 5, 5), "printed"] == "0.552"


def test_unknown_tables_are_told() -> None:
    with pytest.raises(UserError, match="there is no layout of 'robult 4'"):
        paper_table("robult", "4")


# ---- ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", PAPER_TABLES, ids=NAMES)
def test_the_printed_numbers_measured_again_agree_everywhere(table: PaperTable) -> None:
    cells = fill(table, as_ours(table))
    # RAML, Table III prints one condition twice, with different numbers; measured once, it can equal but one.
    twice = (table.paper, table.number) == ("raml", "III") and (cells["sigma"] == 0.18) & (cells["mask_p"] == 0.1)
    cells = cells[~twice] if isinstance(twice, pd.Series) else cells
    there = cells[cells["published"].notna()]
    assert (there["n_seeds"] == 2).all()
    np.testing.assert_allclose(there["difference"], 0, atol=1e-9 * there["published"].abs().max())
    assert (cells["best"] == cells["published_best"]).all()
    assert (cells["second"] == cells["published_second"]).all()
    groups = agreement(cells)
    taus = groups["tau"].dropna()
    np.testing.assert_allclose(taus, 1)
    assert groups.loc[groups["n_common"] > 1, "same_best"].all()


@pytest.mark.parametrize("table", PAPER_TABLES, ids=NAMES)
def test_nothing_measured_is_shown_as_missing_and_not_dropped(table: PaperTable) -> None:
    cells = fill(table, measured(sentiment({"text": {"gmc": (0.5,)}}), "last", Origins({"cmu_mosi": "elsewhere"})))
    assert len(cells) == len(layout(table))
    assert (cells["n_seeds"] == 0).all()
    assert cells["mean"].isna().all()
    assert not cells["best"].any()
    sheet = make_sheet(table, cells, "ours")
    texts = [text.text for panel in sheet.panels for row in panel.rows for text in row]
    assert set(texts) == {"—"}
    assert any("Nothing of this table has been measured yet" in note for note in sheet.notes)
    assert f"in {len(cells)} of {len(cells)} cells" in " ".join(sheet.notes)


def test_a_results_frame_finds_its_places() -> None:
    frame = pd.concat([
        sentiment({"text": {"robult": (0.5, 0.7), "gmc[default]": (0.4,), "robult[no_rec]": (0.1,)}}),
        sentiment({"text": {"robult": (0.3, 0.4)}}, metric="f1_swapped").assign(primary=False),
        sentiment({"text": {"robult": (0.9, 0.9)}}, metric="f1").assign(primary=False),
        sentiment({"vision+audio+text": {"robult": (0.8, float("nan"))}}),
    ])  # fmt: skip
    ours = measured(frame, "last")
    cells = fill(paper_table("robult", "1"), ours)
    robult = cell(cells, dataset="cmu_mosi", modalities="text", method="robult", metric="acc")
    assert (robult["mean"], robult["n_seeds"]) == (pytest.approx(0.6), 2)
    assert robult["std"] == pytest.approx(0.2 / np.sqrt(2))
    assert robult["difference"] == pytest.approx(0.6 - 0.569)
    assert cell(cells, dataset="cmu_mosi", modalities="text", method="gmc", metric="acc")["mean"] == 0.4
    # The paper's F1 is f1_swapped of ours, not f1.
    assert cell(cells, dataset="cmu_mosi", modalities="text", method="robult", metric="f1")["mean"] == 0.35
    full = cell(cells, dataset="cmu_mosi", modalities="audio+text+vision", method="robult", metric="acc")
    assert (full["n_seeds"], full["n_nan"]) == (2, 1)
    assert np.isnan(full["mean"])
    third = fill(paper_table("robult", "3"), ours)
    assert cell(third, dataset="cmu_mosi", modalities="text", variant="no_rec", metric="acc")["mean"] == 0.1


def test_corruptions_of_a_grid_are_ramls_protocols() -> None:
    values = {
        "": 0.9, "gaussian(image)=0.18": 0.7, "mask(text)=0.1": 0.6, "mask(text)=0.1&gaussian(image)=0.12": 0.5,
        "swap(text)=0.1": 0.1, "gaussian(text)=0.18": 0.2, "gaussian(image)=0.12&mask(text)=0.1&swap(text)=0.3": 0.3,
    }  # fmt: skip
    rows = [
        result("raml", "image+text", 0, value, dataset="food101", ratio=1.0, full="image+text", corruption=corruption)
        for corruption, value in values.items()
    ]
    ours = measured(frame_of(rows), "last")
    second = fill(paper_table("raml", "II"), ours)
    there = second[second["n_seeds"] > 0].set_index(["sigma", "mask_p"])["mean"]
    assert there.to_dict() == {(0.18, 0.0): 0.7, (0.0, 0.1): 0.6}
    third = fill(paper_table("raml", "III"), ours)
    assert third.loc[third["n_seeds"] > 0, ["sigma", "mask_p", "mean"]].to_numpy().tolist() == [[0.12, 0.1, 0.5]]
    first = fill(paper_table("raml", "I"), ours)
    assert first.loc[first["n_seeds"] > 0, "mean"].tolist() == [0.9]


def test_averages_need_every_subset() -> None:
    subsets = ["text", "audio", "vision", "audio+text", "vision+text", "vision+audio", "vision+audio+text"]
    values = {subset: {"raml": (0.1 * at, 0.2 * at)} for at, subset in enumerate(subsets)}
    ours = measured(sentiment(values), "last")
    average = ours[ours["modalities"] == "average"].sort_values("seed")["value"]
    np.testing.assert_allclose(average, [0.3, 0.6])
    del values["vision"]
    few = measured(sentiment(values), "last")
    assert "average" not in set(few["modalities"])


def test_rows_that_equal_the_constant_predictor_are_marked() -> None:
    frame = sentiment({
        "text": {"robult": (0.6, 0.6), "gmc": (0.5, 0.7), "unimodal": (0.6, 0.5), "constant": (0.6, 0.6)},
        "audio": {"robult": (0.6, 0.6)},
    })  # fmt: skip
    cells = fill(paper_table("robult", "1"), measured(frame, "last"))
    marked = cells[cells["is_constant"]]
    assert set(zip(marked["modalities"], marked["method"], strict=True)) == {("text", "robult"), ("text", "gmc")}
    theirs = fill(paper_table("robult", "13"))
    assert set(theirs.loc[theirs["decides"] != "", "modalities"]) == {"vision", "text+vision"}


def test_numbers_of_other_kinds_are_appended() -> None:
    extra = as_ours(paper_table("robult", "14"))
    extra["reference_modalities"] = extra["reference_modalities"].replace("text+image", "image+text")
    cells = fill(
        paper_table("robult", "14"), pd.concat([measured(sentiment({"text": {"gmc": (0.5,)}}), "last"), extra])
    )
    assert (cells["n_seeds"] == 2).all()
    corrupted = as_ours(paper_table("raml", "II"))
    assert (fill(paper_table("raml", "II"), corrupted)["n_seeds"] == 2).all()
    assert (fill(paper_table("raml", "III"), corrupted)["n_seeds"] == 0).all()  # protocols do not mix
    with pytest.raises(UserError, match="lack columns: sigma, seed"):
        fill(paper_table("raml", "II"), corrupted.drop(columns=["sigma", "seed"]))


# ---- agreement and leads ----------------------------------------------------------------------------------


def test_agreement_counts_pairs_over_the_methods_that_both_have() -> None:
    """MOSI text accuracy: unimodal .553, gmc .562, actionmae .47, robult .569. Ours swap the first two and lack one."""
    frame = sentiment({"text": {"unimodal": (0.60,), "gmc": (0.55,), "robult": (0.65,)}})
    cells = fill(paper_table("robult", "1"), measured(frame, "last"))
    table = agreement(cells).set_index("group")
    group = cell(cells, dataset="cmu_mosi", modalities="text", method="robult", metric="acc")["group"]
    assert table.loc[group, "n_common"] == 3
    assert table.loc[group, "tau"] == pytest.approx(1 / 3)
    assert table.loc[group, "same_best"]
    told = agreement_told(cells)
    assert told == (
        "Rankings compared: 1 of 32, over 3 methods that both have. The best is the same in 1, the whole order in 0, "
        "mean Kendall's tau 0.33."
    )
    mae = fill(paper_table("robult", "1"), measured(frame.assign(metric="mae", higher_is_better=False), "last"))
    best = mae[mae["best"]]
    assert best["method"].tolist() == ["gmc"]  # lower is better
    assert "No ranking can be compared" in agreement_told(fill(paper_table("robult", "1")))


def test_leads_are_the_printed_margins_except_where_those_are_wrong() -> None:
    found, wrong = [], 0
    for number in ("I", "II", "III"):
        table = paper_table("raml", number)
        cells = fill(table)
        lead = leads(table, cells, "published")
        first = cells[cells["method"] == "raml"]
        found.append(first.merge(lead, on=["panel", "column"], validate="one_to_one"))
    margins = printed_margins().rename(columns={"modalities": "subset"})
    ours = pd.concat(found, keys=("I", "II", "III"), names=["table"]).reset_index("table")
    for _, row in margins.iterrows():
        same = ours[
            (ours["table"] == row["table"]) & (ours["dataset"] == row["dataset"]) & (ours["sweep"] == row["sweep"])
        ]
        for name in ("sigma", "mask_p"):
            same = same[(same[name] == row[name]) | (same[name].isna() & pd.isna(row[name]))]
        same = same[same["modalities"].map(lambda text: set(text.split("+"))) == set(row["subset"].split("+"))]
        assert len(same) == 1
        wrong += abs(float(same["lead"].iloc[0]) - row["delta_percent_points"]) > 0.0101
    assert wrong == 5


# ---- sheets -----------------------------------------------------------------------------------------------

MARKDOWN = """\
**RAML, Table V: Weights of modalities, average over all subsets; UA on IEMOCAP, WA elsewhere \
(printed, ours, and ours minus printed)**

|   | UPMC Food-101 / paper | UPMC Food-101 / ours | UPMC Food-101 / diff. | N24News / paper | N24News / ours \
| N24News / diff. | IEMOCAP / paper | IEMOCAP / ours | IEMOCAP / diff. | CMU-MOSEI / paper | CMU-MOSEI / ours \
| CMU-MOSEI / diff. |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Identical | 0.6346 | **0.7000** | +0.0654 | 0.4558 | — | — | 0.6639 | — | — | 0.5935 | — | — |
| Fixed | <ins>0.6369</ins> | — | — | <ins>0.4590</ins> | — | — | <ins>0.6722</ins> | — | — | <ins>0.6024</ins> | — \
| — |
| Adaptive (RAML) | **0.6540** | <ins>0.6500†</ins> | -0.0040 | **0.4630** | — | — | **0.6845** | — | — | **0.6089** \
| — | — |
| ranking | τ, best | -1.00 | other | τ, best | — | — | τ, best | — | — | τ, best | — | — |

"""


def five() -> pd.DataFrame:
    values = {
        subset: {"raml": (0.65,), "raml[weight_identical]": (0.7,), "constant": (0.65,)}
        for subset in ("image", "text", "image+text")
    }
    frame = frame_of([
        result(method, subset, seed, value, dataset="food", ratio=1.0, full="image+text")
        for subset, methods in values.items()
        for method, seeds in methods.items()
        for seed, value in enumerate(seeds)
    ])  # fmt: skip
    return fill(paper_table("raml", "V"), measured(frame, "last", Origins({"food": "food101"})))


def test_golden_markdown() -> None:
    text = to_markdown(make_sheet(paper_table("raml", "V"), five(), "beside"))
    assert text.startswith(MARKDOWN)
    for told in ("Ours: one seed; test results of the last epoch.", "† equals a constant predictor",
                 "— no result of ours, in 10 of 12 cells.", "Rankings compared: 1 of 4, over 2 methods"):  # fmt: skip
        assert told in text


def test_ours_alone_has_spread_and_seeds() -> None:
    frame = sentiment({"text": {"robult": (0.5, 0.7), "gmc": (0.4,), "unimodal": (0.4, float("nan"))}})
    cells = fill(paper_table("robult", "1"), measured(frame, "last"))
    sheet = make_sheet(paper_table("robult", "1"), cells, "ours")
    row = [text.text for text in sheet.panels[0].rows[3]]
    assert row == ["NaN (1/2)", "0.400 (n=1)", "—", "0.600±0.141", "—", "—", "—", "—"]
    assert sheet.panels[0].stubs[3] == ("Text", "Acc ↑")
    assert sheet.panels[0].heading()[0] == [("CMU-MOSI", 4), ("CMU-MOSEI", 4)]
    assert any("n = 2 seeds, fewer where (n=...) says so" in note for note in sheet.notes)
    assert "Kendall" not in " ".join(sheet.notes)


def test_costs_are_written_with_units() -> None:
    table = paper_table("robult", "5")
    sheet = make_sheet(table, fill(table, as_ours(table, seeds=1, noise=0.1)), "beside")
    row = [text.text for text in sheet.panels[0].rows[0]]
    assert row[0] == "1.08 GFLOPS"
    assert row[1].endswith(" G")
    assert row[2].endswith("%")


def test_notes_on_single_numbers_say_which() -> None:
    table = paper_table("robult", "2")
    notes = make_sheet(table, fill(table), "published").notes
    assert any(note.startswith("UPMC Food-101 Full Unimodal: The full-set value") for note in notes)
    whole = paper_table("robult", "1")
    assert any(note.startswith("F1 as GMC's") for note in make_sheet(whole, fill(whole), "published").notes)


def test_ramls_margins_are_in_the_last_row() -> None:
    table = paper_table("raml", "I")
    sheet = make_sheet(table, fill(table), "published")
    assert sheet.panels[0].stubs[-1] == ("Δ",)
    assert [text.text for text in sheet.panels[0].rows[-1]][:4] == ["+0.52", "+7.08", "+2.60", "+3.68"]
    assert any("the margin is 7.08" in note for note in sheet.notes)


@pytest.mark.parametrize("table", PAPER_TABLES, ids=NAMES)
def test_every_view_of_every_table_is_rectangular_and_rendered(table: PaperTable) -> None:
    ours = as_ours(table, noise=0.05)
    cells = fill(table, ours[ours["method"] != "gmc"])
    for view, sheet in make_sheets(table, cells).items():
        n_texts = 0
        for panel in sheet.panels:
            assert {len(row) for row in panel.rows} == {len(panel.columns)}
            assert len(panel.stubs) == len(panel.rows)
            assert all(sum(span for _, span in line) == len(panel.columns) for line in panel.heading())
            n_texts += sum(map(len, panel.rows))
        assert n_texts >= len(cells) * (3 if view == "beside" else 1)
        latex = to_latex(sheet)
        assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") > 0
        assert "U+" not in latex  # no character that plain LaTeX lacks
        bodies = latex.split(r"\midrule")
        for text in {text.text for panel in sheet.panels for row in panel.rows for text in row if "0." in text.text}:
            assert any(
                text.strip("-").rstrip("†").replace("±", r"$\pm$").replace("%", r"\%") in body for body in bodies
            )
        console = Console(width=250, file=io.StringIO())
        for part in to_terminal(sheet, plain=True):
            console.print(part)
        assert sheet.name in to_markdown(sheet)


def test_terminal_shows_marks_without_colour() -> None:
    console = Console(width=200, file=io.StringIO(), record=True)
    for part in to_terminal(make_sheet(paper_table("raml", "V"), five(), "beside"), plain=True):
        console.print(part)
    text = console.export_text()
    assert "0.7000*" in text
    assert "0.6500†'" in text
    assert "UPMC" in text


DOCUMENT = r"""\documentclass[a4paper]{article}
\usepackage{booktabs}
\setlength{\textwidth}{17cm}
\setlength{\oddsidemargin}{-0.5cm}
\setlength{\textheight}{24cm}
\setlength{\topmargin}{-1.5cm}
\begin{document}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_every_table_in_every_view_compiles_and_fits_the_page(tmp_path: Path) -> None:
    parts = [DOCUMENT]
    for table in PAPER_TABLES:
        cells = fill(table, as_ours(table, seeds=3, noise=0.05))
        parts += [*(to_latex(sheet) for sheet in make_sheets(table, cells).values()), r"\clearpage"]
    (tmp_path / "t.tex").write_text("\n".join([*parts, r"\end{document}"]), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "t.log").read_text(errors="replace")
    assert "Overfull \\hbox" not in log
    assert "Float too large" not in log
    assert len(VIEWS) == 3
