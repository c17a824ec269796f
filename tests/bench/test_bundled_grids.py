"""The bundled grids of the papers' tables: each printed number has its cell, each grid can be put on other data."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from analysis.published import AVERAGE, TABLES, published, subset_key
from bench import grids
from bench.grid.file import Collection, load_asked, load_grid, parse_grid
from bench.grid.grid import Entry
from bench.grid.plan import Plan, make_plan
from bench.grid.problems import GridError
from bench.grid.stand_in import STAND_INS, stand_in
from bench.grids import bundled_grids, bundled_names
from datasets.affect import LABEL_TASKS, Affect
from datasets.base import DataSpec
from datasets.catalog import DATASETS
from datasets.corruption import split_condition
from datasets.errors import UserError
from datasets.handwritten import VIEWS
from datasets.iemocap import Iemocap
from datasets.image_text import ImageText
from datasets.tasks import Binary, MultiClass, MultiLabel, Task
from tests.bench.run_tools import bench, query
from tests.bench.test_cli import Call, call  # noqa: F401 (a fixture)

ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}
GRIDS = {
    (paper, table): f"{paper}-table{ROMAN.get(table, table)}" for paper in TABLES for table in TABLES[paper]
}  # fmt: skip
IMAGE_TEXT: dict[str, Task] = {
    "mm_imdb": MultiLabel(23), "food101": MultiClass(101), "hateful_memes": Binary(), "n24news": MultiClass(24),
}  # fmt: skip
SIZES: Any = {"train": 1000, "valid": 100, "test": 100}

TRANSFER = "mosei_to_mosi"
"""What Table 13's grid calls training on CMU-MOSEI and testing on CMU-MOSI."""


@pytest.fixture(scope="module", autouse=True)
def _prepared() -> Iterator[None]:
    """Every data set of the papers as if it were prepared."""

    def told(self: Any) -> str:
        return f"{self.name} {self.config.model_dump_json()}"

    def affect(self: Any) -> DataSpec:
        audio, vision = (5, 20) if self.name == "cmu_mosi" else (74, 35)
        shapes = {"text": (50, 300), "audio": (50, audio), "vision": (50, vision)}
        return DataSpec(self.name, shapes, LABEL_TASKS[self.config.labels], SIZES, told(self))

    def image_text(self: Any) -> DataSpec:
        return DataSpec(self.name, {"text": (768,), "image": (768,)}, IMAGE_TEXT[self.name], SIZES, told(self))

    def iemocap(self: Any) -> DataSpec:
        shapes = {"audio": (40, 130), "vision": (50, 342), "text": (22, 1024)}
        return DataSpec(self.name, shapes, MultiClass(4), SIZES, told(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Affect, "spec", affect)
        patch.setattr(ImageText, "spec", image_text)
        patch.setattr(Iemocap, "spec", iemocap)
        yield


@pytest.fixture(scope="module")
def plans(_prepared: None) -> dict[str, Plan]:
    return {name: make_plan(load_grid(name)) for name in GRIDS.values()}


# ---- what there is ----------------------------------------------------------------------------------------------


QUESTIONS = {f"question-{n}" for n in range(1, 5)}
OTHERS = {"quickstart", "handwritten", "all-methods", "robult-paper", "raml-paper", *QUESTIONS}


def test_every_table_with_something_to_run_has_a_grid() -> None:
    assert set(bundled_names()) == {*GRIDS.values(), *OTHERS}
    for (paper, table), name in GRIDS.items():
        said = {"robult": "Robult", "raml": "RAML"}[paper]
        assert bundled_grids()[name].startswith(f"{said}, Table {table}: ")
        assert load_grid(name).seeds == (0, 1, 2) or name == "robult-table5"


def test_listing_puts_table_2_before_table_10() -> None:
    names = [name for name in bundled_names() if name.startswith("robult-table")]
    assert [int(name.removeprefix("robult-table")) for name in names] == [1, 2, 3, *range(5, 15)]


@pytest.mark.parametrize("paper", TABLES)
def test_a_paper_is_a_collection_of_all_its_tables(paper: str) -> None:
    asked = load_asked(f"{paper}-paper")
    assert isinstance(asked, Collection)
    assert sorted(asked.grids) == sorted(name for (of, _), name in GRIDS.items() if of == paper)
    with pytest.raises(GridError, match=f"{paper}-paper: a collection of grids, not one of them: {asked.grids[0]}, "):
        load_grid(f"{paper}-paper")


# ---- the printed numbers have cells -----------------------------------------------------------------------------

Where = tuple[str, str, str, str]


def cells_of(plan: Plan) -> dict[Where, set[float]]:
    """(data set, modality subset, corruption, label) -> label ratios, in the terms of the published numbers."""
    found: dict[Where, set[float]] = defaultdict(set)
    for training in plan.trainings:
        for condition in training.conditions:
            subset, corruption = split_condition(condition)
            dataset = training.dataset.label.partition("[")[0]  # a fold of IEMOCAP, a way to align
            where = (dataset, subset_key(subset), str(corruption), training.method.label)
            found[where].add(training.label_ratio)
    return found


def wanted_of(row: SimpleNamespace) -> list[Where]:
    """The cells that a printed number is of; an average is of all subsets."""
    label = row.method if row.variant == "default" else f"{row.method}[{row.variant}]"
    steps = [f"gaussian(image)={row.sigma:g}"] if row.sigma > 0 else []
    steps += [f"mask(text)={row.mask_p:g}"] if row.mask_p > 0 else []
    names = ["text", "image"] if row.dataset in IMAGE_TEXT else ["audio", "text", "vision"]
    subsets = [row.modalities]
    if row.modalities == AVERAGE:
        subsets = ["+".join(n for i, n in enumerate(names) if bits >> i & 1) for bits in range(1, 2 ** len(names))]
    return [(row.dataset, subset_key(subset), "&".join(steps), label) for subset in subsets]


@pytest.mark.parametrize(("paper", "table"), GRIDS, ids=GRIDS.values())
def test_every_printed_number_has_its_cells(paper: str, table: str, plans: dict[str, Plan]) -> None:
    plan = plans[GRIDS[paper, table]]
    cells = cells_of(plan)
    impossible = {(skip.method, skip.dataset) for skip in plan.skipped}
    rows = published(paper, table)
    if (paper, table) == ("robult", "13"):
        rows = rows.assign(dataset=TRANSFER)
    records = [SimpleNamespace(**{str(key): value for key, value in row.items()}) for row in rows.to_dict("records")]
    for row in records:
        if pd.isna(row.value):
            assert row.printed == "-"
            assert (row.method, row.dataset) in impossible
            continue
        for where in wanted_of(row):
            assert where in cells, where
            assert pd.isna(row.label_ratio) or row.label_ratio in cells[where]
    constant = ("constant", "prompt_trans[no_simulation]")
    printed = {where[3] for row in records for where in wanted_of(row)}
    assert {where[3] for where in cells} - set(constant) == printed, "nothing is trained that the table lacks"


def test_representations_are_kept_where_a_table_is_made_of_them() -> None:
    kept = {name for name in GRIDS.values() if load_grid(name).save == ("embeddings",)}
    assert kept == {"robult-table12", "robult-table14"}


# ---- one experiment for the tables of a paper -------------------------------------------------------------------


def test_a_label_never_stands_for_two_trainings_of_an_experiment(plans: dict[str, Plan]) -> None:
    """Else a report on the experiment would find cells twice; on a stand-in too."""
    for on in (None, "digits", "synthetic"):
        trained: dict[tuple[object, ...], str] = {}
        for name, plan in plans.items():
            if on is not None:
                plan = make_plan(stand_in(load_grid(name), on)[0])
            for t in plan.trainings:
                key = (plan.grid.name, t.dataset.label, t.label_ratio, t.seed, t.method.label)
                assert trained.setdefault(key, t.id) == t.id, (on, name, key)


@pytest.mark.parametrize(
    ("first", "then"),
    [("robult-table6", "robult-table1"), ("raml-table2", "raml-table3"), ("raml-table1", "raml-table5")],
)
def test_what_a_table_shares_with_one_before_it_is_trained_once(first: str, then: str, plans: dict[str, Plan]) -> None:
    assert plans[first].grid.name == plans[then].grid.name
    before = {cell for t in plans[first].trainings for cell in t.cells.values()}
    left = {t.method.label for t in plans[then].remaining(before)}
    assert left == ({"raml[weight_identical]", "raml[weight_fixed]"} if then == "raml-table5" else set())


def test_complete_samples_alone_are_another_experiment(plans: dict[str, Plan]) -> None:
    assert plans["raml-table4"].grid.name == "raml-full-modality"
    assert {plans[name].grid.name for name in GRIDS.values() if name.startswith("raml")} == {
        "raml",
        "raml-full-modality",
    }


# ---- on other data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on", ["synthetic", "digits"])
def test_every_grid_can_be_put_on_data_that_runs_anywhere(on: str) -> None:
    for name in [*GRIDS.values(), "quickstart", "handwritten"]:
        grid = load_grid(name)
        changed, told = stand_in(grid, on)
        plan = make_plan(changed)
        assert told.endswith(f"; experiment {changed.name}")
        assert changed.name == f"{grid.name}-on-{on}"
        assert (changed.methods, changed.label_ratios, changed.seeds) == (grid.methods, grid.label_ratios, grid.seeds)
        assert (changed.modalities, changed.checkpoint, changed.save) == (grid.modalities, grid.checkpoint, grid.save)
        assert len(changed.corruptions) == len(grid.corruptions)
        assert {training.dataset.name for training in plan.trainings} == {on}
        assert {skip.method.partition("[")[0] for skip in plan.skipped} <= {"prompt_trans"}


def test_stand_ins_are_named_by_the_modalities_they_have() -> None:
    for name in ("digits", "synthetic"):
        assert set(STAND_INS[name]) <= set(DATASETS.get(name)().spec().modalities)
    assert STAND_INS["handwritten"] == tuple(VIEWS)


def test_synthetic_is_like_what_it_stands_for() -> None:
    plan = make_plan(stand_in(load_grid("robult-table2"), "synthetic")[0])
    kinds = {t.dataset.label: (t.dataset.spec.task.kind, len(t.dataset.spec.modalities)) for t in plan.trainings}
    assert kinds == {
        "synthetic-for-mm_imdb": ("multilabel", 2),
        "synthetic-for-food101": ("multiclass", 2),
        "synthetic-for-hateful_memes": ("binary", 2),
    }
    plan = make_plan(stand_in(load_grid("raml-table1"), "synthetic")[0])
    shapes = {t.dataset.label: set(map(len, t.dataset.spec.modalities.values())) for t in plan.trainings}
    assert shapes == {"synthetic-for-food101": {1}, "synthetic-for-iemocap": {2}}
    plan = make_plan(stand_in(load_grid("robult-table1"), "synthetic")[0])
    assert {t.dataset.spec.task.kind for t in plan.trainings} == {"regression"}


MINE = """
name: mine
methods: [robult]
datasets: [cmu_mosi, food101]
modalities: [all, text, text+audio, audio, text+audio+vision]
corruptions:
  - gaussian: {image: [0.1, 0.2]}
  - swap: {text: 0.5}
  - mask: {all: 0.1}
train:
  epochs: 7
  missing_rate: {text: 0.2, audio: 0.3}
  datasets: {food101: {epochs: 9}, cmu_mosi: {batch_size: 24}}
"""


def test_modalities_that_are_named_become_those_of_the_stand_in() -> None:
    changed, told = stand_in(parse_grid(MINE), "digits")
    assert changed.modalities == ("all", "single", "full")
    assert list(map(str, changed.corruptions)) == [
        "gaussian(upper)=0.1", "gaussian(upper)=0.2", "swap(lower)=0.5", "mask(all)=0.1",
    ]  # fmt: skip
    assert changed.datasets == (Entry("digits", "digits-for-cmu_mosi"),)
    training = make_plan(changed).trainings[0]
    assert (training.settings.epochs, training.settings.batch_size) == (7, 24), "the settings of cmu_mosi"
    assert training.settings.missing_rate == {"lower": 0.2, "upper": 0.3}
    assert told == (
        "digits-for-cmu_mosi in place of cmu_mosi, food101; "
        "modalities all, single, full in place of all, text, text+audio, audio, text+audio+vision; "
        "upper stands for image; lower stands for text; upper stands for audio; experiment mine-on-digits"
    )


def test_a_long_name_keeps_the_suffix() -> None:
    changed, _ = stand_in(parse_grid(MINE.replace("mine", "x" * 100)), "synthetic")
    assert len(changed.name) == 100
    assert changed.name.endswith("x-on-synthetic")


def test_other_stand_ins_are_refused() -> None:
    with pytest.raises(UserError, match=r"--on takes synthetic, digits, handwritten, .* Did you mean 'digits'"):
        stand_in(parse_grid(MINE), "digit")


# ---- collections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("grids: []", "c.yaml:1: grids: expected a list of names and paths of grids"),
        ("grids: raml-table1", "c.yaml:1: grids: expected a list of names and paths of grids"),
        ("grids: [a, 3]", "c.yaml:1: grids[1]: expected the name of a grid or a path ending in .yaml, got 3"),
        ("grids:\n- a\n- a", "c.yaml:3: grids[1]: 'a' is given twice"),
        ("grids: [a, a]", "c.yaml:1: grids[1]: 'a' is given twice"),
        ("grids: [a]\nseeds: 3", "c.yaml:2: unknown key 'seeds'. A collection of grids has only: grids"),
        ("grids: [a", "c.yaml:2: not valid YAML"),
        ("- x\n- 'y\n\ngrids: z'", "c.yaml: grids: expected a list of names and paths of grids"),
    ],
)
def test_collections_with_slips(text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    with pytest.raises(GridError) as caught:
        load_asked("c.yaml")
    assert str(caught.value).startswith(told)


def test_paths_in_a_collection_are_seen_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("grids: [quickstart, mine.yaml]")
    (tmp_path / "mine.yaml").write_text(MINE)
    asked = load_asked(str(tmp_path / "c.yaml"))
    assert asked == Collection(("quickstart", str(tmp_path / "mine.yaml")))
    assert load_grid(asked.grids[1]).name == "mine"


# ---- the command line -------------------------------------------------------------------------------------------


@pytest.fixture
def unprepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo `_prepared`: the data sets look for their stores again."""
    for cls, spec in REAL.items():
        monkeypatch.setattr(cls, "spec", spec)


REAL: dict[type[Any], Callable[[Any], DataSpec]] = {cls: cls.spec for cls in (Affect, ImageText, Iemocap)}


@pytest.mark.usefixtures("unprepared")
def test_data_that_is_missing_is_told_at_once_with_a_way_on(call: Call) -> None:  # noqa: F811
    code, out, err = call("plan", "raml-table1")
    assert (code, out) == (2, "")
    names = ("food101", "n24news", "iemocap", "cmu_mosei")
    lines = err.splitlines()
    assert len(lines) == 5
    for line, name in zip(lines, names, strict=False):
        assert f"bench data prepare {name} --from PATH" in line
    assert lines[0].endswith("--from PATH, then: bench data embed food101 --with resnet-bert")
    assert lines[-1] == "To try the grid without these data: bench plan raml-table1 --on synthetic"


@pytest.mark.usefixtures("unprepared")
def test_features_of_corrupted_tests_are_told_by_the_command_that_makes_them(call: Call, tmp_path: Path) -> None:  # noqa: F811
    features = "[resnet-bert.noise-0.08.seed-0, resnet-bert.noise-0.12.mask-0.1.seed-2, vilt]"
    (tmp_path / "g.yaml").write_text(f"methods: [raml]\ndatasets: [food101: {{features: {features}}}]\n")
    code, _, err = call("plan", "g.yaml")
    assert code == 2
    for options in ("resnet-bert --noise 0.08\n", "resnet-bert --noise 0.12 --mask 0.1 --seed 2\n", "vilt\n"):
        assert f"--from PATH, then: bench data embed food101 --with {options}" in err


@pytest.mark.usefixtures("unprepared")
def test_a_collection_tells_each_missing_data_set_once(call: Call) -> None:  # noqa: F811
    code, out, err = call("plan", "robult-paper")
    assert (code, out) == (2, "")
    assert "13 of 13 grids cannot be planned: robult-table12, " in err
    for name in ("cmu_mosi", "cmu_mosei", "mm_imdb", "food101", "hateful_memes"):
        assert err.count(f"bench data prepare {name} --from PATH") == 1


def test_the_plan_of_a_collection_counts_what_is_shared_once(call: Call) -> None:  # noqa: F811
    code, out, _ = call("plan", "raml-paper", "--on", "digits", "--json")
    assert code == 0
    rows = {row["grid"]: row for row in json.loads(out)["grids"]}
    assert (rows["raml-table2"]["trainings"], rows["raml-table2"]["shared"]) == (36, 0)
    assert (rows["raml-table1"]["trainings"], rows["raml-table1"]["shared"]) == (0, 36)
    assert (rows["raml-table6"]["trainings"], rows["raml-table6"]["shared"]) == (9, 6)
    assert rows["raml-table4"]["shared"] == 0, "another experiment"


@pytest.mark.slow
def test_a_collection_runs_to_its_end_whatever_becomes_of_a_grid(call: Call, tmp_path: Path) -> None:  # noqa: F811
    grid = (Path(grids.__file__).parent / "raml-table6.yaml").read_text(encoding="utf-8")
    short = grid.replace("epochs: 40", "epochs: 1").replace("seeds: 3", "seeds: 1")
    assert short.count("epochs: 1") == short.count("seeds: 1") == 1
    (tmp_path / "table6.yaml").write_text(short)
    (tmp_path / "absent.yaml").write_text("methods: [nobody]\ndatasets: [digits]\n")
    (tmp_path / "paper.yaml").write_text("grids: [absent.yaml, table6.yaml]\n")
    done = bench("run", "paper.yaml", "--on", "digits", cwd=tmp_path)
    assert done.returncode == 1
    assert "unknown method 'nobody'" in done.stderr
    assert "1 of 2 grids are not finished: absent.yaml" in done.stderr
    cells = query(
        tmp_path,
        "select m.value, x.value from runs r join tags s on s.run_uuid = r.run_uuid and s.key = 'stage' "
        "join tags m on m.run_uuid = r.run_uuid and m.key = 'method' "
        "join experiments e on e.experiment_id = r.experiment_id and e.name = 'raml-on-digits' "
        "join tags x on x.run_uuid = r.run_uuid and x.key = 'dataset' where s.value = 'cell' and r.status = 'FINISHED'",
    )
    methods = ("raml", "raml[only_m]", "raml[m_d]", "raml[m_u]", "constant")
    assert sorted(cells) == sorted([(name, "digits-for-food101") for name in methods for _ in range(3)])
    code, out, _ = call("plan", "paper.yaml", "--on", "digits", "--json")
    assert code == 2
    assert "nobody" in json.loads(out)["refused"]["absent.yaml"][0]
    (row,) = json.loads(out)["grids"]
    assert (row["grid"], row["cells"], row["cells_done"]) == ("table6.yaml", 15, 15)
