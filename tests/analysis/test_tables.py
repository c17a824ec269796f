"""Tables, held to exact text on a frame that can be checked by hand (`tests.analysis.frames.toy`)."""

import csv
import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from analysis.results import COLUMNS, check_frame, summarise
from analysis.tables import (
    LATEX_ROWS,
    Cell,
    Table,
    escape_latex,
    escape_markdown,
    make_tables,
    percent,
    to_csv,
    to_latex,
    to_markdown,
    to_terminal,
)
from tests.analysis.frames import frame_of, realistic, result, toy

AWKWARD = r"a_b|c*d<e>&$f#%{g}~^\`[h]"


def tables(frame: pd.DataFrame, checkpoint: str = "last") -> list[Table]:
    return make_tables(summarise(frame, checkpoint), checkpoint)


def shown(table: Table, *, plain: bool = False, width: int = 80) -> str:
    """What the terminal shows, without colour."""
    console = Console(width=width, file=io.StringIO(), force_terminal=False, legacy_windows=False)
    console.print(to_terminal(table, plain=plain))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# ---- golden text ------------------------------------------------------------------------------------------

MARKDOWN = """\
**toy: acc ↑ (higher is better)**

| label ratio | modalities | robult | gmc | constant |
| ---: | --- | ---: | ---: | ---: |
| 5% | a | **0.850 ± 0.071** | <ins>0.700 ± 0.000</ins> | 0.500 ± 0.000 |
| 5% | b | **0.500 ± 0.000†** | — | **0.500 ± 0.000** |
| 5% | a+b | NaN (1/2) | **0.600 (n=1)** | <ins>0.500 ± 0.000</ins> |

Mean ± sample standard deviation (ddof = 1) over n = 2 seeds, fewer where (n=...) says so. \
Test results of the last epoch. Best of a row in bold, second best underlined; equal means share the mark. \
† equals the constant predictor, which ignores its inputs. \
NaN: undefined for at least one seed, as (seeds undefined/seeds) where not for all. — no finished result.
"""

LATEX = r"""\begin{table}[htbp]
\centering
\small
\setlength{\tabcolsep}{4pt}
\caption{toy: acc $\uparrow$ (higher is better). Mean $\pm$ sample standard deviation (ddof = 1) over n = 2 seeds, fewer where (n=...) says so. Test results of the last epoch. Best of a row in bold, second best underlined; equal means share the mark. $^\dagger$ equals the constant predictor, which ignores its inputs. NaN: undefined for at least one seed, as (seeds undefined/seeds) where not for all. --- no finished result.}
\label{tab:toy-acc-1}
\begin{tabular}{rlrrr}
\toprule
label ratio & modalities & robult & gmc & constant \\
\midrule
5\% & a & \textbf{0.850 $\pm$ 0.071} & \underline{0.700 $\pm$ 0.000} & 0.500 $\pm$ 0.000 \\
 & b & \textbf{0.500 $\pm$ 0.000$^\dagger$} & --- & \textbf{0.500 $\pm$ 0.000} \\
 & a+b & NaN (1/2) & \textbf{0.600 (n=1)} & \underline{0.500 $\pm$ 0.000} \\
\bottomrule
\end{tabular}
\end{table}
"""  # noqa: E501

CSV = """\
dataset,metric,label_ratio,corruption,modalities,method,n_modalities,full,higher_is_better,primary,mean,std,n_seeds,n_nan,best,second,is_constant
toy,acc,0.05,,a,robult,1,False,True,True,0.8500000000000001,0.07071067811865474,2,0,True,False,False
toy,acc,0.05,,a,gmc,1,False,True,True,0.7,0.0,2,0,False,True,False
toy,acc,0.05,,a,constant,1,False,True,True,0.5,0.0,2,0,False,False,False
toy,acc,0.05,,b,robult,1,False,True,True,0.5,0.0,2,0,True,False,True
toy,acc,0.05,,b,gmc,1,False,True,True,,,0,0,False,False,False
toy,acc,0.05,,b,constant,1,False,True,True,0.5,0.0,2,0,True,False,False
toy,acc,0.05,,a+b,robult,2,True,True,True,,,2,1,False,False,False
toy,acc,0.05,,a+b,gmc,2,True,True,True,0.6,,1,0,True,False,False
toy,acc,0.05,,a+b,constant,2,True,True,True,0.5,0.0,2,0,False,True,False
"""

TERMINAL = """\
 label
 ratio  modalities         robult           gmc      constant
 ────────────────────────────────────────────────────────────
    5%  a            0.850±0.071*  0.700±0.000'   0.500±0.000
        b           0.500±0.000†*             —  0.500±0.000*
        a+b             NaN (1/2)  0.600 (n=1)*  0.500±0.000'
"""


def test_golden_markdown() -> None:
    assert to_markdown(tables(toy())[0]) == MARKDOWN


def test_golden_latex() -> None:
    assert to_latex(tables(toy())[0]) == LATEX


def test_golden_csv() -> None:
    written = to_csv(summarise(toy(), "last"))
    for line, expected in zip(written.splitlines(), CSV.splitlines(), strict=True):
        for word, wanted in zip(line.split(","), expected.split(","), strict=True):
            # The last digit of a mean may depend on the order in which a library adds.
            assert word == wanted or float(word) == pytest.approx(float(wanted), rel=1e-14)


def test_golden_terminal() -> None:
    text = shown(tables(toy())[0], plain=True)
    body = [line.rstrip() for line in text.splitlines()[2:8]]
    assert body == TERMINAL.splitlines()
    assert text.startswith("toy: acc ↑ (higher is better)")
    assert "* best, ' second best." in " ".join(text.split())


def test_terminal_styles_carry_the_marks() -> None:
    columns = to_terminal(tables(toy())[0]).columns
    robult, gmc = list(columns[2].cells), list(columns[3].cells)
    assert [cell.style for cell in robult] == ["bold", "bold", ""]  # type: ignore[union-attr]
    assert [cell.style for cell in gmc] == ["underline", "", "bold"]  # type: ignore[union-attr]


# ---- what cells and tables say ----------------------------------------------------------------------------


def test_cell_texts() -> None:
    nan = math.nan
    assert Cell(0.9124, 0.0126, 3, 0, False, False, False).text(3) == "0.912 ± 0.013"
    assert Cell(0.9124, 0.0126, 3, 0, False, False, False).text(3, digits=1) == "0.9 ± 0.0"
    assert Cell(-0.0001, 0.1, 3, 0, False, False, False).text(3) == "0.000 ± 0.100"  # no minus zero
    assert Cell(0.9, 0.1, 2, 0, False, False, False).text(3) == "0.900 ± 0.100 (n=2)"
    assert Cell(0.9, nan, 1, 0, False, False, False).text(1) == "0.900"
    assert Cell(nan, nan, 3, 3, False, False, False).text(3) == "NaN"
    assert Cell(nan, nan, 0, 0, False, False, False).text(3) == "—"


def test_label_ratios_are_percents() -> None:
    assert [percent(ratio) for ratio in (0.05, 0.5, 1.0, 0.001, 0.07, 1 / 3)] == [
        "5%", "50%", "100%", "0.1%", "7%", "33.3333%",
    ]  # fmt: skip


def test_primary_metric_comes_first_in_each_data_set() -> None:
    found = [(table.dataset, table.metric, table.primary) for table in tables(realistic())]
    assert found[:2] == [("digits", "acc", True), ("digits", "f1_macro", False)]
    assert found[2:] == [("synthetic", "mae", True), ("synthetic", "corr", False)]


def test_notes_tell_only_what_occurs() -> None:
    notes = tables(frame_of([result("robult", "a", 0, 0.5, checkpoint="best")]), "best")[0].notes
    assert notes == ["One seed: no standard deviation.", "Test results of the best validation epoch."]


def test_a_method_without_results_on_a_data_set_keeps_its_column() -> None:
    frame = realistic()
    frame = frame[~((frame["dataset"] == "synthetic") & (frame["method"] == "gmc"))]
    lines = to_markdown(tables(frame)[2]).splitlines()
    assert lines[2].split("|")[4].strip() == "gmc"
    assert {line.split("|")[4].strip() for line in lines[4:18]} == {"—"}


# ---- escaping ---------------------------------------------------------------------------------------------


def test_escapes_by_hand() -> None:
    assert escape_markdown(AWKWARD) == r"a\_b\|c\*d&lt;e&gt;&amp;\$f#%{g}\~^\\\`\[h\]"
    assert escape_latex(AWKWARD) == (
        r"a\_b\textbar{}c*d\textless{}e\textgreater{}\&\$f\#\%\{g\}\textasciitilde{}"
        r"\textasciicircum{}\textbackslash{}{`}{[}h{]}"
    )
    assert escape_latex("naïve--Größe 中") == r"na\"{i}ve-{}-Gr\"{o}\ss{}e U+4E2D"
    assert escape_latex("a---b") == "a-{}-{}-b"
    assert escape_latex("—") == "---"


def unescape_latex(text: str) -> str:
    """What LaTeX prints, for ASCII text."""
    words = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
             "textbar": "|"}  # fmt: skip
    text = re.sub(r"\{([\[\]`])\}", r"\1", text)
    text = re.sub(r"\\([a-z]+)\{\}|\\([&%$#_{}])", lambda m: words[m[1]] if m[1] else m[2], text)
    return text.replace("-{}-", "--")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20))
def test_latex_prints_what_was_named(text: str) -> None:
    escaped = escape_latex(text)
    assert not re.search(r"(?<!\\)[&%$#_~^]", escaped)
    if "{}" not in text and "---" not in text:  # the little parser above would confuse these with its own
        assert unescape_latex(escaped) == text


def test_names_reach_every_format_as_they_are() -> None:
    frame = toy().assign(dataset=AWKWARD)
    frame["method"] = frame["method"].replace({"gmc": AWKWARD})
    frame["modalities"] = frame["modalities"].replace({"b": "[red]b", "a+b": "a+[red]b"})
    table = tables(frame)[0]
    assert escape_markdown(AWKWARD) in to_markdown(table)
    assert all(line.count(" | ") == 4 for line in to_markdown(table).splitlines()[2:7])
    assert escape_latex(AWKWARD) in to_latex(table)
    assert AWKWARD in shown(table, width=200)
    assert "[red]b" in shown(table, width=200)  # not read as colour


# ---- CSV round trip ---------------------------------------------------------------------------------------

NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=8).filter(
    lambda text: bool(text.strip()) and text.isprintable()
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=5),
    NAMES, NAMES, st.floats(0.001, 1.0),
)  # fmt: skip
def test_csv_gives_every_digit_back(values: list[float], dataset: str, method: str, ratio: float) -> None:
    frame = check_frame(
        frame_of([result(method, "a", seed, v, dataset=dataset, ratio=ratio) for seed, v in enumerate(values)])
    )
    reader = csv.DictReader(io.StringIO(to_csv(frame), newline=""))
    back = list(reader)
    assert reader.fieldnames == list(COLUMNS)
    for name in ("value", "label_ratio"):
        read = np.array([float(row[name] or "nan") for row in back])
        np.testing.assert_array_equal(read, frame[name].to_numpy())  # exact, NaN equal
    for name in ("dataset", "modalities", "method", "seed", "checkpoint", "metric", "full", "training_id"):
        # A name that a spreadsheet would compute has a quote before it.
        assert [row[name] for row in back] in ([str(v) for v in frame[name]], [f"'{v}" for v in frame[name]])


# ---- LaTeX on paper ---------------------------------------------------------------------------------------


def test_latex_continues_what_a_page_cannot_hold() -> None:
    many = {"views": (tuple("uvwxyz"), {"acc": True})}
    methods = [
        "robult",
        "raml",
        "gmc",
        "actionmae",
        "tate",
        "tmc",
        "etmc",
        "mmin",
        "cra",
        "sem",
        "unimodal",
        "constant",
    ]
    table = tables(realistic(methods, sets=many, ratios=(0.05,), seeds=2, checkpoints=("last",)))[0]
    text = to_latex(table)
    assert len(table.rows) == 63 > LATEX_ROWS
    assert text.count(r"\begin{table}") == 4
    assert "part 4 of 4" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "label ratio" not in line]
    assert len(body) == 2 * 63
    assert sum(line.count(r"\textbf") for line in body) == sum(cell.best for row in table.rows for cell in row.cells)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_booktabs_alone_and_fits_the_page(tmp_path: Path) -> None:
    frame = toy().assign(dataset=AWKWARD + " é 中 --")
    frame["method"] = frame["method"].replace({"gmc": AWKWARD})
    wide = realistic(["robult", "raml", "gmc", "actionmae", "tate", "tmc", "etmc", "mmin", "cra", "constant"])
    parts = [to_latex(table) for table in [*tables(frame), *tables(wide)]]
    setup = r"\documentclass[a4paper]{article}\usepackage{booktabs}\setlength{\textwidth}{17cm}"
    document = "\n".join([setup, r"\begin{document}", *parts, r"\end{document}"])
    (tmp_path / "t.tex").write_text(document)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    # The caption of the awkward name has no place to break; tables themselves must not stick out.
    assert not re.findall(r"Overfull \\hbox.*in alignment", log)
