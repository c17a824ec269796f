"""A grid on data that runs anywhere: the same methods, settings and questions, its data sets replaced."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bench.grid.file import parse_grid
from bench.grid.grid import Entry, Grid, Train
from datasets.corruption import Corruption, Step
from datasets.errors import UserError, did_you_mean

STAND_INS: Mapping[str, tuple[str, ...]] = {
    "synthetic": ("m1", "m2"),
    "digits": ("upper", "lower"),
    "handwritten": ("pix", "fou", "fac", "zer", "kar", "mor"),
}
"""Data sets a grid can be put on -> the modalities that stand for those it names; `synthetic` may have a third."""

_SEQUENCES = {"inputs": "sequence", "time_steps": 8, "n_train": 600, "n_valid": 200, "n_test": 400}
_PAIRS = {"n_modalities": 2, "uniqueness": 1}
SYNTHETIC: Mapping[str, Mapping[str, Any]] = {
    "sentiment": {**_SEQUENCES, "task": "regression"},
    "sequences": _SEQUENCES,
    "pairs": _PAIRS,
    "binary": {**_PAIRS, "task": "binary"},
    "multilabel": {**_PAIRS, "task": "multilabel"},
}
"""What `synthetic` is made like; short sequences, as MulT is slow on a CPU."""
_LIKE = {
    "cmu_mosi": "sentiment", "cmu_mosei": "sentiment", "iemocap": "sequences", "food101": "pairs", "n24news": "pairs",
    "hateful_memes": "binary", "mm_imdb": "multilabel",
}  # fmt: skip
_WORDS = ("all", "single", "full")


def stand_in(grid: Grid, name: str) -> tuple[Grid, str]:
    """The grid with `digits`, `handwritten` or `synthetic` in place of its data sets, and what is changed in a line.

    `synthetic` has the kind of task, the number of modalities and the kind of inputs of what it stands for. Where a
    modality is named, one stands for `single`, several for `full`, and a corrupted one for one of the stand-in. The
    experiment has another name, so that results never mix.

    Raises:
        UserError: nothing is put on `name`.
    """
    if name not in STAND_INS:
        raise UserError(
            f"--on takes {', '.join(STAND_INS)}, which run anywhere, got '{name}'.{did_you_mean(name, [*STAND_INS])}"
        )
    named = _named_modalities(grid)
    renamed = {old: STAND_INS[name][i % len(STAND_INS[name])] for i, old in enumerate(named)}
    datasets, settings = _datasets(grid, name, renamed)
    suffix = f"-on-{name}"
    changed = replace(
        grid,
        name=f"{grid.name[: 100 - len(suffix)]}{suffix}",
        datasets=tuple(datasets),
        modalities=tuple(dict.fromkeys(map(_request, grid.modalities))),
        corruptions=tuple(dict.fromkeys(_corruption(corruption, renamed) for corruption in grid.corruptions)),
        train=Train(_settings(grid.train.values, renamed), settings),
    )
    return parse_grid(changed.to_yaml(), grid.file), _told(grid, changed, renamed)


def _datasets(
    grid: Grid, name: str, renamed: Mapping[str, str]
) -> tuple[list[Entry], dict[str, dict[str, tuple[Any, ...]]]]:
    """The data sets, each once, and by label what is special to them: the settings of the first it stands for.

    That one is part of the label, so that two grids of one experiment never give one label to different settings.
    """
    entries: dict[str | None, Entry] = {}
    special: dict[str, dict[str, tuple[Any, ...]]] = {}
    for entry in grid.datasets:
        kind = _kind(entry) if name == "synthetic" else None
        if kind in entries:
            continue
        known_as = entry.label or entry.name.rpartition(":")[2]
        label = None if entry.name == name else f"{name}-for-{known_as}"[:50]
        options = {key: (value,) for key, value in SYNTHETIC[kind].items()} if kind else {}
        entries[kind] = Entry(name, label, values=options)
        values = grid.train.values_for(entry.name, known_as)
        if values != grid.train.values:
            special[label or name] = _settings(values, renamed)
    return list(entries.values()), special


def _kind(entry: Entry) -> str | None:
    """Which of `SYNTHETIC` is like a data set; None where nothing is known of it."""
    name = entry.values.get("train", ("cmu_mosei",))[0] if entry.name == "transfer" else entry.name
    kind = _LIKE.get(name)
    is_classes = kind == "sentiment" and entry.values.get("labels", ("regression",)) != ("regression",)
    return "sequences" if is_classes else kind


# ---- what is named ----------------------------------------------------------------------------------------------


def _rates(values: Iterable[Any]) -> list[Mapping[str, float]]:
    """The missing rates that are given by modality."""
    return [rate for rate in values if isinstance(rate, Mapping)]


def _named_modalities(grid: Grid) -> list[str]:
    """The modalities that corruptions and missing rates name, each once, in the order of the file."""
    names = [step.modality for corruption in grid.corruptions for step in corruption.steps]
    for values in (grid.train.values, *grid.train.datasets.values()):
        names += [name for rate in _rates(values.get("missing_rate", ())) for name in rate]
    return [name for name in dict.fromkeys(names) if name != "all"]


def _request(request: str) -> str:
    return request if request in _WORDS else "full" if "+" in request else "single"


def _corruption(corruption: Corruption, renamed: Mapping[str, str]) -> Corruption:
    steps = (Step(step.kind, renamed.get(step.modality, step.modality), step.level) for step in corruption.steps)
    return Corruption(tuple({(step.kind, step.modality): step for step in steps}.values()))


def _settings(values: Mapping[str, tuple[Any, ...]], renamed: Mapping[str, str]) -> dict[str, tuple[Any, ...]]:
    """Train settings with missing rates by the modalities of the stand-in."""
    changed = dict(values)
    if _rates(values.get("missing_rate", ())):
        rates = values["missing_rate"]
        new = [{renamed[k]: v for k, v in rate.items()} if isinstance(rate, Mapping) else rate for rate in rates]
        changed["missing_rate"] = tuple(rate for i, rate in enumerate(new) if rate not in new[:i])
    return changed


def _told(grid: Grid, changed: Grid, renamed: Mapping[str, str]) -> str:
    new = ", ".join(entry.label or entry.name for entry in changed.datasets)
    parts = [f"{new} in place of {', '.join(dict.fromkeys(entry.name for entry in grid.datasets))}"]
    if changed.modalities != grid.modalities:
        parts.append(f"modalities {', '.join(changed.modalities)} in place of {', '.join(grid.modalities)}")
    parts += [f"{new} stands for {old}" for old, new in renamed.items()]
    return f"{'; '.join(parts)}; experiment {changed.name}"
