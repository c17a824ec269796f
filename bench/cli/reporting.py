"""What `bench report` gathers from the tracking store, and how it keeps a report fresh while a grid runs."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.cli.tell import tell
from bench.tracking import ARRAYS, Store, TrackingError, resolve_uri, safe_name, sqlite_path
from datasets.errors import UserError, without_secrets

if TYPE_CHECKING:
    import pandas as pd

    from analysis.files import Cache
    from analysis.paper_tables import Origins
    from analysis.report import Sources, Written
    from analysis.sections.base import Kept, KeptGroup
    from bench.grid.plan import Training

LOCAL_UI = "http://127.0.0.1:5000"
"""Where `bench ui` serves a store that is no server."""
ANALYSED_RATIO = 0.5
"""A label ratio whose representations are looked at besides the smallest: Robult, Table 14, is about it."""
MOST_CURVES = 1000
"""Trainings up to which curves are read: of each there are thousands of points."""
PREFIXES = ("embedding/", "pseudo/", "weight/", "group")
READ = "embeddings|pseudo_labels|weights"
"""Of what trainings keep, what a report looks at."""


# ---- the command ------------------------------------------------------------------------------------------


def make_report(
    experiment: str, out: Path, checkpoint: str | None, tracking_uri: str | None, *, ui: str | None = None,
    quick: bool = False, watch_s: float | None = None,
) -> int:  # fmt: skip
    """`bench report`: write the report, show its tables, keep it with the grid's run; again and again if asked."""
    from analysis.files import Cache

    cache = Cache(out / ".cache")
    if watch_s is not None:
        return _watch(experiment, out, checkpoint, tracking_uri, ui, quick, watch_s, cache)
    store = _open(experiment, tracking_uri)
    return _report(store, out, checkpoint, ui, quick, cache, quiet=False)


def _open(experiment: str, tracking_uri: str | None) -> Store:
    uri = resolve_uri(tracking_uri)
    file = sqlite_path(uri)
    if file is not None and not file.exists():
        raise TrackingError(f"there is no tracking store at {file}; run a grid first: bench run {experiment}")
    return Store(uri, experiment, create=False)


def _report(
    store: Store, out: Path, checkpoint: str | None, ui: str | None, quick: bool, cache: "Cache", *, quiet: bool,
    frame: "pd.DataFrame | None" = None,
) -> int:  # fmt: skip
    """One report; `quiet` leaves out tables and progress on the terminal."""
    from analysis.report import write_report
    from analysis.settling import settle
    from bench.cli.show import print_tables

    grid = store.latest_grid()
    checkpoint = checkpoint or (grid.data.tags.get("checkpoint", "last") if grid else "last")
    frame = store.results() if frame is None else frame
    folder = out / safe_name(store.name)
    sources = _sources(store, frame, ui, quick, cache, quiet)
    context = _context(store, grid, frame)
    written = write_report(frame, folder, title=store.name, checkpoint=checkpoint, context=context, sources=sources)
    settled = settle(frame, sources.protocols)[0]
    if not quiet and not settled.empty:
        _print(settled, checkpoint, print_tables)
    if not quiet:
        _tell_all(written)
    if grid is not None:
        with _told_when_it_fails():
            store.log_files(grid.info.run_id, folder, "report")
    if settled.empty:
        raise TrackingError(
            f"experiment '{store.name}' has no finished cell yet; see: bench plan {store.name}. So says the page, "
            f"{folder / 'index.html'}."
        )
    if not quiet:
        tell(f"{len(written)} files in {folder}, also kept with the grid's run in {without_secrets(store.uri)}")
        tell(f"Open {folder / 'index.html'} in a browser.")
    return 0


def _print(settled: "pd.DataFrame", checkpoint: str, print_tables: Any) -> None:
    """The tables on the terminal: folds together, and means by size in place of dozens of modality subsets."""
    import pandas as pd

    from analysis.folds import find_folds
    from analysis.results import check_frame
    from analysis.subset_means import has_many_subsets, means_by_size

    settled = check_frame(settled)
    settled = find_folds(settled).merged(settled)
    parts = [
        means_by_size(own, str(dataset)) if has_many_subsets(own, str(dataset)) else own
        for dataset, own in settled.groupby("dataset", sort=False)
    ]
    print_tables(pd.concat(parts, ignore_index=True), checkpoint)


def _tell_all(written: "Written") -> None:
    """What a reader of the page is told in sentences, on the terminal too."""
    for note in written.notes:
        tell(f"note: {note}")
    for problem in dict.fromkeys(written.problems):
        tell(problem if problem.startswith("Failed") else f"not in the report: {problem}")


class _told_when_it_fails:
    """A report is worth having although the store does not take a copy of it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if isinstance(error, TrackingError):
            tell(f"the report is not kept with the grid's run: {error}")
            return True
        return False


# ---- again and again --------------------------------------------------------------------------------------


def _watch(
    experiment: str, out: Path, checkpoint: str | None, tracking_uri: str | None, ui: str | None, quick: bool,
    seconds: float, cache: "Cache",
) -> int:  # fmt: skip
    """Write the report anew whenever cells have finished, until the grid's run ends or Ctrl-C; exit code 0."""
    before = -1
    try:
        while True:
            store, frame = _seen(experiment, tracking_uri)
            n_cells = 0 if frame is None else int(frame["run_id"].nunique())
            if store is not None and frame is not None and n_cells > max(before, 0):
                _report(store, out, checkpoint, ui, quick, cache, quiet=True, frame=frame)
                new = n_cells - max(before, 0)
                page = out / safe_name(experiment) / "index.html"
                tell(f"{time.strftime('%H:%M:%S')}  {n_cells:,} cells, {new:,} new: {page}")
            elif before == -1:
                tell(f"{time.strftime('%H:%M:%S')}  waiting for the first finished cell of '{experiment}'")
            before = n_cells
            if store is not None and (grid := store.latest_grid()) is not None and grid.info.status != "RUNNING":
                tell(f"{time.strftime('%H:%M:%S')}  the grid's run has ended ({grid.info.status.lower()}).")
                return 0
            time.sleep(seconds)
    except KeyboardInterrupt:
        return 0


def _seen(experiment: str, tracking_uri: str | None) -> "tuple[Store | None, pd.DataFrame | None]":
    """The store and its results, None while there are none or it does not answer."""
    try:
        store = _open(experiment, tracking_uri)
        frame = store.results()
    except TrackingError:  # not there yet, or for a moment out of reach
        return None, None
    return store, None if frame.empty else frame


# ---- what a report is made from ---------------------------------------------------------------------------


def _sources(
    store: Store, frame: "pd.DataFrame", ui: str | None, quick: bool, cache: "Cache", quiet: bool
) -> "Sources":
    from analysis.report import Sources
    from analysis.sections.base import Links

    trainings = store.trainings()
    notes: list[str] = []
    say = (lambda _: None) if quiet else tell
    failures = [
        f"{f['method']} on {f['dataset']}, {f['label_ratio']} of the labels, seed {f['seed']}: {f.get('failure')}"
        for f in store.failures()
    ]
    notes += store.left_out.told
    links = Links(ui_address(store.uri, ui), store.experiment_id)
    sources = Sources(links=links, cache=cache, failures=failures, notes=notes)
    if frame.empty or trainings.empty:
        return sources
    trainings["label_ratio"] = trainings["label_ratio"].astype(float)
    trainings["seed"] = trainings["seed"].astype(int)
    kept = list(_kept(store, trainings)) if "saved" in trainings else []
    if quick and kept:
        notes.append("Representations, pseudo-labels, proximity and counted operations are left out (--quick).")
        kept = []
    return Sources(
        links=sources.links,
        cache=cache,
        origins=_origins(trainings),
        protocols=_protocols(trainings),
        failures=failures,
        notes=notes,
        kept=kept,
        trainings=trainings,
        counts=None if quick else _counts(store, cache, notes, say),
        curves=_curves(store, trainings, notes),
        tell=say,
    )


def _protocols(trainings: "pd.DataFrame") -> dict[str, str]:
    """Training id -> protocol version, empty where it was not recorded."""
    if "protocol" not in trainings:
        return {}
    return dict(zip(trainings["training_id"], trainings["protocol"].fillna("").astype(str), strict=True))


def _origins(trainings: "pd.DataFrame") -> "Origins":
    """What the papers' protocols depend on, from the parameters of trainings."""
    import pandas as pd

    from analysis.paper_tables import Origins

    def given(name: str) -> "pd.Series[str]":
        known = f"param/{name}" in trainings
        return trainings[f"param/{name}"].fillna("").astype(str) if known else pd.Series("", index=trainings.index)

    complete = (given("method.full_modality_training") == "True") | (given("method.patterns") == "none")
    labels = trainings.assign(trained=given("data.train"), tested=given("data.test")).drop_duplicates("dataset")
    named = list(zip(labels["dataset"], labels["dataset_id"], labels["trained"], labels["tested"], strict=True))
    return Origins(
        names={label: name for label, name, *_ in named if label != name},
        transfers={label: (train, test) for label, name, train, test in named if name == "transfer" and test},
        complete=frozenset(trainings.loc[complete, "training_id"]),
        epochs={
            name: int(n)
            for name, n in zip(trainings["training_id"], given("train.epochs"), strict=True)
            if n.isdecimal()
        },
    )


def _context(store: Store, grid: Any, frame: "pd.DataFrame") -> dict[str, str]:
    """Where the numbers come from, for the head of the report."""
    context = {"experiment": store.name, "tracking store": without_secrets(store.uri)}
    context["finished cells"] = f"{frame['run_id'].nunique():,}"
    if grid is None:
        return context
    tags = grid.data.tags
    if about := tags.get("mlflow.note.content"):
        context["about"] = about
    if planned := tags.get("n_cells"):
        context["finished cells"] += f"; the latest grid asks for {int(planned):,}"
    if commit := tags.get("mlflow.source.git.commit"):
        changed = ", with changes that were not committed" if tags.get("git_dirty") == "True" else ""
        context["commit"] = commit[:12] + changed
    return context


def ui_address(uri: str, asked: str | None) -> str:
    """Where the runs of a store can be looked at.

    Args:
        uri: the tracking store.
        asked: an address given by the user; empty: numbers are no links.
    """
    if asked is not None:
        if asked and urlsplit(asked).scheme not in ("http", "https"):
            raise UserError(f"--ui takes the address of an MLflow UI, like {LOCAL_UI}, got '{asked}'.")
        return asked.rstrip("/")
    return without_secrets(uri).rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_UI


# ---- arrays -----------------------------------------------------------------------------------------------


def _kept(store: Store, trainings: "pd.DataFrame") -> "Iterator[KeptGroup]":
    """Per data set the smallest label ratio at which arrays were kept, and 50 %: of each method the lowest seed.

    Of a data set in folds the first fold.
    """
    from analysis.folds import find_folds
    from analysis.sections.base import KeptGroup

    saved = trainings[trainings["saved"].fillna("").str.contains(READ)]
    folds = find_folds(saved)
    first = {base: label for label, base in reversed(list(folds.bases.items()))}
    saved = saved[
        saved["dataset"].map(lambda label: label == first.get(folds.bases.get(label, ""), label)).astype(bool)
    ]
    for dataset, own in saved.groupby("dataset", sort=True):
        for ratio in dict.fromkeys([own["label_ratio"].min(), ANALYSED_RATIO]):
            there = own[own["label_ratio"] == ratio].sort_values("seed", kind="stable").drop_duplicates("method")
            if not there.empty:
                rows = {str(row["training_id"]): row for row in there.to_dict("records")}
                yield KeptGroup(str(dataset), float(ratio), partial(_read, store, rows))


def _read(store: Store, rows: Mapping[str, Mapping[Any, Any]]) -> "tuple[list[Kept], list[str]]":
    """The arrays of some trainings, and sentences on those that cannot be read."""
    from analysis.sections.base import Kept
    from analysis.sections.representations import thinned
    from bench.arrays import read_arrays

    kept, notes = [], []
    for tags, path in store.arrays(set(rows)):
        row = rows[tags["training_id"]]
        what = f"{row['method']} on {row['dataset']}, {row['label_ratio']:g} of the labels, seed {row['seed']}"
        if not path.exists():
            notes.append(f"The arrays of {what} are missing from the store ({ARRAYS} of run {row['run_id']}).")
            continue
        try:
            arrays = thinned(read_arrays(path, PREFIXES), str(row["full_subset"]))
        except ValueError as error:
            notes.append(f"The arrays of {what} are left out: {error}")
            continue
        kept.append(
            Kept(str(row["dataset"]), float(row["label_ratio"]), str(row["method"]), int(row["seed"]),
                 str(row["run_id"]), str(row["full_subset"]), arrays, _number(row.get("param/method.tau")))
        )  # fmt: skip
    return kept, notes


def _number(text: object) -> float:
    with suppress(ValueError):
        return float(str(text))
    return float("nan")


# ---- curves -----------------------------------------------------------------------------------------------


def _curves(store: Store, trainings: "pd.DataFrame", notes: list[str]) -> "pd.DataFrame | None":
    """Training curves, unless there are more trainings than can be read in a moment."""
    if len(trainings) > MOST_CURVES:
        notes.append(f"Training curves are left out: there are {len(trainings):,} trainings, over {MOST_CURVES:,}.")
        return None
    return store.curves()


# ---- counted operations -----------------------------------------------------------------------------------


def _counts(store: Store, cache: "Cache", notes: list[str], say: Any) -> "pd.DataFrame | None":
    """Operations and parameters of every method on every data set of the experiment's grids, from models built anew.

    Where several grids have a method of the same label on a data set, the latest counts. Of a data set in folds, whose
    shapes are equal, the first fold stands for all.
    """
    import pandas as pd

    from analysis.folds import fold_of

    parts: list[pd.DataFrame] = []
    seen = set()
    for training in _countable(store, notes):
        labels = training.method.label, fold_of(training.dataset.label)[0]
        if labels in seen:
            continue
        seen.add(labels)
        spec = training.dataset.spec
        key = f"counts|{training.method.key}|{spec.modalities}|{spec.task}|{training.settings.batch_size}"
        try:
            part = cache.frame(key, partial(_count, training, say))
        except (UserError, RuntimeError, ValueError) as error:
            notes.append(f"Operations of {' on '.join(labels)} are not counted: {str(error).splitlines()[0]}")
            continue
        parts.append(part.assign(method=labels[0], dataset=labels[1]))
    return pd.concat(parts, ignore_index=True) if parts else None


def _countable(store: Store, notes: list[str]) -> "Iterator[Training]":
    """The trainings of all grids on the data sets that this machine has, latest first; a sentence on the others."""
    from bench.grid.file import parse_grid
    from bench.grid.plan import describe_datasets, make_plan
    from bench.grid.problems import Problems

    lacking: dict[str, None] = {}
    refused: dict[str, None] = {}
    for grid in store.grids():
        try:
            asked = parse_grid(store.text(grid.info.run_id, "grid.yaml"))
            there = {dataset.label for dataset in describe_datasets(asked, Problems(asked.file))}
            lacking |= dict.fromkeys(own.name for own in asked.asked_datasets if own.label not in there)
            if there:
                here = tuple(own for own in asked.asked_datasets if own.label in there)
                yield from make_plan(replace(asked, asked_datasets=here)).trainings
        except UserError as error:
            refused[str(error).splitlines()[0].rstrip(".")] = None
    if lacking:
        notes.append(
            f"Operations are not counted on {', '.join(lacking)}: not prepared on this machine, or not where "
            "BENCH_DATA says; see: bench data ls."
        )
    notes += [f"Operations of a grid that cannot be planned on this machine are not counted: {why}." for why in refused]


def _count(training: "Training", say: Any) -> "pd.DataFrame":
    """The counts of one method on one data set, of random data in its shapes; nothing is measured."""
    import numpy as np
    import pandas as pd
    import torch

    from bench.cost import count_cost
    from bench.training.evaluation import resident, subset_masks
    from bench.training.replica import build
    from datasets.base import Part
    from datasets.seeds import generator

    spec = training.dataset.spec
    say(f"counting operations: {training.method.label} on {training.dataset.label}")
    rng = generator("counts", spec.fingerprint)
    n = min(training.settings.batch_size, 64)
    inputs = {name: rng.standard_normal((n, *shape), dtype=np.float32) for name, shape in spec.modalities.items()}
    data = resident(Part(inputs, spec.task.random_target(n, rng)), "cpu")
    full = {spec.full: subset_masks(spec, [spec.full], "cpu")[0]}
    cost = count_cost(build(training, spec), data.batch(torch.arange(n)), full, runs=0)
    return pd.DataFrame(cost.rows(dataset="", method=""))
