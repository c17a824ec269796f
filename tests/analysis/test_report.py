"""The report as a whole: what is written, what it tells, and what happens when it cannot be written."""

import csv
import re
import shutil
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.files import MANIFEST, Cache
from analysis.paper_tables import Origins
from analysis.report import Sources, write_report
from analysis.results import summarise
from analysis.sections.base import Kept, KeptGroup, Links
from analysis.settling import settle
from datasets.errors import UserError
from tests.analysis.frames import frame_of, realistic, result, toy

CONTEXT = {"grid": "quickstart.yaml", "git commit": "0123abc"}


def write(frame: pd.DataFrame, directory: Path, **changes: object) -> list[str]:
    """Write a report and return its notes."""
    wanted = {"title": "quickstart", "checkpoint": "last", "context": CONTEXT} | changes
    return write_report(frame, directory, **wanted).notes  # type: ignore[arg-type]


class Page(HTMLParser):
    """The tags, links and words of a page; fails on tags that are not closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report that tests only read."""
    folder = tmp_path_factory.mktemp("whole") / "new" / "report"
    written = write_report(realistic(), folder, title="quickstart", checkpoint="last", context=CONTEXT)
    assert {path for path in folder.rglob("*") if path.is_file()} == {*written, folder / MANIFEST}
    assert len(written) == len(set(written))
    assert written[-1].name == "index.html"  # when it is there, so is what it links to
    return folder


# ---- what is written --------------------------------------------------------------------------------------


def test_all_files_are_written(whole: Path, tmp_path: Path) -> None:
    assert {
        "results.csv", "summary.csv", "figure-digits.png", "figure-digits.svg", "figure-synthetic.png", "report.md",
        "report.tex", "index.html", "ranking-primary-datasets-nemenyi.png", "tables/results-digits-acc.csv",
        "tables/results-digits-acc.tex", "tables/overview-finished-cells.csv",
    } <= {str(path.relative_to(whole)) for path in whole.rglob("*")}  # fmt: skip
    (tmp_path / "plain").touch()
    assert (whole / "index.html").stat().st_mode == (tmp_path / "plain").stat().st_mode  # for whom files usually are


def test_the_same_results_give_the_same_files(whole: Path, tmp_path: Path) -> None:
    write(realistic().sample(frac=1.0, random_state=1), tmp_path)
    for path in sorted(whole.rglob("*.*")):
        if path.name != "results.csv":  # keeps the order it was given
            assert path.read_bytes() == (tmp_path / path.relative_to(whole)).read_bytes(), path.name


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


def test_the_page_is_whole_and_loads_nothing(whole: Path) -> None:
    text = (whole / "index.html").read_text()
    page = Page(text)
    assert page.tags.count("figure") == page.tags.count("svg") == len(list(whole.glob("*.svg")))
    for link in page.links:
        assert link.startswith(("#", "tables/", "figure-", "ranking-", "curve-")), link
        assert link.startswith("#") or (whole / link).is_file()
    assert "default-src 'none'" in text
    robult = summarise(realistic(), "last").iloc[0]
    assert f"{robult['mean']:.3f} ± {robult['std']:.3f}" in page.words


def test_ids_are_unique_and_what_is_referred_to_is_there(whole: Path) -> None:
    text = (whole / "index.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for name in re.findall(r'(?:url\(#|href="#|data-filter="|aria-labelledby="|for=")([^")]+)', text):
        assert name in ids, name


def test_the_page_can_be_read_without_seeing_it(whole: Path) -> None:
    text = (whole / "index.html").read_text()
    page = Page(text)
    assert page.tags.count("h1") == page.tags.count("main") == page.tags.count("nav") == 1
    assert page.tags.count("table") == page.tags.count("caption")
    assert "<th>" not in text
    assert all("scope=" in tag for tag in re.findall(r"<th [^>]*>", text))
    assert all('role="img" aria-label="' in tag for tag in re.findall(r"<svg [^>]*>", text))
    assert page.links[0] == "#main"


def test_the_page_has_the_marks_of_the_tables(tmp_path: Path) -> None:
    write(toy(), tmp_path)
    html = (tmp_path / "index.html").read_text()
    assert re.findall(r"<td[^>]*><strong>(.*?)</strong>", html) == [
        "0.850 ± 0.071", "0.500 ± 0.000†", "0.500 ± 0.000", "0.600 (n=1)",
    ]  # fmt: skip
    assert re.findall(r"<td[^>]*><u>(.*?)</u>", html) == ["0.700 ± 0.000", "0.500 ± 0.000"]


def test_every_number_links_to_its_runs(tmp_path: Path) -> None:
    links = Links("http://127.0.0.1:5000", "7")
    write(toy(), tmp_path, sources=Sources(links=links))
    html = (tmp_path / "index.html").read_text()
    two, one = (re.search(rf'<td[^>]*><a href="([^"]*)">(?:<[a-z]+>)?{text}', html) for text in ("0.850", "0.600 "))
    assert two is not None
    assert one is not None
    run = "t-toy-0.05-gmc-0-a%2Bb"
    assert one[1] == f"http://127.0.0.1:5000/#/experiments/7/runs/{run}"
    assert two[1].startswith("http://127.0.0.1:5000/#/compare-runs?runs=%5B%22t-toy-0.05-robult-0-a%22%2C%22")


def test_many_runs_are_linked_as_a_search() -> None:
    links = Links("https://mlflow.example", "7")
    assert links.of([str(n) for n in range(6)]) == ""
    assert links.search({"stage": "cell", "method": "a b"}).endswith(
        "runs?searchFilter=tags.stage%20%3D%20%27cell%27%20and%20tags.method%20%3D%20%27a%20b%27"
    )
    assert links.search({"method": "it's"}) == ""  # it cannot be quoted
    assert Links().of(["a"]) == ""


def test_names_cannot_become_code(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    frame = toy().assign(dataset=evil)
    frame["method"] = frame["method"].replace({"gmc": '"><img src=x>'})
    links = Links('http://x"><script>', evil)
    write(frame, tmp_path, title=evil, context={evil: evil}, sources=Sources(links=links, failures=[evil]))
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert evil in page.words
    assert "<script>" not in (tmp_path / "report.md").read_text()
    outside = [path for path in tmp_path.rglob("*") if path.parent not in (tmp_path, tmp_path / "tables")]
    assert outside == []


def test_figure_files_have_safe_and_different_names(tmp_path: Path) -> None:
    labels = ["Set", "set", "a/b", "../x"]
    frame = pd.concat([toy().assign(dataset=label) for label in labels], ignore_index=True)
    write(frame, tmp_path)
    figures = {path.name for path in tmp_path.glob("figure-*.png")}
    assert len(figures) == 4
    assert len({name.lower() for name in figures}) == 4
    assert "figure-set.png" in figures
    assert all(re.fullmatch(r"figure-[a-z0-9._-]+\.png", name) for name in figures)
    text = (tmp_path / "report.md").read_text()
    assert all(f"]({name})" in text for name in figures)


def test_tables_beside_the_page_have_the_numbers(tmp_path: Path) -> None:
    write(toy(), tmp_path)
    with (tmp_path / "tables" / "results-toy-acc.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["label ratio", "modalities", "robult", "gmc", "constant"]
    assert rows[1][:2] == ["0.05", "a"]
    assert [float(value) for value in rows[1][2:]] == pytest.approx([0.85, 0.7, 0.5])
    assert rows[2][3] == "—"
    assert r"\textbf{0.850 $\pm$ 0.071}" in (tmp_path / "tables" / "results-toy-acc.tex").read_text()


def test_papers_tables_appear_for_data_sets_of_theirs_in_three_views(tmp_path: Path) -> None:
    sets = {"my mosi": (("text", "audio", "vision"), {"mae": False, "acc": True})}
    frame = realistic(("robult", "gmc", "unimodal", "constant"), sets=sets, ratios=(0.05,))
    links = Links("http://127.0.0.1:5000", "7")
    write(frame, tmp_path, sources=Sources(origins=Origins({"my mosi": "cmu_mosi"}), links=links))
    text = (tmp_path / "index.html").read_text()
    assert "Robult, Table 1: " in text
    assert "Robult, Table 7: " not in text  # half of the labels
    assert "RAML, Table" not in text
    views = re.search(
        r'<fieldset class="views"><legend>View of Robult, Table 1</legend>.*?</fieldset>', text, re.DOTALL
    )
    assert views is not None
    assert re.findall(r'<label for="b\d+-\d">(.*?)</label>', views[0]) == ["Ours", "Published beside ours", "LaTeX"]
    assert r"\begin{table}" in views[0]
    mean = summarise(frame, "last").query("modalities == 'text' and method == 'robult' and metric == 'mae'")["mean"]
    assert re.search(rf'<a href="http://127.0.0.1:5000/#/compare-runs[^"]*">(<\w+>)?{mean.iloc[0]:.3f}', views[0])


def test_trainings_of_one_epoch_fill_no_table_of_a_paper_and_are_told(tmp_path: Path) -> None:
    sets = {"cmu_mosi": (("text", "audio", "vision"), {"mae": False, "acc": True})}
    frame = realistic(("robult", "gmc", "constant"), sets=sets, ratios=(0.05,), checkpoints=("last",))
    short = {name: 1 if "-gmc-" in name else 40 for name in frame["training_id"].unique()}
    for epochs, shown in ((short, {"robult"}), (dict.fromkeys(short, 1), set())):
        told = write(frame, tmp_path, sources=Sources(origins=Origins(epochs=epochs)))
        which = "gmc on cmu_mosi" if shown else "gmc on cmu_mosi, robult on cmu_mosi"
        assert any(
            note.startswith(f"Trained for one epoch alone, as is enough to measure cost: {which}.") for note in told
        )
        text = (tmp_path / "index.html").read_text()
        assert ("Robult, Table 1: " in text) == bool(shown)
        assert ("Epochs that ours were trained for: 40 on cmu_mosi." in text) == bool(shown)
    write(frame, tmp_path, sources=Sources(origins=Origins(epochs=short)))
    tables = [pd.read_csv(path, dtype=str) for path in (tmp_path / "tables").glob("papers-ours-*.csv")]
    beside_gmc = [table for table in tables if "CMU-MOSI / GMC" in table]
    assert beside_gmc
    for table in beside_gmc:
        assert table["CMU-MOSI / GMC"].eq("—").all()
        assert table["CMU-MOSI / Robult"].ne("—").any()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_the_latex_report_compiles(tmp_path: Path) -> None:
    small = realistic(("robult", "gmc", "constant"), ratios=(0.05,), checkpoints=("last",))
    write(pd.concat([toy(), small], ignore_index=True), tmp_path, title="50% & more_ö", context={"a_b": r"C:\x #1"})
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_files_whose_names_are_gone_go_and_foreign_ones_stay(tmp_path: Path) -> None:
    other = toy().assign(dataset="vanished")
    write(pd.concat([toy(), other], ignore_index=True), tmp_path)
    (tmp_path / "mine.txt").write_text("not the report's")
    (tmp_path / "figure-mine.png").write_text("not the report's")
    gone = {path.relative_to(tmp_path) for path in tmp_path.rglob("*vanished*")}
    assert Path("figure-vanished.png") in gone
    assert Path("tables/results-vanished-acc.csv") in gone
    write(toy(), tmp_path)
    assert not list(tmp_path.rglob("*vanished*"))
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / "figure-mine.png").exists()
    assert (tmp_path / "figure-toy.png").exists()


@pytest.mark.parametrize("listed", ["", "{", "[1, 2]", '{"a": 1}', '["../outside.txt", "tables/../../outside.txt"]'])
def test_a_list_of_files_that_was_tampered_with_removes_nothing_outside(listed: str, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.txt", tmp_path / "report"
    outside.write_text("kept")
    write(toy(), folder)
    (folder / MANIFEST).write_text(listed)
    write(toy(), folder)
    assert outside.read_text() == "kept"
    assert (folder / "index.html").exists()


# ---- what it tells ----------------------------------------------------------------------------------------


def test_whole_results_need_no_notes(tmp_path: Path) -> None:
    frame = realistic()
    frame = frame[(frame["metric"] != "corr") & (frame["label_ratio"] == 0.5)]
    assert write(frame, tmp_path) == []
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
        (realistic(seeds=1, ratios=(0.05,)), "There is one seed: no standard deviation can be given"),
        (realistic(("robult",), ratios=(0.05,)), "Only one method has results, robult: nothing is ranked."),
        (realistic(("robult", "gmc"), ratios=(0.05,)), "The grid has no 'constant' method"),
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


def test_a_method_without_any_result_on_a_data_set_is_told_in_one_word(tmp_path: Path) -> None:
    frame = pd.concat([toy(), toy().assign(dataset="other")], ignore_index=True)
    frame = frame[(frame["dataset"] == "toy") | (frame["method"] != "gmc")]
    notes = write(frame, tmp_path)
    assert "No finished result at all (—): gmc on other." in notes
    assert "1 of 15 cells has no finished result (—): gmc on toy 5% b." in notes


# ---- bad input --------------------------------------------------------------------------------------------


def test_without_finished_cells_the_page_says_so(tmp_path: Path) -> None:
    failures = ["robult on toy, 0.05 of the labels, seed 0: it diverged"]
    sources = Sources(failures=failures)
    written = write_report(toy().iloc[:0], tmp_path, title="q", checkpoint="last", context={}, sources=sources)
    assert written.problems == [
        "There are no finished cells to report yet. Run or resume the grid with: bench run GRID",
        f"Failed: {failures[0]}",
    ]  # fmt: skip
    words = Page((tmp_path / "index.html").read_text()).words
    assert set(written.problems) <= set(words)


def test_results_of_several_protocols_are_not_mixed(tmp_path: Path) -> None:
    frame = toy()
    new = frame.assign(training_id=frame["training_id"] + "-new", run_id=frame["run_id"] + "-new", value=0.25)
    both = pd.concat([frame, new], ignore_index=True)
    protocols = {name: "2" if name.endswith("new") else "1" for name in both["training_id"]}
    settled, notes = settle(both, protocols)
    assert (settled["value"] == 0.25).all()
    assert len(settled) == len(frame)
    assert notes == [
        "The experiment mixes results of several versions of the protocol (1, 2), which must not be compared: "
        f"{len(frame)} cells of others than version 2 are left out. Run the grid again to have them."
    ]
    told = write(both, tmp_path, sources=Sources(protocols=protocols))
    assert notes[0] in told
    assert notes[0] in Page((tmp_path / "index.html").read_text()).words


def test_of_cells_that_were_run_twice_the_latest_are_shown() -> None:
    frame = toy()
    again = frame[frame["method"] == "gmc"]
    again = again.assign(training_id=again["training_id"] + "-b", value=0.125)
    settled, notes = settle(pd.concat([frame, again], ignore_index=True), {})
    assert (settled.loc[settled["method"] == "gmc", "value"] == 0.125).all()
    assert len(settled) == len(frame)
    assert notes[0].startswith("3 cells were run more than once, with other settings or data under the same names: gmc")


def test_a_section_that_fails_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise UserError("the ranks are gone.")

    monkeypatch.setattr("analysis.report.ranking_section", broken)
    written = write_report(toy(), tmp_path, title="q", checkpoint="last", context={})
    assert written.problems == ["This part could not be made: the ranks are gone."]
    words = Page((tmp_path / "index.html").read_text()).words
    assert "This part could not be made: the ranks are gone." in words
    assert "toy: acc ↑ (higher is better)" in words


# ---- kept arrays and the cache ----------------------------------------------------------------------------


def kept(method: str, n: int = 66, width: int = 4, **arrays: object) -> Kept:
    rng = np.random.default_rng(3)
    groups = np.arange(n) % 3
    centres = rng.standard_normal((3, width))
    names = {name: centres[groups] + 0.3 * rng.standard_normal((n, width)) for name in ("s", "z/a", "z/b")}
    own = {f"embedding/a+b/{name}": x.astype(np.float32) for name, x in names.items()}
    return Kept("toy", 0.05, method, 0, f"run-{method}", "a+b",
                {**own, "group": groups, "n_all": np.array(n), **arrays}, 0.5)  # fmt: skip


def group_of(members: Sequence[Kept], notes: Sequence[str] = ()) -> KeptGroup:
    return KeptGroup("toy", 0.05, lambda: (list(members), list(notes)))


def test_kept_arrays_give_their_sections(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    missing = "The arrays of gmc are missing from the store."
    sources = Sources(cache=cache, kept=[group_of([kept("robult")], [missing])], links=Links("http://x", "1"))
    written = write_report(toy(), tmp_path / "a", title="q", checkpoint="last", context={}, sources=sources)
    words = Page((tmp_path / "a" / "index.html").read_text()).words
    assert {"Representations", "DCA (Robult, Table 14): toy, 5%", "Is proximity Gaussian?", missing} <= set(words)
    assert "Alignment, uniformity and separation of classes" in words
    assert missing in written.notes
    assert list((tmp_path / "a").glob("clusters-*.png"))
    assert written.problems == []
    assert cache.misses > 5
    again = Cache(tmp_path / "cache")
    sources = Sources(cache=again, kept=[group_of([kept("robult")], [missing])], links=Links("http://x", "1"))
    write_report(toy(), tmp_path / "b", title="q", checkpoint="last", context={}, sources=sources)
    assert again.misses == 0
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


def test_arrays_that_cannot_be_analysed_are_told_and_the_rest_is_made(tmp_path: Path) -> None:
    bad = kept("robult")
    arrays = {
        **bad.arrays,
        "embedding/a+b/s": np.full((66, 4), np.nan, np.float32),
        "pseudo/5/weight": np.ones((1, 2, 2)),
    }
    sources = Sources(kept=[group_of([Kept("toy", 0.05, "robult", 0, "run", "a+b", arrays, 0.5)])])
    written = write_report(toy(), tmp_path, title="q", checkpoint="last", context={}, sources=sources)
    assert any("arrays of epoch 5 are not complete" in problem for problem in written.problems)
    text = (tmp_path / "index.html").read_text()
    assert "NaN or infinite values: did the training diverge?" in text
    assert "toy: acc" in text


def test_pseudo_labels_are_judged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pseudo = np.arange(12) % 3
    same = pseudo[:, None] == pseudo[None, :]
    arrays = {
        "weight": rng.random((1, 1, 12, 12)), "pairs": same[None, None], "pseudo": pseudo[None],
        "true": np.where(np.arange(12) < 9, pseudo, (pseudo + 1) % 3)[None], "labelled": (np.arange(12) < 3)[None],
    }  # fmt: skip
    own = {f"pseudo/5/{name}": x for name, x in arrays.items()}
    sources = Sources(kept=[group_of([Kept("toy", 0.05, "robult", 0, "run", "a+b", own)])])
    write_report(toy(), tmp_path, title="q", checkpoint="last", context={}, sources=sources)
    with (tmp_path / "tables" / "pseudo-labels-share-of-right-pseudo-labels.csv").open() as file:
        row = next(csv.DictReader(file))
    # 9 candidates without a label, 3 anchors of their class besides themselves each; 6 of the 9 are right
    assert float(row["pairs"]) == 27
    assert float(row["right"]) == pytest.approx(6 / 9)


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    cache = Cache(tmp_path / "taken")
    assert cache.bytes("key", lambda: b"x") == b"x"
    assert cache.bytes("key", lambda: b"y") == b"y"
    kept_frame = Cache(tmp_path / "cache")
    frame = pd.DataFrame({"a": [0.1, float("nan")], "b": ["", "x"], "n": [1, 2]})
    for _ in range(2):
        pd.testing.assert_frame_equal(kept_frame.frame("f", lambda: frame), frame, check_dtype=False)
    assert (kept_frame.hits, kept_frame.misses) == (1, 1)


# ---- when it cannot be written ---------------------------------------------------------------------------


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match=r"the report cannot be written: .*taken.*choose another directory"):
        write(toy(), tmp_path / "taken" / "report")


def test_a_write_that_fails_leaves_the_earlier_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(toy(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    whole = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        whole(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match="No space left on device"):
        write(toy().assign(value=0.5), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


# ---- folds, weights, rankings -----------------------------------------------------------------------------


def test_folds_are_one_data_set_on_the_page_and_apart_in_the_results(tmp_path: Path) -> None:
    rows = [
        result(method, subset, seed, value + 0.1 * fold, dataset=f"iemocap[fold={fold}]", ratio=1.0)
        for method, value in (("raml", 0.5), ("constant", 0.25))
        for subset in ("a", "a+b")
        for fold in (1, 2)
        for seed in (0, 1)
    ]
    notes = write(frame_of(rows), tmp_path)
    assert notes[0] == (
        "The 2 folds of iemocap are shown as one data set: each fold with each seed counts as a seed, so that means "
        "and deviations are over folds x seeds."
    )
    text = (tmp_path / "index.html").read_text()
    assert "iemocap: acc ↑" in text
    assert "over n = 4 seeds" in text
    assert "0.650 ± 0.058" in text  # of .6 .6 .7 .7
    assert "fold=" not in (tmp_path / "summary.csv").read_text()
    single = pd.read_csv(tmp_path / "results.csv")
    assert set(single["dataset"]) == {"iemocap[fold=1]", "iemocap[fold=2]"}
    assert set(single["seed"]) == {0, 1}


def weighted(method: str, width: int = 8) -> Kept:
    """Fusion weights that move from `a` to `b` as `a` gets noisier."""
    arrays = {}
    for level, mean in ((0, 0.5), (0.5, 0.3), (1.0, 0.1)):
        share = np.linspace(-0.05, 0.05, width) + mean
        condition = f"a+b@gaussian(a)={level:g}" if level else "a+b"
        arrays |= {
            f"weight/{condition}/a": share,
            f"weight/{condition}/b": 1 - share,
            f"weight/a@x(a)={level}/a": share,
        }
    return Kept("toy", 0.05, method, 0, f"run-{method}", "a+b", {**arrays, "group": np.arange(3)})


def test_kept_weights_are_drawn_by_level_and_width(tmp_path: Path) -> None:
    members = [weighted("raml"), weighted("raml[weight_fixed]"), weighted("raml[latent=4]", 4)]
    written = write_report(
        toy(), tmp_path, title="q", checkpoint="last", context={}, sources=Sources(kept=[group_of(members)])
    )
    words = Page((tmp_path / "index.html").read_text()).words
    assert "Fusion weights under corruption (RAML, Figure 5)" in words
    assert len(list(tmp_path.glob("weights-*.png"))) == 2  # a figure a width
    assert written.problems == []


def test_weights_of_clean_inputs_alone_say_what_is_missing(tmp_path: Path) -> None:
    one = weighted("raml")
    clean = {name: x for name, x in one.arrays.items() if "@" not in name}
    sources = Sources(kept=[group_of([Kept("toy", 0.05, "raml", 0, "run", "a+b", clean)])])
    write_report(toy(), tmp_path, title="q", checkpoint="last", context={}, sources=sources)
    assert "weights were kept of clean inputs alone" in (tmp_path / "index.html").read_text()


def test_each_post_hoc_test_has_a_diagram_and_more_seeds_are_told(tmp_path: Path) -> None:
    sets = {f"set{at}": (("a", "b"), {"acc": True}) for at in range(3)}
    frame = realistic(("robult", "gmc", "raml", "tate", "constant"), sets=sets, ratios=(0.05,))
    write(frame[(frame["method"] != "tate") | (frame["dataset"] != "set0")], tmp_path)
    for test in ("nemenyi", "conover-holm", "wilcoxon-holm"):
        assert (tmp_path / f"ranking-primary-datasets-{test}.svg").exists()
    words = Page((tmp_path / "index.html").read_text()).words
    assert "Seeds with which another run of the grid would rank methods the same" in words
    assert "Data sets with which Nemenyi's test would separate each pair" in words
    assert "Left out for having no result on some data set: tate." in (tmp_path / "report.md").read_text()
    with (tmp_path / "tables" / "ranking-data-sets-with-which-nemenyi-s-test-would-separate-e.csv").open() as file:
        needed = list(csv.DictReader(file))
    assert len(needed) == 3
    assert all(float(row["data sets now"]) == 3 for row in needed)
    assert all(row["data sets needed"] == "over 208" or float(row["data sets needed"]) >= 2 for row in needed)


@pytest.mark.slow
def test_a_hundred_thousand_rows_have_a_report(tmp_path: Path) -> None:
    sets = {f"set{i}": (("a", "b", "c"), {"acc": True, "f1_macro": True, "ua": True}) for i in range(10)}
    methods = ("robult", "gmc", "raml", "actionmae", "unimodal", "tate", "mmin", "constant")
    frame = realistic(methods, sets=sets, ratios=(0.05, 0.5, 1.0), seeds=10)
    assert len(frame) > 100_000
    write(frame, tmp_path)
    assert (tmp_path / "index.html").stat().st_size > 1 << 20
