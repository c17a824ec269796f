"""What the commands of the command line do, once the heavy imports are paid for."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.tracking import Store, TrackingError, check_store, resolve_uri, safe_name, sqlite_path
from datasets.errors import DataError, UserError

# ---- bench run --------------------------------------------------------------------------------------------


def run_grid(name: str, *, fail_fast: bool) -> int:
    """`bench run`: exit code 0 when everything is finished, 1 when a training failed, 130 when interrupted."""
    from bench.grid_file import load_grid
    from bench.plan import make_plan
    from bench.progress import make_display, seconds
    from bench.runner import Runner

    signal.signal(signal.SIGTERM, _interrupt)
    plan = make_plan(load_grid(name))
    for skip in plan.skipped:
        _tell(f"impossible: {skip.method} on {skip.dataset}: {skip.reason}")
    for warning in plan.warnings:
        _tell(f"warning: {warning}")
    display = make_display()
    runner = Runner(plan, display, fail_fast=fail_fast)
    try:
        summary = runner.run()
    finally:
        display.stop()
    n_cells = sum(len(runner.trainings[i].conditions) for i in summary.finished)
    if summary.interrupted:
        _tell(
            f"stopped: {len(summary.finished)} trainings finished, {len(summary.killed)} cut short. "
            f"The same command goes on: bench run {name}"
        )
        return 130
    if not summary.saved:
        why = summary.why_unsaved or "the tracking store did not take everything."
        _tell(f"{why} Finished results wait in {runner.spool.folder}; run the same command again.")
    if summary.failed:
        _tell_failures(summary.failed, name)
        return 1
    if not summary.finished and not summary.elsewhere:
        _tell(f"nothing to do: all {summary.n_trainings} trainings are finished. See: bench report {plan.grid.name}")
    else:
        _tell(
            f"{len(summary.finished)} trainings, {n_cells} cells in {seconds(summary.seconds)}. "
            f"Next: bench report {plan.grid.name}, or bench ui"
        )
    return 0 if summary.saved else 1


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _tell_failures(failed: dict[str, Any], name: str) -> None:
    """A table of reasons: one line a training, grouped by reason."""
    from bench.progress import name_of

    reasons: dict[str, list[str]] = {}
    for training, reason in failed.values():
        reasons.setdefault(reason, []).append(name_of(training))
    _tell(f"{len(failed)} trainings failed; the others are finished. They are tried again by: bench run {name}")
    for reason, names in reasons.items():
        _tell(f"  {reason}")
        for training in names[:5]:
            _tell(f"    {training}")
        if len(names) > 5:
            _tell(f"    ... and {len(names) - 5} more")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- bench plan -------------------------------------------------------------------------------------------


def show_plan(name: str, *, as_json: bool) -> int:
    """`bench plan`: what a run would do, without doing it."""
    from bench.estimate import estimate
    from bench.grid_file import load_grid
    from bench.plan import describe, make_plan

    plan = make_plan(load_grid(name))
    uri = plan.grid.tracking.uri
    check_store(uri)
    finished = _finished_cells(uri, plan.grid.name)
    summary = describe(plan, finished)
    remaining = [t for t in plan.trainings if not all(t.cell_id(name) in finished for name in t.conditions)]
    cost = estimate(remaining, plan.grid.executor)
    if as_json:
        print(json.dumps({**summary.to_json(), "estimate": vars(cost)}, indent=2))
        return 0
    from bench.show import print_plan

    print_plan(plan, summary, cost)
    return 0


def _finished_cells(uri: str, experiment: str) -> frozenset[str]:
    """Ids of the finished cells of an experiment; none when it does not exist yet."""
    file = sqlite_path(uri)
    if file is not None and not file.exists():
        return frozenset()
    if experiment not in Store.experiments(uri):
        return frozenset()
    return Store(uri, experiment, create=False).finished_cells()


# ---- bench report -----------------------------------------------------------------------------------------


def make_report(experiment: str, out: Path, checkpoint: str | None, tracking_uri: str | None) -> int:
    """`bench report`: write the report, show its tables, keep it with the grid's run."""
    from analysis.report import write_report
    from bench.show import print_tables

    store = _open(experiment, tracking_uri)
    grid = store.latest_grid()
    checkpoint = checkpoint or (grid.data.tags.get("checkpoint", "last") if grid else "last")
    frame = store.results()
    if frame.empty:
        raise TrackingError(f"experiment '{experiment}' has no finished cell yet; see: bench plan {experiment}")
    folder = out / safe_name(experiment)
    context = _context(store, grid, frame)
    try:
        paths = write_report(frame, folder, title=experiment, checkpoint=checkpoint, context=context)
    except OSError as error:
        raise TrackingError(f"the report cannot be written to {folder}: {error.strerror}.") from error
    print_tables(frame, checkpoint)
    for failure in store.failures():
        _tell(f"failed: {failure['method']} on {failure['dataset']}, seed {failure['seed']}: {failure.get('failure')}")
    if grid is not None:
        store.log_files(grid.info.run_id, folder, "report")
    _tell(f"{len(paths)} files in {folder}, also kept with the grid's run in {store.uri}")
    return 0


def _context(store: Store, grid: Any, frame: Any) -> dict[str, str]:
    """Where the numbers come from, for the head of the report."""
    context = {"experiment": store.name, "tracking store": store.uri, "finished cells": str(frame.run_id.nunique())}
    commit = grid.data.tags.get("mlflow.source.git.commit") if grid is not None else None
    return context | ({"commit": commit[:12]} if commit else {})


def _open(experiment: str, tracking_uri: str | None) -> Store:
    uri = resolve_uri(tracking_uri)
    file = sqlite_path(uri)
    if file is not None and not file.exists():
        raise TrackingError(f"there is no tracking store at {file}; run a grid first: bench run {experiment}")
    return Store(uri, experiment, create=False)


# ---- bench ui ---------------------------------------------------------------------------------------------


def serve_ui(tracking_uri: str | None, port: int) -> int:
    """`bench ui`: run `mlflow ui` on loopback until Ctrl-C."""
    uri = resolve_uri(tracking_uri)
    if uri.startswith(("http://", "https://")):
        print(f"The tracking store is a server already: open {uri}")
        return 0
    check_store(uri)
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port {port} is taken on this machine: choose another with --port.")
    file = sqlite_path(uri)
    if file is not None and not file.exists():
        _tell(f"{file} does not exist yet: the UI will be empty until the first run.")
    print(f"MLflow UI on {uri}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    words = ["ui", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    try:
        return subprocess.call([sys.executable, "-m", "mlflow", *words])
    except KeyboardInterrupt:
        return 0


# ---- bench check ------------------------------------------------------------------------------------------


def check_method(name: str, *, as_json: bool) -> int:
    """`bench check`: every rule of the contract, one line each."""
    from bench.contract import run_contract
    from methods.registry import METHODS

    results = run_contract(METHODS.get(name))
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        for result in results:
            print(f"{'ok    ' if result.ok else 'BROKEN'}  {result.name}{'' if result.ok else f': {result.message}'}")
    broken = sum(not result.ok for result in results)
    _tell(f"{name}: {len(results) - broken} of {len(results)} rules hold.")
    return int(broken > 0)


# ---- bench data -------------------------------------------------------------------------------------------


def list_data(*, as_json: bool) -> int:
    """`bench data ls`: each data set with its state here."""
    from datasets.catalog import DATASETS

    rows = []
    for name in DATASETS.names():
        row = {"name": name, "summary": DATASETS.summaries()[name]}
        try:
            spec = DATASETS.get(name)().spec()
        except UserError as error:
            row |= {"state": "not ready", "why": str(error)}
        else:
            sizes = "/".join(str(spec.sizes[split]) for split in ("train", "valid", "test"))
            row |= {"state": "ready", "task": spec.task.kind, "modalities": spec.full, "sizes": sizes}
        rows.append(row)
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    from bench.show import print_data

    print_data(rows)
    return 0


def prepare_data(name: str, source: Path) -> int:
    """`bench data prepare`."""
    from bench.data_progress import PrepareBar
    from datasets.catalog import DATASETS
    from datasets.progress import listening
    from datasets.store import store_directory

    cls = DATASETS.get(name)
    if not source.exists():
        raise DataError(f"{source} does not exist: --from takes the raw file or folder of '{name}'.")
    store = store_directory(name)
    before = _written_at(store)
    with PrepareBar() as bar, listening(bar):
        told = cls.prepare(source, store)
    if told:
        print(told)
        return 0
    spec = cls().spec()
    sizes = ", ".join(f"{spec.sizes[split]} {split}" for split in ("train", "valid", "test"))
    state = "already prepared" if before == _written_at(store) else "prepared"
    print(f"{name} is {state}: {sizes}; {len(spec.modalities)} modalities ({spec.full}).")
    _show_card(store, cls)
    return 0


def _written_at(store: Path) -> tuple[int, int] | None:
    """What tells one writing of a store from another."""
    card = store / "card.json"
    return (card.stat().st_ino, card.stat().st_mtime_ns) if card.exists() else None


def _show_card(store: Path, cls: type[Any]) -> None:
    """Say what a store's card says, and write the page of it."""
    from datasets.card_page import page_is_current, write_page
    from datasets.store import read_card

    card = read_card(store)
    if form := card.provenance.get("format"):
        print(f"format: {form}")
    for warning in card.warnings:
        _tell(f"warning: {warning}")
    try:
        if not page_is_current(store):
            write_page(store, {"summary": cls.summary, "source": cls.source, "licence": cls.licence})
    except OSError as error:  # of a store that others own
        _tell(f"note: the page of its card cannot be written: {error.strerror}.")
    print(f"fingerprint {card.fingerprint}, kept in {store}; its card: {store / 'card.html'}")


def embed_data(
    name: str,
    encoder: str,
    *,
    weights: list[str],
    options: list[str],
    batch: int,
    max_length: int | None,
    device: str,
    noise: float,
    mask: float,
    seed: int,
) -> int:
    """`bench data embed`."""
    from pydantic import ValidationError

    from bench.data_progress import PrepareBar
    from datasets.catalog import DATASETS
    from datasets.embed import Corruption, Job, embed
    from datasets.image_text import ImageText
    from datasets.progress import listening

    cls = DATASETS.get(name)
    if not issubclass(cls, ImageText):
        raise UserError(f"data set '{name}' has no images and texts to embed.")
    try:
        config = cls.Config.model_validate(_assignments(options, "--option"))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--option {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    named = _assignments(weights, "--weights", default="both")
    job = Job(encoder, named, batch, max_length, device, Corruption(noise, mask, seed))
    with PrepareBar() as bar, listening(bar):
        told = embed(cls(config), job)
    print(told)
    return 0


def _assignments(words: list[str], option: str, default: str | None = None) -> dict[str, str]:
    """`key=value` words as a dict; a word without `=` is the value of `default`."""
    found = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign and default is None:
            raise UserError(f"{option} takes key=value, got '{word}'.")
        found[key if sign else str(default)] = value if sign else word
    return found


def make_data(name: str, out: Path, rows: int | None, form: str | None) -> int:
    """`bench data make`."""
    from bench.data_progress import PrepareBar
    from datasets.progress import listening
    from datasets.raw_maker import make_raw

    with PrepareBar() as bar, listening(bar):
        make_raw(name, out, rows, form)
    print(f"Random data in the format of {name}: {out}. Next: bench data prepare {name} --from {out}")
    _tell(f"warning: preparing it replaces the {name} you have prepared, if any; set BENCH_DATA to keep them apart.")
    return 0


def verify_data(name: str, folder: Path | None = None) -> int:
    """`bench data verify`: exit code 1 and every problem when something is wrong."""
    from datasets.catalog import DATASETS
    from datasets.store import store_directory, verify_store

    cls = DATASETS.get(name)
    store = store_directory(name)
    if folder is not None and "folder" not in cls.Config.model_fields:
        raise UserError(
            f"--from is for data sets that are folders, such as 'own'; '{name}' was prepared from its files."
        )
    dataset = cls(cls.Config.model_validate({"folder": str(folder)})) if folder is not None else cls()
    problems = dataset.verify()
    if problems is None:
        dataset.spec()
        problems = verify_store(store) if store.exists() else []
    if not problems:
        data = dataset.load()
        print(f"{name}: {sum(map(len, data.parts.values()))} samples, fingerprint {data.spec.fingerprint}: sound.")
        return 0
    for problem in problems:
        _tell(f"{name}: {problem}")
    return 1
