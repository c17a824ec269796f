"""The report as a whole: what is written, what it tells, and what happens when it cannot be written."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from time import perf_counter

import pandas as pd
import pytest

from analysis.report import write_report
from analysis.results import summarise
from datasets.errors import UserError
from tests.analysis.frames import frame_of, realistic, result, toy

CONTEXT = {"grid": "quickstart.yaml", "git commit": "0123abc"}


def write(frame: pd.DataFrame, directory: Path, **changes: object) -> list[str]:
    """Write a report and return its notes."""
    wanted = {"title": "quickstart", "checkpoint": "last", "context": CONTEXT} | changes
    return write_report(frame, directory, **wanted).notes  # type: ignore[arg-type]


class Page(HTMLParser):
    """The tags, links and words of a page; fails on tags that are not closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(" ".join(data.split()))


# ---- what is written --------------------------------------------------------------------------------------


def test_all_files_are_written_and_returned(tmp_path: Path) -> None:
    written = write_report(realistic(), tmp_path / "new" / "report", title="q", checkpoint="last", context=CONTEXT)
    names = [path.name for path in written]
    assert names == [
        "results.csv", "summary.csv", "figure-digits.png", "figure-digits.svg", "figure-synthetic.png",
        "figure-synthetic.svg", "report.md", "report.tex", "index.html",
    ]  # fmt: skip
    assert sorted(names) == sorted(path.name for path in (tmp_path / "new" / "report").iterdir())
    assert all(path.stat().st_size > 500 for path in written)
    (tmp_path / "plain").touch()
    assert written[0].stat().st_mode == (tmp_path / "plain").stat().st_mode  # readable by whom files usually are


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    frame = realistic()
    write(frame, tmp_path / "a")
    write(frame.sample(frac=1.0, random_state=1), tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        if path.name != "results.csv":  # keeps the order it was given
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_results_have_both_checkpoints_and_the_summary_the_chosen_one(tmp_path: Path) -> None:
    frame = realistic()
    write(frame, tmp_path, checkpoint="best")
    results, summary = (pd.read_csv(tmp_path / name) for name in ("results.csv", "summary.csv"))
    assert set(results["checkpoint"]) == {"last", "best"}
    assert len(results) == len(frame)
    assert set(summary["checkpoint"]) == {"best"}
    wanted = summarise(frame, "best")
    assert summary["mean"].to_numpy() == pytest.approx(wanted["mean"].to_numpy(), nan_ok=True)
    assert "best validation epoch" in (tmp_path / "report.md").read_text()


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path) -> None:
    write(realistic(), tmp_path)
    page = Page((tmp_path / "index.html").read_text())
    assert page.tags.count("table") == 4
    assert page.tags.count("img") == 2
    assert all(link.startswith(("#", "data:image/svg+xml;base64,")) for link in page.links)
    assert "script" not in page.tags
    robult = summarise(realistic(), "last").iloc[0]
    assert f"{robult['mean']:.3f} ± {robult['std']:.3f}" in page.words


def test_the_page_has_the_marks_of_the_tables(tmp_path: Path) -> None:
    write(toy(), tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert re.findall(r"<td><strong>(.*?)</strong>", html) == [
        "0.850 ± 0.071", "0.500 ± 0.000†", "0.500 ± 0.000", "0.600 (n=1)",
    ]  # fmt: skip
    assert re.findall(r"<td><u>(.*?)</u>", html) == ["0.700 ± 0.000", "0.500 ± 0.000"]


def test_names_cannot_become_code(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    frame = toy().assign(dataset=evil)
    frame["method"] = frame["method"].replace({"gmc": '"><img src=x>'})
    write(frame, tmp_path, title=evil, context={evil: evil})
    page = Page((tmp_path / "index.html").read_text())
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert evil in page.words
    assert "<script>" not in (tmp_path / "report.md").read_text()
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))


def test_figure_files_have_safe_and_different_names(tmp_path: Path) -> None:
    labels = ["Set", "set", "a/b", "a_b", "../x", "…"]
    frame = pd.concat([toy().assign(dataset=label) for label in labels], ignore_index=True)
    write(frame, tmp_path)
    figures = {path.name for path in tmp_path.glob("figure-*.png")}
    assert len(figures) == 6
    assert len({name.lower() for name in figures}) == 6
    assert {"figure-set.png", "figure-a_b.png"} < figures
    assert all(re.fullmatch(r"figure-[a-z0-9._-]+\.png", name) for name in figures)
    text = (tmp_path / "report.md").read_text()
    assert all(f"]({name})" in text for name in figures)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_report_compiles(tmp_path: Path) -> None:
    write(
        pd.concat([toy(), realistic()], ignore_index=True), tmp_path, title="50% & more_ö", context={"a_b": r"C:\x #1"}
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


# ---- what it tells ----------------------------------------------------------------------------------------


def test_whole_results_need_no_notes(tmp_path: Path) -> None:
    frame = realistic()
    assert write(frame[frame["metric"] != "corr"], tmp_path) == []
    assert "What to know first" not in (tmp_path / "index.html").read_text()


def test_notes_of_the_toy_frame_by_hand(tmp_path: Path) -> None:
    notes = write(toy(), tmp_path)
    assert notes == [
        "1 cell has fewer seeds than others of the data set: gmc on toy 5% a+b.",
        "1 of 9 cells has no finished result (—): gmc on toy 5% b.",
        "acc of toy is undefined (NaN) for at least one seed: robult in 1 cell.",
        "Results equal to the constant predictor's (†), each metric counted: robult in 1 of 3.",
    ]
    for name in ("index.html", "report.md", "report.tex"):
        assert "What to know first" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (realistic(seeds=1), "There is one seed: no standard deviation can be given"),
        (realistic(("robult",)), "Only one method has results, robult: nothing is ranked."),
        (realistic(("robult", "gmc")), "The grid has no 'constant' method"),
        (toy().assign(value=0.25), "acc of toy has the same value, 0.25, in every cell: it ranks nothing."),
        (toy().assign(value=float("nan")), "acc of toy is undefined (NaN) for at least one seed: robult in 3 cells"),
        (toy().assign(colour="red"), "Columns of the results that no table uses: colour."),
        (frame_of([result("robult", "a", 0, 0.5)]), "There is one seed"),
    ],
)
def test_each_case_is_told_and_the_report_still_made(frame: pd.DataFrame, told: str, tmp_path: Path) -> None:
    notes = write(frame, tmp_path)
    assert any(told in note for note in notes), notes
    assert (tmp_path / "index.html").exists()
    assert list(tmp_path.glob("figure-*.png"))


# ---- when it cannot be written ----------------------------------------------------------------------------


def test_no_finished_cells_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished cells"):
        write(toy().iloc[:0], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"the report cannot be written: .*taken.*choose another directory"):
        write(toy(), tmp_path / "taken" / "report")


def test_a_write_that_fails_leaves_the_earlier_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(toy(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    whole = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        whole(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match="No space left on device"):
        write(realistic(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_seconds(tmp_path: Path) -> None:
    sets = {f"set{i}": (("a", "b", "c"), {"acc": True, "f1_macro": True, "ua": True}) for i in range(10)}
    methods = ("robult", "gmc", "raml", "actionmae", "unimodal", "tate", "mmin", "constant")
    frame = realistic(methods, sets=sets, ratios=(0.05, 0.5, 1.0), seeds=10)
    assert len(frame) > 100_000
    start = perf_counter()
    write(frame, tmp_path)
    assert perf_counter() - start < 60  # about 8 s on one idle core, most of it the ten figures
