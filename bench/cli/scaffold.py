"""`bench new method NAME`: a minimal method of one's own and its test, which pass the contract as they are."""

import keyword
import re
from pathlib import Path

from bench.grid.problems import show
from datasets.errors import UserError

LONGEST = 60
"""Letters of a name: it becomes that of two files, and a column of every table."""

METHOD = '''"""{title}: say in a line what it does, and name the paper."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from datasets.base import DataSpec
from datasets.batch import Batch
from datasets.tasks import Task
from methods.base import Method, MethodConfig, hyper
from methods.fusion import shown


class {title}Config(MethodConfig):
    """Hyper-parameters; each says where its value comes from."""

    hidden: int = hyper(64, source="not given: our choice", search=(16, 256), log=True, ge=1)


class {title}(Method):
    """One network on everything that is there, missing modalities as zeros."""

    name = "{name}"
    title = "{title}"
    paper = "none yet"
    Config = {title}Config
    needs_labels = True

    config: {title}Config

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], task: Task, config: MethodConfig) -> None:
        super().__init__(shapes, task, config)
        inputs = sum(torch.Size(shape).numel() for shape in shapes.values())
        hidden = self.config.hidden
        self.body = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, task.width)

    @classmethod
    def refuses(cls, spec: DataSpec, config: MethodConfig) -> str | None:
        return None  # or half a sentence: why it cannot take this data set

    def encode(self, batch: Batch) -> Tensor:
        """All inputs side by side, hidden ones as zeros, (B, hidden)."""
        return self.body(torch.cat([x.flatten(1) for x in shown(batch)], dim=1))  # type: ignore[no-any-return]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {{"sup": self.task.loss(self.head(self.encode(batch)), batch.target, batch.labelled)}}

    def predict(self, batch: Batch) -> Tensor:
        return self.head(self.encode(batch))  # type: ignore[no-any-return]

    def embed(self, batch: Batch) -> dict[str, Tensor]:
        return {{"s": self.encode(batch)}}
'''

TEST = '''"""{title} keeps the contract of every method."""

import pytest

from bench.contract import CHECKS, Check, run_check
from {name} import {title}


@pytest.mark.parametrize("check", CHECKS.values(), ids=list(CHECKS))
def test_contract(check: Check) -> None:
    result = run_check(check, {title})
    assert result.ok, result.message
'''


def new_method(name: str, folder: Path) -> list[Path]:
    """Write `NAME.py` and `test_NAME.py` into `folder`.

    Raises:
        UserError: the name is no module name, or a file is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or len(name) > LONGEST:
        raise UserError(
            f"a method's name is a Python module name in lower case, of up to {LONGEST} letters, like my_method; "
            f"got {show(name)}."
        )
    title = "".join(word.capitalize() for word in name.split("_") if word)
    texts = {folder / f"{name}.py": METHOD, folder / f"test_{name}.py": TEST}
    for path in texts:
        if path.exists():
            raise UserError(f"{path} is there already: choose another name, or move it away.")
    for path, text in texts.items():
        path.write_text(text.format(name=name, title=title), encoding="utf-8")
    return list(texts)
