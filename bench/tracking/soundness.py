"""Which runs of a store can be used: their tags may have been edited, or written by another version of the suite."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from datasets.corruption import Corruption, level_problem

MISSING = "is missing from the store"
"""How a sentence on a run that is not there ends."""
_NAMED = 3
"""Runs that a sentence names; of more it gives the number."""


@dataclass
class LeftOut:
    """The runs that were left out, and sentences on them."""

    _runs: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    """(stage, what is wrong) -> ids of runs, each once."""
    trainings: set[str] = field(default_factory=set)
    """Ids of the trainings among them: their cells need no sentence of their own."""

    def is_sound(self, stage: str, run_id: str, tags: Mapping[str, str]) -> bool:
        """Whether a run can be used; if not it is remembered."""
        problem = tag_problem(stage, tags)
        if problem:
            self.add(stage, problem, run_id)
            if stage == "training":
                self.trainings.add(tags.get("training_id", ""))
        return not problem

    def add(self, stage: str, problem: str, run_id: str) -> None:
        self._runs.setdefault((stage, problem), {})[run_id] = None

    @property
    def told(self) -> list[str]:
        """A sentence on each kind of damage."""
        return [_told(stage, problem, list(runs)) for (stage, problem), runs in list(self._runs.items())]


def _told(stage: str, problem: str, runs: list[str]) -> str:
    one = len(runs) == 1
    what = f"{len(runs)} {stage} run{'' if one else 's'} in the store {'is' if one else 'are'} left out"
    cells = f", with {'its' if one else 'their'} cells" if stage == "training" else ""
    named = ", ".join(runs[:_NAMED]) + (f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else "")
    if stage == "training":
        remedy = "Mend the tag, or run the grid again to have the results anew"
    elif problem.endswith(MISSING):
        remedy = "Restore it, or run the grid again"
    else:
        remedy = "Mend the tag, or delete the run of the training and run the grid again"
    return f"{what}{cells}: {problem} (run {named}). {remedy}."


def tag_problem(stage: str, tags: Mapping[str, str]) -> str:
    """What makes the tags of a run useless, in words; empty where nothing does.

    Args:
        stage: `training` or `cell`.
        tags: of the run.
    """
    for key, of_value in _NEEDED[stage].items():
        if key not in tags and key not in _LATER:
            return f"the tag '{key}' is missing"
        if problem := of_value(tags.get(key, "")):
            return f"the tag '{key}' {problem}"
    return ""


def cell_problem(tags: Mapping[str, str], training: Mapping[str, str]) -> str:
    """Where the tags of a cell contradict those of its training, in words; empty where nowhere."""
    for key in _AXES:
        if tags[key] != training[key]:
            return f"the tag '{key}' is {tags[key]!r}, but {training[key]!r} at its training"
    names = tags["modalities"].split("+")
    if len(set(names)) < len(names) or not set(names) <= set(training["full_subset"].split("+")):
        return f"the tag 'modalities' is {tags['modalities']!r}, no subset of {training['full_subset']}"
    return ""


def _name_problem(text: str) -> str:
    return "" if text.strip() and text.isprintable() else f"is {text!r}, no name that can be printed"


def _seed_problem(text: str) -> str:
    return "" if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else f"is {text!r}, not an integer"


def _ratio_problem(text: str) -> str:
    try:
        inside = 0 < float(text) <= 1
    except ValueError:
        inside = False
    return "" if inside else f"is {text!r}, not a share above 0 and at most 1"


@lru_cache(maxsize=1024)
def _corruption_problem(text: str) -> str:
    try:
        steps = Corruption.parse(text).steps
    except ValueError:
        return f"is {text!r}, which this version does not know"
    wrong = next(filter(None, (level_problem(step.kind, step.level) for step in steps)), None)
    return f"is {text!r}, but {wrong}" if wrong else ""


def _none(_: str) -> str:
    return ""


_AXES: dict[str, Callable[[str], str]] = {
    "training_id": _name_problem,
    "method": _name_problem,
    "dataset": _name_problem,
    "dataset_id": _name_problem,
    "label_ratio": _ratio_problem,
    "seed": _seed_problem,
}
_NEEDED: dict[str, dict[str, Callable[[str], str]]] = {
    "training": _AXES | {"primary_metric": _name_problem, "higher_is_better": _none, "full_subset": _name_problem},
    "cell": _AXES | {"modalities": _name_problem, "corruption": _corruption_problem},
}
"""Stage -> tag -> what is wrong with its value."""
_LATER = ("corruption",)
"""Tags that the first versions did not write: the same as empty ones."""
