"""`bench reproduce`: train again what one run of the store was, and say whether the same numbers come out."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from bench.arrays import NOTHING
from bench.grid.file import parse_grid
from bench.grid.grid import Grid
from bench.grid.plan import Plan, Training, make_plan
from bench.grid.problems import GridError
from bench.provenance import Session, this_session
from bench.tracking import record_of
from bench.tracking.origin import Origin, origin_of
from datasets.errors import UserError

ROUNDING = 1e-5
"""Relative difference up to which numbers are equal but for rounding: another order of summation, in a stack or on
another processor, makes differences of this size."""
COMPARED = ("torch", "numpy", "scipy", "scikit-learn", "robult-bench")
"""Packages that may change results; differences of the others are counted only."""

Verdict = Literal["identical", "equal", "different"]


@dataclass(frozen=True)
class Number:
    """One metric of one cell, then and now."""

    condition: str
    metric: str
    then: float
    now: float

    @property
    def is_identical(self) -> bool:
        return self.then == self.now or (math.isnan(self.then) and math.isnan(self.now))

    @property
    def is_equal(self) -> bool:
        return self.is_identical or math.isclose(self.then, self.now, rel_tol=ROUNDING, abs_tol=ROUNDING)


@dataclass(frozen=True)
class Reproduction:
    """What came of training again."""

    name: str
    device: str
    numbers: list[Number]
    missing: list[str]
    """Conditions or metrics of the store that did not come out again."""
    differences: dict[str, tuple[str, str]]
    """What the two were made with, where it differs: name -> (then, now)."""

    @property
    def verdict(self) -> Verdict:
        if self.missing or not all(number.is_equal for number in self.numbers):
            return "different"
        return "identical" if all(number.is_identical for number in self.numbers) else "equal"

    def to_json(self) -> str:
        """Everything, for machines; a value that is no number is null."""
        told = {**asdict(self), "verdict": self.verdict}
        for number in told["numbers"]:
            number.update({key: None for key in ("then", "now") if not math.isfinite(number[key])})
        return json.dumps(told, indent=2)

    def __str__(self) -> str:
        n = len(self.numbers)
        head = {
            "identical": f"The same: all {n} numbers are identical to the last bit.",
            "equal": f"The same but for rounding: all {n} numbers agree to a relative {ROUNDING:g}.",
            "different": f"Different: {sum(not number.is_equal for number in self.numbers)} of {n} numbers.",
        }[self.verdict]
        lines = [f"{self.name}, on {self.device}", head]
        apart = sorted((x for x in self.numbers if not x.is_identical), key=lambda x: -abs(x.now - x.then))
        lines += [f"  {x.condition}  {x.metric}: {x.then:.8g} then, {x.now:.8g} now" for x in apart[:10]]
        lines += [f"  and {len(apart) - 10} more"] if len(apart) > 10 else []
        lines += [f"  {name} did not come out again" for name in self.missing]
        if self.differences:
            lines.append("Made with:")
            lines += [f"  {name}: {then} then, {now} now" for name, (then, now) in self.differences.items()]
        elif self.verdict == "different":
            lines.append("Nothing that is recorded differs: versions, machine, data, settings and code are the same.")
        return "\n".join(lines)


def reproduce(uri: str, run_id: str, device: str = "auto") -> Reproduction:
    """Train what a run was again, alone on one thread, and compare.

    Args:
        uri: the tracking store.
        run_id: of a training (all its cells are compared) or of a cell.
        device: `auto` is the CPU for what was made without a GPU, else the first GPU.

    Raises:
        UserError: there is no such run, or its training cannot be rebuilt here.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from bench.executors.worker import reason_of
    from bench.training.replica import TrainingFailed
    from bench.training.trainer import train
    from datasets.catalog import DATASETS

    origin = origin_of(uri, run_id)
    if not origin.cells:
        raise UserError(f"run {run_id} has no finished cell, so there is nothing to compare with.")
    training, swept = rebuild(origin)
    device = _device(device, origin.session)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers train: sums over several threads have another order
    try:
        data = DATASETS.get(training.dataset.name)(training.dataset.config).load()
        result = train(training, data, device)
    except UserError:
        raise
    except Exception as error:  # a method of the user's own may fail in any way
        raise TrainingFailed(f"training it again failed: {reason_of(error)}") from error
    finally:
        torch.set_num_threads(threads)
    now = {
        name: {f"{checkpoint}/{metric}": value for checkpoint, row in rows.items() for metric, value in row.items()}
        for name, rows in result.cells.items()
    }
    numbers, missing = _pairs(origin.cells, now)
    name = f"{record_of(training, swept)['name']} ({training.id})"
    return Reproduction(name, device, numbers, missing, differences(origin, training, this_session()))


def _device(asked: str, session: Mapping[str, Any]) -> str:
    import torch

    if asked != "auto":
        try:
            torch.empty(0, device=asked)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {asked} cannot be used here: {str(error).splitlines()[0]}") from error
        return asked
    had_gpu = session.get("torch_devices", ["cpu"]) != ["cpu"]
    return "cuda:0" if had_gpu and torch.cuda.is_available() else "cpu"


def _pairs(
    then: Mapping[str, Mapping[str, float]], now: Mapping[str, Mapping[str, float]]
) -> tuple[list[Number], list[str]]:
    numbers, missing = [], []
    for condition, values in then.items():
        for metric, value in sorted(values.items()):
            if metric in now.get(condition, {}):
                numbers.append(Number(condition, metric, value, float(now[condition][metric])))
            else:
                missing.append(f"{condition}  {metric}")
    return numbers, missing


# ---- rebuilding the training ------------------------------------------------------------------------------


def rebuild(origin: Origin) -> tuple[Training, tuple[str, ...]]:
    """The training as the grid that asked for it asks for it today, tested under the conditions that are compared.

    Its identity may be another one, where its data, its defaults or the protocol have changed since.

    Raises:
        UserError: the grid can no longer be read or planned, or does not ask for such a training.
    """
    try:
        grid = parse_grid(origin.grid, origin.grid_file)
        plan = _plan(grid, origin.tags)
    except GridError as error:
        raise UserError(f"the grid of this run cannot be planned today:\n{error}") from error
    same = [training for training in plan.trainings if training.id == origin.tags["training_id"]]
    alike = same or [training for training in plan.trainings if _is_like(origin, training, plan.swept_settings)]
    if not alike:
        raise UserError(
            f"the grid of this run no longer asks for '{origin.tags['method']}' on '{origin.tags['dataset']}' "
            f"with label ratio {origin.tags['label_ratio']} and seed {origin.tags['seed']}."
        )
    return replace(alike[0], conditions=tuple(origin.cells), save=NOTHING), plan.swept_settings


def _plan(grid: Grid, tags: Mapping[str, str]) -> Plan:
    """The grid planned for one seed, label ratio and data set: the others' data may be gone."""
    narrow = replace(
        grid,
        seeds=(int(tags["seed"]),),
        label_ratios=(float(tags["label_ratio"]),),
        asked_datasets=tuple(asked for asked in grid.asked_datasets if asked.label == tags["dataset"]),
        modalities=("full",),
        modality_spots=(),
        corruptions=(),
    )
    try:
        return make_plan(narrow)
    except GridError:
        if len(narrow.asked_datasets) == len(grid.asked_datasets):
            raise
        return make_plan(replace(narrow, asked_datasets=grid.asked_datasets))  # a missing rate names others' modalities


def _is_like(origin: Origin, training: Training, swept: tuple[str, ...]) -> bool:
    tags = record_of(training, swept)["tags"]
    axes = ("method", "method_id", "variant", "dataset", "dataset_id", "label_ratio", "seed")
    return all(tags[axis] == origin.tags.get(axis) for axis in axes)


# ---- what differs -----------------------------------------------------------------------------------------


def differences(origin: Origin, training: Training, session: Session) -> dict[str, tuple[str, str]]:
    """What may explain other numbers, where it differs: data, protocol, settings, code, versions, machine."""
    then, now = origin.session, session.told
    record = record_of(training)
    pairs: dict[str, tuple[Any, Any]] = {
        "data fingerprint": (origin.data_digest, record["data"]["fingerprint"][: len(origin.data_digest)]),
        "protocol": (origin.tags.get("protocol"), record["training_tags"]["protocol"]),
    }
    for key in sorted({*origin.params, *record["params"]}):
        pairs[key] = (origin.params.get(key), record["params"].get(key))
    pairs |= _code(origin, session)
    for key in ("python", "platform", "torch_devices"):
        pairs[key.replace("_", " ")] = (then.get(key), now[key])
    for key in ("cpu", "cpu_capability", "gpus", "driver", "cuda", "cudnn"):
        pairs[key.replace("_", " ")] = (then.get("hardware", {}).get(key), now["hardware"].get(key))
    old, new = then.get("packages", {}), now["packages"]
    for name in COMPARED:
        pairs[name] = (old.get(name), new.get(name))
    others = sorted(name for name in {*old, *new} - {*COMPARED} if old and old.get(name) != new.get(name))
    if others:
        pairs["other packages"] = (_versions(others, old), _versions(others, new))
    unknown = [key for key, (a, b) in pairs.items() if a is None and b is not None and not then]
    return {key: (_shown(a), _shown(b)) for key, (a, b) in pairs.items() if a != b and key not in unknown}


def _versions(names: Sequence[str], packages: Mapping[str, str]) -> str:
    told = [f"{name} {packages.get(name, 'not installed')}" for name in names[:3]]
    return ", ".join([*told, *([f"{len(names) - 3} more"] if len(names) > 3 else [])])


def _code(origin: Origin, session: Session) -> dict[str, tuple[Any, Any]]:
    then, now = origin.session.get("code") or {}, session.told["code"]
    if not then:
        return {"code": ("not recorded", "known")} if now else {}
    changes = [_changes(then, origin.diff), _changes(now, session.diff)]
    commits = (then.get("commit", "")[:12] or None, now.get("commit", "")[:12] or None)
    same = then.get("untracked") == now.get("untracked") and origin.diff == session.diff
    return {"code commit": commits} | ({} if same else {"code that was not committed": (changes[0], changes[1])})


def _changes(code: Mapping[str, Any], diff: str) -> str:
    files = diff.count("\ndiff --git ") + diff.startswith("diff --git ")
    n = files + len(code.get("untracked") or {})
    return f"{n} changed files" if n else "changed" if code.get("dirty") else "none"


def _shown(value: Any) -> str:
    text = "none" if value is None or value == "" else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
