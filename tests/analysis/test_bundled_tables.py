"""Every table of the papers is filled by what the bundled grids of that table would measure: labels, protocols, folds.

Results are made up, but under the labels, conditions and parameters that the grids' own files give.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.figures import method_styles
from analysis.folds import Folds, find_folds
from analysis.paper_tables import MEASURED, PAPER_TABLES, Origins, fill, measured, paper_table, versions
from analysis.report import Sources, write_report
from analysis.sections.base import Inputs, Kept, KeptGroup
from analysis.sections.cost import measured_counts
from analysis.sections.representations import analyse
from bench.cli.reporting import _origins
from bench.grid.file import parse_grid
from bench.grid.grid import Asked, Grid
from bench.grid.plan import conditions_of, subsets_of
from datasets.corruption import split_condition
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression
from tests.analysis.frames import frame_of, result

WORDS = ("text", "audio", "vision")
SETS: dict[str, tuple[tuple[str, ...], Any]] = {
    "cmu_mosi": (("vision", "audio", "text"), Regression), "cmu_mosei": (("vision", "audio", "text"), Regression),
    "transfer": (("vision", "audio", "text"), Regression), "iemocap": (("audio", "vision", "text"), MultiClass),
    "mm_imdb": (("image", "text"), MultiLabel), "food101": (("image", "text"), MultiClass),
    "n24news": (("image", "text"), MultiClass), "hateful_memes": (("image", "text"), Binary),
}  # fmt: skip
"""Data set -> its modalities in its order, and the kind of its task."""
GRIDS = {
    "robult": [1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14], "robult-table5": [5], "raml": [1, 2, 3, 5, 6],
    "raml-full-modality": [4],
}  # fmt: skip
"""Experiment -> the tables whose grids share it."""
FILLED = {
    "robult": ["1", "2", "3", "6", "7", "8", "9", "10", "11", "13"],
    "raml": ["I", "II", "III", "V", "VI"], "raml-full-modality": ["IV"],
}  # fmt: skip
"""Experiment -> the tables that scores alone fill."""
SEEDS = 2


def grids(experiment: str) -> list[Grid]:
    paper = experiment.partition("-")[0]
    names = [f"{paper}-table{number}.yaml" for number in GRIDS[experiment]]
    return [parse_grid((files("bench.grids") / name).read_text(encoding="utf-8"), name) for name in names]


def facts(asked: Asked[Any]) -> tuple[tuple[str, ...], dict[str, bool], str]:
    """Modalities, metrics with their directions, and the primary metric of a data set."""
    modalities, task = SETS[asked.name]
    task = MultiClass if getattr(asked.config, "labels", "regression") == "three_class" else task
    return modalities, dict(task.metrics), task.primary


def values(metrics: dict[str, bool]) -> Iterator[tuple[str, bool, float]]:
    """Numbers that say which metric they are of."""
    for at, (name, higher) in enumerate(metrics.items()):
        yield name, higher, 0.1 + 0.01 * at


def rows_of(grid: Grid) -> Iterator[dict[str, Any]]:
    """What a run of the grid would leave, one row a metric of each cell."""
    for dataset, ratio, method in product(grid.asked_datasets, grid.label_ratios, grid.asked_methods):
        modalities, metrics, primary = facts(dataset)
        if method.name == "prompt_trans" and len(modalities) != 2:
            continue
        shapes = dict.fromkeys(modalities, (1,))
        subsets, _ = subsets_of(grid.modalities, shapes)
        tested, _ = conditions_of(subsets, grid.corruptions, shapes)
        for condition, seed, (name, higher, value) in product(tested, range(SEEDS), values(metrics)):
            subset, corruption = split_condition(condition)
            yield result(
                method.label, subset, seed, value + 0.001 * seed, dataset=dataset.label, ratio=ratio, metric=name,
                higher=higher, primary=name == primary, full="+".join(modalities), corruption=str(corruption),
                checkpoint=grid.checkpoint,
            )  # fmt: skip


def trainings_of(grid: Grid) -> Iterator[dict[str, Any]]:
    """What the store tells of the grid's trainings."""
    for dataset, ratio, method, seed in product(
        grid.asked_datasets, grid.label_ratios, grid.asked_methods, range(SEEDS)
    ):
        own = {f"param/method.{key}": str(value) for key, value in method.config.model_dump().items()}
        own |= {f"param/data.{key}": str(value) for key, value in dataset.config.model_dump().items()}
        yield {
            "training_id": f"t-{dataset.label}-{ratio}-{method.label}-{seed}", "dataset": dataset.label,
            "dataset_id": dataset.name, "method": method.label, "method_id": method.name, "label_ratio": ratio,
            "seed": seed, **own,
        }  # fmt: skip


@cache
def experiment(name: str) -> tuple[pd.DataFrame, Origins, Folds, str]:
    """Results with folds merged, what trainings say, the folds, and the checkpoint."""
    asked = grids(name)
    frame = frame_of([row for grid in asked for row in rows_of(grid)]).drop_duplicates(["run_id", "metric"])
    origins = _origins(pd.DataFrame([row for grid in asked for row in trainings_of(grid)]))
    folds = find_folds(frame)
    whole = Origins(folds.names(origins.names), origins.transfers, origins.complete)
    return folds.merged(frame), whole, folds, asked[0].checkpoint


@cache
def ours(name: str) -> pd.DataFrame:
    frame, origins, _, checkpoint = experiment(name)
    return measured(frame, checkpoint, origins)


@pytest.mark.parametrize("name", FILLED)
def test_each_experiment_fills_its_tables_and_no_others(name: str) -> None:
    for table in PAPER_TABLES:
        for version in versions(table, ours(name)).values():
            cells = fill(table, version)
            printed = cells[cells["published"].notna()]
            if table.number in FILLED[name] and table.paper == name.partition("-")[0]:
                lacking = printed[printed["n_seeds"] == 0]
                assert lacking.empty, f"{table.name}:\n{lacking[['dataset', 'modalities', 'method', 'variant']]}"
                n_folds = np.where(printed["dataset"] == "iemocap", 10, 1)
                assert (printed["n_seeds"] == SEEDS * n_folds).all()
            else:
                others = cells[cells["method"] != "concat"]  # which sees complete samples alone in every table
                assert (others["n_seeds"] == 0).all(), table.name


@pytest.mark.parametrize("name", FILLED)
def test_every_cell_has_the_metric_it_is_headed_by(name: str) -> None:
    theirs = {"f1": "f1_swapped", "wa": "acc"}
    for table in PAPER_TABLES:
        for version in versions(table, ours(name)).values():
            cells = fill(table, version)
            for cell in cells[(cells["n_seeds"] > 0)].to_dict("records"):
                known = [m for _, task in SETS.values() for m in [dict(task.metrics)]]
                metric = theirs.get(cell["metric"], cell["metric"])
                means = {0.1 + 0.01 * list(m).index(metric) + 0.0005 for m in known if metric in m}
                assert any(abs(cell["mean"] - mean) < 1e-9 for mean in means)


def test_a_table_of_two_alignments_is_two_tables() -> None:
    table = paper_table("robult", "13")
    found = versions(table, ours("robult"))
    assert list(found) == ["mosei_to_mosi[align=pca]", "mosei_to_mosi[align=tsne]"]
    for version in found.values():
        assert (fill(table, version)["n_seeds"] == SEEDS).all()
    assert list(versions(paper_table("robult", "1"), ours("robult"))) == [""]


def test_full_modality_training_is_kept_apart_from_missing_modalities() -> None:
    both = pd.concat([experiment("raml")[0], experiment("raml-full-modality")[0].assign(value=0.9)])
    both["training_id"] += np.where(both["value"] == 0.9, "-complete", "")
    complete = frozenset(both.loc[(both["value"] == 0.9) & both["method"].ne("concat"), "training_id"])
    both = both[~((both["value"] == 0.9) & both["method"].isin(["concat", "constant"]))]
    both.loc[both["training_id"].isin(complete), "method"] += "[full_modality]"
    origins = Origins(experiment("raml")[1].names, {}, complete)
    found = measured(both, "best", origins)
    fourth = fill(paper_table("raml", "IV"), found).set_index("method")
    assert (fourth.loc[["tmc", "md", "etmc", "raml"], "mean"].round(9) == 0.9).all()
    assert (fourth.loc["concat", "mean"] < 0.5).all()
    assert (fill(paper_table("raml", "I"), found)["mean"] < 0.5).all()


# ---- numbers that are no cells ----------------------------------------------------------------------------


def test_counted_operations_fill_table_5() -> None:
    rows = []
    for grid in grids("robult-table5"):
        for dataset, method in product(grid.asked_datasets, grid.asked_methods):
            full = "+".join(SETS[dataset.name][0])
            names = ("inference_flops", "inference_macs", "total_parameters")
            rows.append(
                {"dataset": dataset.label, "method": method.label, "modalities": full} | dict.fromkeys(names, 7)
            )
    frame = experiment("robult-table5")[0]
    found = measured_counts(Inputs(frame, frame, "last", {}, counts=pd.DataFrame(rows)))
    assert list(found.columns) == MEASURED
    assert (fill(paper_table("robult", "5"), found)["n_seeds"] == 1).all()


def kept(label: str, name: str, method: str, ratio: float) -> Kept:
    """Embeddings of a training, three classes in four dimensions."""
    rng = np.random.default_rng(len(method) + len(label))
    modalities = SETS[name][0]
    full, group = "+".join(modalities), np.arange(60) % 3
    centres = rng.standard_normal((3, 4))
    arrays = {
        f"embedding/{full}/{view}": (centres[group] + 0.4 * rng.standard_normal((60, 4))).astype(np.float32)
        for view in ("s", *(f"z/{modality}" for modality in modalities))
    }
    return Kept(label, ratio, method, 0, f"run-{method}", full, {**arrays, "group": group, "n_all": np.array(60)})


@pytest.mark.parametrize("number", ["12", "14"])
def test_kept_embeddings_fill_tables_12_and_14(number: str) -> None:
    (grid,) = (own for own in grids("robult") if own.file == f"robult-table{number}.yaml")
    assert grid.save == ("embeddings",)
    (ratio,) = grid.label_ratios
    groups = []
    for dataset in grid.asked_datasets:
        members = [kept(dataset.label, dataset.name, method.label, ratio) for method in grid.asked_methods]
        groups.append(KeptGroup(dataset.label, ratio, lambda members=members: (members, [])))  # type: ignore[misc]
    frame, origins, *_ = experiment("robult")
    styles = method_styles(frame["method"].unique())
    found = analyse(Inputs(frame, frame, "last", styles, origins=origins, kept=tuple(groups)))
    cells = fill(paper_table("robult", number), pd.concat(found.measured, ignore_index=True))
    assert (cells["n_seeds"] == 1).all()
    assert cells["mean"].notna().all()
    assert all(len(runs) == 1 for runs in cells["runs"])


# ---- on the page ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", FILLED)
def test_the_page_has_each_table(name: str, tmp_path: Any) -> None:
    frame, origins, _, checkpoint = experiment(name)
    sources = Sources(origins=origins)
    write_report(frame, tmp_path, title=name, checkpoint=checkpoint, context={}, sources=sources)
    text = (tmp_path / "index.html").read_text()
    paper = {"robult": "Robult", "raml": "RAML"}[name.partition("-")[0]]
    for number in FILLED[name]:
        assert f"{paper}, Table {number}: " in text
