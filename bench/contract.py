"""The contract every method keeps, checked on tiny data in seconds: for the suite's methods and for anybody's.

`run_contract(MyMethod)` tries every rule and says in a sentence what is broken. Nothing here knows any one method.
Shapes: B batch, M modalities, W task width, K replicas.
"""

import copy
import dataclasses
import io
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from datasets.base import DataSpec
from datasets.batch import Batch, make_batch
from datasets.seeds import generator, seed_of
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression, Task
from methods.base import Method, MethodConfig, Stage
from methods.noise import row_keys

TOLERANCE = 1e-5
"""Largest difference, relative to the larger of 1 and the values compared, that rounding may make."""


@dataclass(frozen=True)
class CheckResult:
    """What one rule of the contract gave."""

    name: str
    ok: bool
    message: str
    """What is broken, or why the rule does not apply; empty when there is nothing to say."""


class Broken(Exception):
    """A rule that does not hold; the message is the sentence people read."""


# ---- tiny data ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One kind of data set a method may meet."""

    shapes: dict[str, tuple[int, ...]]
    task: Task
    token_ids: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Modality -> how many token ids there are, where the values are ids and not numbers."""

    def __str__(self) -> str:
        kinds = {len(shape) for shape in self.shapes.values()}
        kind = "mixed inputs" if len(kinds) > 1 else "vectors" if kinds == {1} else "sequences"
        return f"{self.task.kind}, {len(self.shapes)} modalities, {kind}"

    @property
    def spec(self) -> DataSpec:
        return DataSpec("contract", self.shapes, self.task, {"train": 32, "valid": 8, "test": 8}, "contract")

    def batch(self, size: int = 16, *, seed: int = 0, labels: Literal["all", "half", "none"] = "half") -> Batch:
        """Normal inputs, or token ids, and random targets; with `half` every other sample is labelled."""
        draw = generator("contract", str(self), size, seed)
        inputs = {name: self.values(name, size, draw) for name in self.shapes}
        labelled = {"all": torch.ones, "half": torch.ones, "none": torch.zeros}[labels](size, dtype=torch.bool)
        if labels == "half":
            labelled[1::2] = False
        return make_batch(inputs, targets(self.task, size, draw), labelled=labelled, noise=row_keys(seed, 0, size))

    def values(self, name: str, size: int, draw: np.random.Generator) -> Tensor:
        """`size` samples of one modality, (B, ...) float32."""
        shape = (size, *self.shapes[name])
        if name in self.token_ids:
            return torch.from_numpy(draw.integers(0, self.token_ids[name], shape)).float()
        return torch.from_numpy(draw.standard_normal(shape, dtype=np.float32))

    def meaning(self, name: str, x: Tensor) -> Tensor:
        """Numbers as they are; a token id is worth a random number of its own."""
        if name not in self.token_ids:
            return x
        worth = generator("contract", "meaning", name).standard_normal(self.token_ids[name], dtype=np.float32)
        return torch.from_numpy(worth)[x.long()]

    def available(self, size: int, seed: int = 0) -> Tensor:
        """A non-empty modality subset for every sample, of any kind, (B, M) bool."""
        draw = generator("contract", "available", len(self.shapes), size, seed)
        subset = torch.from_numpy(draw.integers(1, 2 ** len(self.shapes), size))
        return (subset[:, None] >> torch.arange(len(self.shapes))) & 1 == 1


def targets(task: Task, size: int, draw: np.random.Generator) -> Tensor:
    """Random targets that the task may meet, (B,) or (B, C)."""
    if isinstance(task, MultiLabel):
        return torch.from_numpy((draw.random((size, task.n_labels)) < 0.4).astype(np.float32))
    if isinstance(task, MultiClass):
        return torch.from_numpy(draw.permutation(np.arange(size) % task.n_classes))
    return torch.from_numpy(draw.uniform(-3, 3, size).astype(np.float32))


def hidden_among(batch: Batch, available: Tensor, noise: Batch) -> Batch:
    """`batch` under `available`, with the values of `noise`, far too large, in the inputs that are hidden."""
    inputs = {}
    for column, (name, x) in enumerate(batch.inputs.items()):
        mask = available[:, column].reshape(-1, *[1] * (x.dim() - 1))
        inputs[name] = torch.where(mask, x, 1e3 * noise.inputs[name])
    return batch._replace(inputs=inputs, available=available)


TASKS: tuple[Task, ...] = (Regression(), Binary(), MultiClass(n_classes=3), MultiLabel(n_labels=4))
VECTORS: dict[str, tuple[int, ...]] = {"text": (5,), "audio": (3,), "vision": (4,), "touch": (2,)}
SEQUENCES: dict[str, tuple[int, ...]] = {"text": (6, 5), "audio": (6, 3), "vision": (6, 4)}


def all_cases(cls: type[Method]) -> list[Case]:
    """Every kind of task with 1 to 4 vectors; some with 2 or 3 sequences, or one of each; what a method adds."""

    def first(shapes: dict[str, tuple[int, ...]], count: int) -> dict[str, tuple[int, ...]]:
        return dict(list(shapes.items())[:count])

    mixed = {"text": SEQUENCES["text"], "audio": VECTORS["audio"]}
    sequences = [Case(first(SEQUENCES, 2), Regression()), Case(first(SEQUENCES, 3), MultiClass(n_classes=3))]
    vectors = [Case(first(VECTORS, m), task) for m, task in product((1, 2, 3, 4), TASKS)]
    own = cls.miniature
    added = [] if own is None else [Case(dict(own.inputs), task, own.token_ids) for task in TASKS]
    return [*vectors, *sequences, Case(mixed, Regression()), Case(mixed, MultiLabel(n_labels=4)), *added]


def small_config(cls: type[Method], values: Mapping[str, Any] | None = None) -> MethodConfig:
    """The Config a method is checked with: its defaults, made small where it says how, then `values`."""
    own = {} if cls.miniature is None else dict(cls.miniature.config)
    return cls.Config.model_validate(own | dict(values or {}))


# ---- the method under test ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A method and the Config it is checked with."""

    cls: type[Method]
    config: MethodConfig

    def cases(self) -> list[Case]:
        """The cases this method does not refuse."""
        return [case for case in all_cases(self.cls) if self.cls.refuses(case.spec, self.config) is None]

    def few(self) -> list[Case]:
        """One case a kind of task and one of sequences alone, with two modalities where the method takes two."""
        chosen: dict[str, Case] = {}
        for case in sorted(self.cases(), key=lambda case: len(case.shapes) != 2):
            sequences = all(len(shape) == 2 for shape in case.shapes.values())
            chosen.setdefault("sequences" if sequences else case.task.kind, case)
        return list(chosen.values())

    def build(self, case: Case, seed: int = 0) -> Method:
        """The method with the initial weights of `seed`; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of("contract", seed))
            return self.cls(case.shapes, case.task, self.config)

    def finished(self, case: Case, seed: int = 0) -> Method:
        """As after training: every stage entered, parts fitted at the end are fitted, evaluation mode."""
        method = self.build(case, seed).eval()
        for stage in method.stages():
            enter(method, stage, case.batch(32, seed=1))
        method.finish(case.batch(32, seed=1))
        return method


def enter(method: Method, stage: Stage, train: Batch) -> None:
    """Begin a stage of training as the trainer does."""
    method.stage = stage.name
    with torch.no_grad():
        method.enter(train)


def trained(method: Method, stage: Stage) -> list[str]:
    """Names of the parameters that a stage trains."""
    return [name for name, p in method.named_parameters() if p.requires_grad and stage.covers(name)]


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum that training minimises."""
    return torch.stack(list(terms.values())).sum()


def gradients(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Gradient of the total loss at every parameter, zeros where none arrives."""
    method.zero_grad()
    loss = total(method.train().loss(batch))
    if loss.requires_grad:
        loss.backward()  # type: ignore[no-untyped-call]
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in method.named_parameters()}


def same(ours: Tensor, theirs: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Refuse tensors that differ by more than rounding."""
    if ours.shape != theirs.shape:
        raise Broken(f"{what}: shapes differ, {tuple(ours.shape)} and {tuple(theirs.shape)}")
    ours, theirs = ours.detach().float(), theirs.detach().float()
    if ours.numel() == 0:
        return
    scale = max(1.0, float(theirs.abs().max()))
    gap = float((ours - theirs).abs().max())
    if not gap <= tolerance * scale:
        raise Broken(f"{what}: values differ by up to {gap:.3g}")


def finite(value: Tensor, what: str) -> None:
    if not bool(torch.isfinite(value).all()):
        raise Broken(f"{what} is not finite")


@torch.no_grad()
def every_answer(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Whatever a method says about a batch, named: predictions, representations, loss terms."""
    answers = {"predict": method.eval().predict(batch)}
    answers |= {f"embed '{name}'": value for name, value in method.embed(batch).items()}
    return answers | {f"loss '{name}'": value for name, value in method.train().loss(batch).items()}


# ---- the rules ------------------------------------------------------------------------------------------------------

Scope = Literal["class", "one", "few", "all"]
Needs = Literal["iterative", "stackable"]


@dataclass(frozen=True)
class Check:
    """One rule: its sentence, and where it is tried."""

    name: str
    run: Callable[..., None]
    scope: Scope
    """`class`: once; otherwise on one case, one a kind of task, or all that the method takes."""
    needs: tuple[Needs, ...]

    def cases(self, subject: Subject) -> list[Case]:
        if self.scope == "all":
            return subject.cases()
        return subject.few()[: 1 if self.scope == "one" else None]


CHECKS: dict[str, Check] = {}


def rule(name: str, scope: Scope, *needs: Needs) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function (subject) or (subject, case) as the rule `name`."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        CHECKS[name] = Check(name, run, scope, needs)
        return run

    return register


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: on tensors this small more of them only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def run_check(check: Check, cls: type[Method], config: MethodConfig | None = None) -> CheckResult:
    """Try one rule; whatever a method raises becomes the message."""
    where = ""
    try:
        subject = Subject(cls, small_config(cls) if config is None else config)
        for need in check.needs:
            if not getattr(cls, need):
                return CheckResult(check.name, True, f"does not apply: {need} is False")
        if check.scope == "class":
            check.run(subject)
            return CheckResult(check.name, True, "")
        cases = check.cases(subject)
        if not cases:
            return CheckResult(check.name, False, "refuses every data set of the contract, so nothing could be tried")
        for case in cases:
            where = f"{case}: "
            check.run(subject, case)
    except Broken as broken:
        return CheckResult(check.name, False, f"{where}{broken}")
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        told = str(error).strip().split("\n")[0]
        at = f"{Path(frame.filename).name}:{frame.lineno}"
        return CheckResult(check.name, False, f"{where}raised {type(error).__name__} at {at}: {told}")
    return CheckResult(check.name, True, "")


def run_contract(method_cls: type[Method], config: MethodConfig | None = None) -> list[CheckResult]:
    """Try every rule on a method.

    Args:
        method_cls: the class, ours or a third party's.
        config: its hyper-parameters; None takes the defaults, made small where the method says how.
    """
    return [run_check(check, method_cls, config) for check in CHECKS.values()]


# ---- what a class says of itself ------------------------------------------------------------------------------------


@rule("names itself, its title and its paper", "class")
def _names(subject: Subject) -> None:
    for attribute in ("name", "title", "paper"):
        value = getattr(subject.cls, attribute, None)
        if not (isinstance(value, str) and value.strip()):
            raise Broken(f"`{attribute}` must be a non-empty text, got {value!r}")


@rule("says of every hyper-parameter where its default comes from", "class")
def _sources(subject: Subject) -> None:
    if not (isinstance(subject.cls.Config, type) and issubclass(subject.cls.Config, MethodConfig)):
        raise Broken("`Config` must be a subclass of methods.base.MethodConfig")
    for name, field in subject.cls.Config.model_fields.items():
        extra = field.json_schema_extra
        source = extra.get("source") if isinstance(extra, dict) else None
        if not (isinstance(source, str) and source.strip()):
            raise Broken(f"Config field '{name}' has no source: declare it with hyper(default, source=...)")


@rule("writes its hyper-parameters and reads them back", "class")
def _round_trip(subject: Subject) -> None:
    config, cls = subject.config, type(subject.config)
    if cls.model_validate(config.model_dump()) != config or cls.model_validate_json(config.model_dump_json()) != config:
        raise Broken("a Config read back from its own dump is not equal to it")


@rule("builds every variant, each different from the default", "class")
def _variants(subject: Subject) -> None:
    default = small_config(subject.cls)
    for name, values in subject.cls.variants.items():
        config = small_config(subject.cls, values)
        if config == default:
            raise Broken(f"variant '{name}' changes nothing")
        variant = Subject(subject.cls, config)
        for case in variant.few()[:1]:
            for term, value in variant.build(case).loss(case.batch()).items():
                finite(value, f"variant '{name}': loss '{term}'")


@rule("takes some data, and refuses the rest with a reason", "class")
def _takes(subject: Subject) -> None:
    for case in all_cases(subject.cls):
        reason = subject.cls.refuses(case.spec, subject.config)
        if reason is not None and not (isinstance(reason, str) and reason.strip()):
            raise Broken(f"{case}: `refuses` must return None or a reason, got {reason!r}")
    if not subject.cases():
        raise Broken("refuses every data set of the contract")


# ---- answers --------------------------------------------------------------------------------------------------------


@rule("predicts for every modality subset, sample by sample", "all")
def _predicts(subject: Subject, case: Case) -> None:
    method = subject.finished(case)
    patterns = torch.tensor(list(product([True, False], repeat=len(case.shapes)))[:-1])  # all but the empty one
    batch = case.batch(2 * len(patterns), labels="none")
    shown = make_batch(batch.inputs, batch.target, available=patterns.repeat(2, 1), labelled=batch.labelled)
    with torch.no_grad():
        output = method.predict(shown)
    expected = (2 * len(patterns), case.task.width)
    if tuple(output.shape) != expected:
        raise Broken(f"predict gives {tuple(output.shape)}, expected (B, W) = {expected}")
    finite(output, "predict")


@rule("embeds every sample as a vector", "few")
def _embeds(subject: Subject, case: Case) -> None:
    batch = case.batch(7)
    with torch.no_grad():
        for name, value in subject.finished(case).embed(batch).items():
            if value.dim() != 2 or len(value) != 7:
                raise Broken(f"embed '{name}' gives {tuple(value.shape)}, expected (B, d) with B = 7")
            finite(value, f"embed '{name}'")


@rule("gives scalar loss terms and diagnostics", "few")
def _scalars(subject: Subject, case: Case) -> None:
    method, batch = subject.build(case), case.batch()
    terms = method.train().loss(batch)
    if subject.cls.iterative and not terms:
        raise Broken("loss gives no terms although the method is iterative")
    with torch.no_grad():
        told = method.eval().diagnose(batch)
    for name, value in (terms | told).items():
        if value.dim() != 0:
            raise Broken(f"'{name}' must be a scalar, got shape {tuple(value.shape)}")
        finite(value, f"'{name}'")


@rule("never lets hidden modalities matter", "few")
def _leaks(subject: Subject, case: Case) -> None:
    method = subject.finished(case)
    batch, available = case.batch(24), case.available(24)
    masks = {"labelled": batch.labelled, "available": available, "noise": batch.noise}
    clean = make_batch(batch.inputs, batch.target, **masks)
    dirty = hidden_among(batch, available, case.batch(24, seed=9))
    through_data = make_batch(dirty.inputs, batch.target, **masks)
    for other, how in ((dirty, "in the batch"), (through_data, "in the data")):
        answers = every_answer(method, other)
        for name, value in every_answer(method, clean).items():
            same(answers[name], value, f"{name} reads a hidden modality's values {how}")


@rule("predicts a sample alone as among others", "few")
def _independent(subject: Subject, case: Case) -> None:
    method, size = subject.finished(case), 12
    batch = case.batch(size, labels="none")
    batch = make_batch(batch.inputs, batch.target, available=case.available(size), labelled=batch.labelled)
    with torch.no_grad():
        together = method.predict(batch)
        for rows in ([0], [3, 1], list(range(size))[::-1]):
            part = Batch({name: x[rows] for name, x in batch.inputs.items()}, *(mask[rows] for mask in batch[1:]))
            same(method.predict(part), together[rows], f"predict of samples {rows} depends on what is beside them")


@rule("never reads hidden labels, and no labels to predict", "few")
def _labels(subject: Subject, case: Case) -> None:
    batch = case.batch(24)
    other = targets(case.task, 24, generator("contract", "other targets"))
    mask = batch.labelled.reshape(-1, *[1] * (batch.target.dim() - 1))
    hidden = batch._replace(target=torch.where(mask, batch.target, other))
    first, second = subject.build(case), subject.build(case)
    first.finish(batch)
    second.finish(hidden)
    answers = every_answer(second, hidden)
    for name, value in every_answer(first, batch).items():
        same(answers[name], value, f"{name} reads targets that are not labelled")
    with torch.no_grad():
        same(first.eval().predict(batch._replace(target=other)), first.predict(batch), "predict reads targets")


@rule("ignores rows that only fill the batch", "few")
def _padding(subject: Subject, case: Case) -> None:
    size, method = 10, subject.finished(case)
    batch, filling = case.batch(size), case.batch(6, seed=5)
    padded = Batch(
        {name: torch.cat([x, 100 * filling.inputs[name]]) for name, x in batch.inputs.items()},
        torch.cat([batch.target, filling.target]),
        torch.cat([batch.labelled, torch.zeros_like(filling.labelled)]),
        torch.cat([batch.available, filling.available]),
        torch.cat([batch.valid, torch.zeros_like(filling.valid)]),
        torch.cat([batch.noise, filling.noise]),
        torch.cat([batch.progress, filling.progress]),
    )
    answers = every_answer(method, padded)
    for name, value in every_answer(method, batch).items():
        kept = answers[name] if value.dim() == 0 else answers[name][:size]
        same(kept, value, f"{name} changes with rows that are not valid")


@rule("leaves the batch as it was", "one")
def _untouched(subject: Subject, case: Case) -> None:
    batch = case.batch()
    before = copy.deepcopy(batch)
    method = subject.build(case)
    every_answer(method, batch)
    method.diagnose(batch)
    method.finish(batch)
    for name, x in batch.inputs.items():
        same(x, before.inputs[name], f"inputs '{name}' were changed in place", 0.0)
    for name in ("target", "labelled", "available", "valid"):
        same(getattr(batch, name), getattr(before, name), f"'{name}' was changed in place", 0.0)


# ---- training -------------------------------------------------------------------------------------------------------


def hostile_batches(case: Case) -> dict[str, Batch]:
    """Batches that are rare but happen."""
    batch = case.batch(8, labels="all")
    one_class = batch._replace(target=batch.target[:1].expand_as(batch.target).clone())
    return {
        "no labelled sample": case.batch(8, labels="none"),
        "one class": one_class,
        "one sample": case.batch(1, labels="all"),
        "one sample without a label": case.batch(1, labels="none"),
        "constant inputs": batch._replace(inputs={k: torch.ones_like(x) for k, x in batch.inputs.items()}),
        "inputs of zeros": batch._replace(inputs={k: torch.zeros_like(x) for k, x in batch.inputs.items()}),
        "inputs times 10,000": batch._replace(inputs={k: 1e4 * x for k, x in batch.inputs.items()}),
        "samples that lack modalities": make_batch(batch.inputs, batch.target, available=case.available(8)),
        "no valid row": batch._replace(
            labelled=torch.zeros_like(batch.labelled), valid=torch.zeros_like(batch.valid)
        ),
    }  # fmt: skip


@rule("has a finite loss and gradient on hostile batches", "few", "iterative")
def _hostile(subject: Subject, case: Case) -> None:
    method = subject.build(case)
    for stage in method.stages():
        enter(method.eval(), stage, case.batch())
        for kind, batch in hostile_batches(case).items():
            for name, value in method.train().loss(batch).items():
                finite(value, f"{kind}: loss '{name}'")
            for name, value in gradients(method, batch).items():
                finite(value, f"{kind}: gradient of '{name}'")


@rule("moves every parameter it does not declare untrained", "all", "iterative")
def _reaches(subject: Subject, case: Case) -> None:
    method = subject.build(case)
    declared = method.untrained()
    names = [name for name, _ in method.named_parameters()]
    fixed = {name for name in names if any(name == prefix or name.startswith(f"{prefix}.") for prefix in declared)}
    batch = case.batch(33)  # 17 labelled: with an even number the signs of an L1 loss may cancel at a bias
    moved: set[str] = set()
    for stage in method.stages():
        enter(method.eval(), stage, batch)
        wanted, reached = set(trained(method, stage)), set[str]()
        for step in range(8):  # a method that drops modalities by chance may need more than one batch
            noise = row_keys(0, step, 33)
            given = gradients(method, batch._replace(noise=noise, progress=torch.full((33,), step / 8)))
            reached |= {name for name, g in given.items() if g.abs().sum() > 0}
            if wanted <= reached | moved | fixed:
                break
        moved |= reached & wanted
    for name in names:
        if name not in moved | fixed:
            raise Broken(f"no gradient reaches parameter '{name}'; if that is meant, name it in `untrained`")
        if name in moved & fixed:
            raise Broken(f"`untrained` names '{name}', but the loss moves it")


@rule("tells truly whether it needs labels", "few", "iterative")
def _needs_labels(subject: Subject, case: Case) -> None:
    method, batch = subject.build(case), case.batch(labels="none")
    for stage in method.stages():
        enter(method.eval(), stage, batch)
        names = trained(method, stage)
        drawn = (batch._replace(noise=row_keys(0, step, len(batch.target))) for step in range(8))
        given = (gradients(method, each) for each in drawn)
        moved = any(bool(by_name[name].abs().sum() > 0) for by_name in given for name in names)
        when = f" in stage '{stage.name}'" if len(method.stages()) > 1 else ""
        if moved and method.needs_labels:
            raise Broken(
                f"`needs_labels` is True{when}, but a batch without labels has a gradient, which training would skip"
            )
        if not moved and not method.needs_labels:
            raise Broken(f"a batch without labels has no gradient{when}, so `needs_labels` must be True")


def learnable(case: Case) -> Batch:
    """32 labelled samples whose target is a linear function of all inputs, or what they mean, together."""
    batch = case.batch(32, labels="all")
    draw = generator("contract", "signal", str(case))
    flat = torch.cat([case.meaning(name, x).flatten(1) for name, x in batch.inputs.items()], dim=1)  # (B, features)
    mixing = torch.from_numpy(draw.standard_normal((flat.shape[1], case.task.width), dtype=np.float32))
    score = flat @ mixing / flat.shape[1] ** 0.5  # (B, W), about normal
    if isinstance(case.task, MultiLabel):
        return batch._replace(target=(score > 0).float())
    return batch._replace(target=score.argmax(1) if isinstance(case.task, MultiClass) else score[:, 0].clamp(-3, 3))


@rule("fits 32 samples", "few", "iterative")
def _learns(subject: Subject, case: Case) -> None:
    batch = learnable(case)
    constant = case.task.constant_output(batch.target, batch.labelled).expand(32, -1)
    floor = float(case.task.loss(constant, batch.target, batch.labelled))
    reached = float("inf")
    for lr in (3e-3, 1e-3):  # the larger one is quicker, but too large for some
        for fitted in fitting(subject.build(case), batch, lr):
            with torch.no_grad():
                reached = float(case.task.loss(fitted.predict(batch), batch.target, batch.labelled))
            if reached < 0.5 * floor:
                return
    raise Broken(f"after 400 steps on 32 labelled samples its loss is {reached:.3g}; a constant has {floor:.3g}")


def fitting(method: Method, batch: Batch, lr: float) -> Iterator[Method]:
    """The method as finished after every 20 of 400 steps of Adam; those that hide modalities by chance need some.

    A method with several stages gets 400 steps for each, and is looked at in the last.
    """
    stages = method.stages()
    for stage in stages:
        enter(method.eval(), stage, batch)
        names = set(trained(method, stage))
        optimiser = torch.optim.Adam([p for name, p in method.named_parameters() if name in names], lr=lr, fused=True)
        for step in range(400):
            method.zero_grad()
            rows = len(batch.target)
            drawn = batch._replace(noise=row_keys(0, step, rows), progress=torch.full((rows,), step / 400))
            total(method.train().loss(drawn)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if stage is stages[-1] and step % 20 == 19:
                fitted = copy.deepcopy(method).eval()
                fitted.finish(batch)
                yield fitted


@rule("draws no random numbers of its own", "few", "stackable")
def _no_noise(subject: Subject, case: Case) -> None:
    method, batch = subject.finished(case), case.batch()
    first = every_answer(method, batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("contract", "elsewhere"))
        before = torch.random.get_rng_state()
        second = every_answer(method, batch)
        if not torch.equal(before, torch.random.get_rng_state()):
            raise Broken("it draws from torch's global generator")
    for name, value in first.items():
        same(second[name], value, f"{name} differs from call to call", 0.0)


@rule("computes where its batch is", "few", "stackable")
def _device(subject: Subject, case: Case) -> None:
    """On the `meta` device, which has shapes but no values: tensors made elsewhere, or looked into, fail there."""
    batch = case.batch(labels="none")
    there = Batch(
        {name: x.to("meta") for name, x in batch.inputs.items()}, *(column.to("meta") for column in batch[1:])
    )
    for name, value in every_answer(subject.build(case).to("meta"), there).items():
        if value.device.type != "meta":
            raise Broken(f"{name} is on another device ({value.device.type}) than the batch")


@rule("gives equal numbers for equal seeds, others for others", "one")
def _seeds(subject: Subject, case: Case) -> None:
    batch = case.batch()
    ours, again, other = (subject.build(case, seed).state_dict() for seed in (0, 0, 1))
    for name, value in ours.items():
        same(again[name], value, f"initial '{name}' differs between equal seeds", 0.0)
    named = [name for name, _ in subject.build(case).named_parameters()]
    if named and all(torch.equal(ours[name], other[name]) for name in named):
        raise Broken("the initial weights do not depend on the seed")
    answers = [every_answer(subject.build(case), batch) for _ in range(2)]
    for name, value in answers[0].items():
        same(answers[1][name], value, f"{name} differs between equal seeds", 0.0)


@rule("is saved and restored", "few")
def _restores(subject: Subject, case: Case) -> None:
    method, batch = subject.finished(case), case.batch()
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    restored = subject.build(case, seed=1)
    restored.load_state_dict(torch.load(file, weights_only=True))
    restored.stage = method.stage  # of a state, whoever saved it knows how far training was
    answers = every_answer(restored, batch)
    for name, value in every_answer(method, batch).items():
        same(answers[name], value, f"{name} differs after saving and restoring", 0.0)


# ---- stacks ---------------------------------------------------------------------------------------------------------


def stacked(batches: list[Batch]) -> Batch:
    """Equal-shaped batches as one, with a leading axis of replicas."""
    inputs = {name: torch.stack([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    return Batch(inputs, *(torch.stack(column) for column in list(zip(*batches, strict=True))[1:]))


@rule("trains in a stack as it trains alone", "few", "stackable", "iterative")
def _stacks(subject: Subject, case: Case) -> None:
    replicas = [subject.build(case, seed) for seed in range(3)]
    batches = [case.batch(12, seed=seed, labels=labels) for seed, labels in enumerate(("all", "half", "none"))]  # type: ignore[arg-type]
    for stage in replicas[0].stages():
        for replica in replicas:
            enter(replica.eval(), stage, case.batch())
            replica.train()
        parameters, buffers = stack_module_state(replicas)
        alone = replicas[0]

        def loss(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch, alone: Method = alone
        ) -> Tensor:
            return total(functional_call(alone, (parameters, buffers), ("loss", batch)))

        together = vmap(grad(loss))(parameters, buffers, stacked(batches))
        for k, (replica, batch) in enumerate(zip(replicas, batches, strict=True)):
            for name, value in gradients(replica, batch).items():
                same(together[name][k], value, f"the gradient of '{name}' differs between a stack and alone")


@rule("predicts in a stack as it predicts alone", "few", "stackable")
def _stack_predicts(subject: Subject, case: Case) -> None:
    replicas = [subject.finished(case, seed) for seed in range(3)]
    batch = case.batch(12, labels="none")
    batch = make_batch(batch.inputs, batch.target, available=case.available(12), labelled=batch.labelled)
    parameters, buffers = stack_module_state(replicas)
    alone = replicas[0]

    def predict(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(alone, (parameters, buffers), ("predict", batch))  # type: ignore[no-any-return]

    with torch.no_grad():
        together = vmap(predict, randomness="error")(parameters, buffers)
        for replica, output in zip(replicas, together, strict=True):
            same(output, replica.predict(batch), "predict differs between a stack and alone")
