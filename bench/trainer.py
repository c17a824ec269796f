"""Train one training, evaluate it under every condition. Torch and NumPy only: no tracking, no files.

Shapes: N samples, B batch, M modalities, S modality subsets, W task width.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.arrays import PSEUDO_EPOCH
from bench.plan import Training
from datasets.base import Data, DataSpec, Part
from datasets.batch import Batch, make_batch
from datasets.corruption import Corruption, condition, corrupted, split_condition
from datasets.errors import UserError
from datasets.labels import label_mask, label_warning
from datasets.missing import training_availability
from datasets.seeds import generator, seed_of
from datasets.tasks import masked_mean
from methods.base import Method, Stage
from methods.noise import row_keys
from methods.registry import METHODS

EVALUATION_ROWS = 8192
"""Rows of one evaluation pass: several modality subsets of a small split go through the model together."""

Row = dict[str, float]


class TrainingFailed(UserError):
    """A training that cannot go on; the message is the reason shown beside it."""

    exit_code = 1


@dataclass
class Result:
    """What one training gave."""

    curves: list[Row]
    """One row an epoch: mean loss terms, validation metrics, diagnostics, `time_ms`."""
    cells: dict[str, dict[str, Row]]
    """Condition -> checkpoint (`last`, `best`) -> test metrics."""
    best_epoch: int
    """1-based; 0 for a method without epochs."""
    warning: str | None
    """What a person should know about the labels, if anything."""
    cost: Row
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What the grid keeps, see `bench.arrays`."""


@dataclass(frozen=True)
class Resident:
    """One split on the device: gathered by index, never copied again."""

    inputs: Mapping[str, Tensor]
    target: Tensor
    truth: NDArray[Any]
    """The target as NumPy, for the metrics."""

    def __len__(self) -> int:
        return len(self.target)

    def batch(self, index: Tensor, **more: Any) -> Batch:
        """The samples `index` (B,) as a batch; `more` as `make_batch` takes it."""
        return make_batch({name: x[index] for name, x in self.inputs.items()}, self.target[index], **more)


def resident(part: Part, device: str) -> Resident:
    """Move a split to the device."""
    inputs = {name: torch.as_tensor(np.ascontiguousarray(x), device=device) for name, x in part.inputs.items()}
    return Resident(inputs, torch.as_tensor(np.ascontiguousarray(part.target), device=device), part.target)


def build(training: Training, spec: DataSpec) -> Method:
    """The method with its initial weights, which depend on method, data set, label ratio and seed alone."""
    cls = METHODS.get(training.method.name)
    seed = seed_of("weights", training.method.name, spec.fingerprint, training.label_ratio, training.seed)
    with torch.random.fork_rng(devices=[]):  # nn.Module initialisers know only the global generator
        torch.manual_seed(seed)
        return cls(spec.modalities, spec.task, training.method.config)


def subset_masks(spec: DataSpec, subsets: Sequence[str], device: str) -> Tensor:
    """(S, M) bool: which modalities each subset holds."""
    members = [set(subset.split("+")) for subset in subsets]
    return torch.tensor([[name in member for name in spec.modalities] for member in members], device=device)


def selection_subsets(spec: DataSpec) -> list[str]:
    """The subsets whose mean validation score selects the best epoch: each modality alone, and all together.

    Always these, whatever the grid evaluates, so that the choice does not depend on what was asked for; linear
    in M, and for two modalities all there are.
    """
    return list(dict.fromkeys([*spec.modalities, spec.full]))


def stage_epochs(method: Method, epochs: int) -> list[tuple[Stage, int]]:
    """The stages of a method and how many of the epochs each gets, at least one.

    Raises:
        TrainingFailed: there are more stages than epochs.
    """
    stages = method.stages()
    if len(stages) > epochs:
        raise TrainingFailed(
            f"{method.name} trains in {len(stages)} stages ({', '.join(stage.name for stage in stages)}), "
            f"one epoch each at least, but train.epochs is {epochs}"
        )
    ends = [0]
    for i in range(1, len(stages) + 1):
        end = round(epochs * sum(stage.share for stage in stages[:i]))
        ends.append(min(max(end, ends[-1] + 1), epochs - (len(stages) - i)))
    return [(stage, end - start) for stage, start, end in zip(stages, ends, ends[1:], strict=False)]


def shows(embedding: str, subset: str) -> bool:
    """Whether a modality subset shows an embedding: the fused one, and those of the modalities it holds."""
    _, _, modality = embedding.partition("/")
    return not modality or modality in subset.split("+")


def gradient_norm(module: nn.Module) -> Tensor:
    """Norm of all gradients of a module, scalar; 0 where nothing has a gradient."""
    norms = [p.grad.norm() for p in module.parameters() if p.grad is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


class Trainer:
    """One training from initial weights to test metrics."""

    def __init__(self, training: Training, data: Data, device: str = "cpu") -> None:
        self.training, self.spec, self.device = training, data.spec, device
        self.task = data.spec.task
        self.settings = training.settings
        self.data = data
        self.parts = {name: resident(data.parts[name], device) for name in ("train", "valid")}
        self.labelled = torch.as_tensor(self._label_mask(), device=device)
        self.arrays: dict[str, NDArray[Any]] = {}
        self.available = torch.as_tensor(self._availability(), device=device)
        self.method = build(training, data.spec).to(device)
        self.learnable = {name for name, p in self.method.named_parameters() if p.requires_grad}
        self.noise_seed = seed_of("noise", self.spec.fingerprint, training.label_ratio, training.seed)
        self.batch_size = min(self.settings.batch_size, len(self.parts["train"]))
        self.steps = len(self.parts["train"]) // self.batch_size

    def _label_mask(self) -> NDArray[np.bool_]:
        """Which training labels are visible; sets `warning` where classes get more than their share."""
        groups = self.task.groups(torch.as_tensor(np.ascontiguousarray(self.parts["train"].truth))).numpy()
        ratio, one_each = self.training.label_ratio, self.task.kind != "multilabel"
        self.warning = label_warning(groups, ratio) if one_each else None
        return label_mask(groups, ratio, dataset=self.spec.fingerprint, seed=self.training.seed, at_least_one=one_each)

    def _availability(self) -> NDArray[np.bool_]:
        """Which modalities each training sample has, (N, M)."""
        n, rate = len(self.parts["train"]), self.settings.missing_rate
        return training_availability(
            n, tuple(self.spec.modalities), rate, dataset=self.spec.fingerprint, seed=self.training.seed
        )

    # ---- training -----------------------------------------------------------------------------------------

    def run(self, on_epoch: Callable[[int, Row], None] = lambda epoch, row: None) -> Result:
        """Train, select, evaluate.

        Args:
            on_epoch: called after each epoch with its number (from 1) and its row of the curves.

        Raises:
            TrainingFailed: the loss is no longer finite, or no label is left to learn from.
        """
        if not self.labelled.any():
            raise TrainingFailed(
                f"label ratio {self.training.label_ratio:g} leaves no label among {len(self.labelled)} training samples"
            )
        started = time.perf_counter()
        curves: list[Row] = []
        best, best_epoch, best_state = -np.inf, 0, None
        last_stage = self.method.stages()[-1].name
        for epoch, row in enumerate(self._epochs(), start=1):
            curves.append(row)
            on_epoch(epoch, row)
            if self.method.stage != last_stage:
                continue
            score = row["valid/score"] if np.isfinite(row["valid/score"]) else -np.inf
            if score > best or best_state is None:
                best, best_epoch = score, epoch
                best_state = {key: value.clone() for key, value in self.method.state_dict().items()}
        trained_s = time.perf_counter() - started
        cells = self._evaluate(best_state if best_epoch != len(curves) else None)
        cost = self._cost(trained_s, time.perf_counter() - started)
        return Result(curves, cells, best_epoch, self.warning, cost, self.arrays)

    def _epochs(self) -> Iterator[Row]:
        """Train stage by stage and epoch by epoch, yielding each epoch's row."""
        if not self.method.iterative:
            return
        order = generator("order", self.spec.fingerprint, self.training.label_ratio, self.training.seed)
        epoch = 0
        for stage, epochs in stage_epochs(self.method, self.settings.epochs):
            optimiser = self._enter(stage)
            plateau = (
                torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, patience=20, factor=0.1)
                if self.settings.schedule == "plateau"
                else None
            )
            for done in range(epochs):
                row = self._train_epoch(epoch, (done / epochs, (done + 1) / epochs), optimiser, order)
                row |= self._validate()
                if plateau is not None:
                    row["valid/loss"] = self._validation_loss()
                    row["lr"] = optimiser.param_groups[0]["lr"]
                    plateau.step(row["valid/loss"])
                row["time_ms"] = float(int(time.time() * 1000))
                epoch += 1
                yield row

    def _enter(self, stage: Stage) -> torch.optim.Optimizer:
        """Begin a stage: the method does what comes before it, an optimiser takes the parameters it trains."""
        self.method.stage = stage.name
        with torch.no_grad():
            self.method.eval().enter(self._whole_training_split())
        for name, parameter in self.method.named_parameters():
            parameter.requires_grad_(name in self.learnable and stage.covers(name))
        trained = [p for p in self.method.parameters() if p.requires_grad]
        return torch.optim.Adam(trained, lr=self.settings.lr, weight_decay=self.settings.weight_decay, fused=True)

    def _train_epoch(
        self, epoch: int, span: tuple[float, float], optimiser: torch.optim.Optimizer, order: np.random.Generator
    ) -> Row:
        """One pass; the loss terms stay on the device until its end.

        Args:
            epoch: how many came before it.
            span: progress of the stage at its start and at its end.
        """
        self.method.train()
        sums: dict[str, Tensor] = {}
        has_labels = self.labelled.cpu()
        looked_at = "pseudo_labels" in self.training.save.what and epoch + 1 == self._pseudo_epoch()
        pairs: list[dict[str, Tensor]] = []
        for step, index in enumerate(self._batches(order)):
            on_device = index.to(self.device)
            noise = row_keys(self.noise_seed, epoch * self.steps + step, len(index), self.device)
            masks = {"labelled": self.labelled[on_device], "available": self.available[on_device]}
            progress = span[0] + (span[1] - span[0]) * step / self.steps
            batch = self.parts["train"].batch(on_device, noise=noise, progress=progress, **masks)
            if looked_at:
                pairs.append(self._pairs(batch, on_device))
            terms = self.method.loss(batch)
            for name, term in terms.items():
                sums[name] = sums.get(name, 0.0) + term.detach()
            if self.method.needs_labels and not has_labels[index].any():
                continue  # a step without a gradient would still move the weights by momentum
            optimiser.zero_grad()
            total = torch.stack(list(terms.values())).sum()
            total.backward()  # type: ignore[no-untyped-call]
            if self.settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.method.parameters(), self.settings.clip_norm)
            optimiser.step()
        if pairs and pairs[0]:
            named = {name: torch.stack([pair[name] for pair in pairs]).cpu().numpy() for name in pairs[0]}
            self.arrays |= {f"pseudo/{epoch + 1}/{name}": array for name, array in named.items()}
        means = {name: float(value) / self.steps for name, value in sums.items()}
        broken = [name for name, value in means.items() if not np.isfinite(value)]
        if broken:
            raise TrainingFailed(f"loss term '{broken[0]}' became {means[broken[0]]} in epoch {epoch + 1}")
        row = {"train/loss": sum(means.values())} | {f"train/{name}": value for name, value in means.items()}
        return row | self._diagnose(batch, on_device)

    @torch.no_grad()
    def _diagnose(self, batch: Batch, index: Tensor) -> Row:
        """What tells whether training is healthy, on the epoch's last batch: gradient norms, the method's own signs,
        and how often the method's pseudo-labels are right where the label is hidden (`index` finds the truth)."""
        told = {f"gradient/{name}": gradient_norm(module) for name, module in self.method.named_children()}
        self.method.eval()
        told |= {f"diagnose/{name}": value for name, value in self.method.diagnose(batch).items()}
        if self.method.pseudo_labels and not batch.labelled.all():
            guess = self.task.pseudo_groups(self.method.predict(batch))
            right = guess == self.task.groups(self.parts["train"].target[index])
            told["diagnose/pseudo_label_accuracy"] = masked_mean(right.float(), ~batch.labelled)
        return {name: float(value) for name, value in told.items()}

    def _pseudo_epoch(self) -> int:
        return min(PSEUDO_EPOCH, self.settings.epochs)

    @torch.no_grad()
    def _pairs(self, batch: Batch, index: Tensor) -> dict[str, Tensor]:
        """The pairs a method weighs by pseudo-labels in a step, with the truth; empty where it has none."""
        pairs = self.method.weighted_pairs(batch)
        truth = self.task.groups(self.parts["train"].target[index])
        return pairs | {"true": truth, "labelled": batch.labelled} if pairs else {}

    def _batches(self, order: np.random.Generator) -> Iterator[Tensor]:
        """Index tensors (B,) of one epoch; the incomplete last batch is dropped, every method gets equal steps."""
        size, n = self.batch_size, self.steps * self.batch_size
        labelled = self.labelled.cpu().numpy()
        if self.settings.label_sampler == "labelled_only":
            pool = np.flatnonzero(labelled)
            index = np.concatenate([order.permutation(pool) for _ in range(-(-n // len(pool)))])[:n]
        else:
            index = order.permutation(len(labelled))[:n]
        batches = index.reshape(self.steps, size)
        if self.settings.label_sampler == "stratified":
            without = np.flatnonzero(~labelled[batches].any(axis=1))
            pool = order.permutation(np.flatnonzero(labelled))
            batches[without, 0] = pool[np.arange(len(without)) % len(pool)]
        yield from torch.as_tensor(batches)

    # ---- evaluation ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def outputs(self, part: Resident, masks: Tensor) -> NDArray[np.float32]:
        """Raw outputs of the method for every subset, masks (S, M) -> (S, N, W)."""
        self.method.eval()
        n, rows = len(part), len(masks) * len(part)
        chunks = []
        for start in range(0, rows, EVALUATION_ROWS):
            row = torch.arange(start, min(start + EVALUATION_ROWS, rows), device=self.device)
            batch = part.batch(row % n, available=masks[row // n], labelled=torch.zeros_like(row, dtype=torch.bool))
            chunks.append(self.method.predict(batch))
        return torch.cat(chunks).reshape(len(masks), n, -1).cpu().numpy()

    @torch.no_grad()
    def embeddings(self, part: Resident, available: Tensor) -> dict[str, NDArray[np.float32]]:
        """The representations of a split under one modality subset, (M,) bool -> name -> (N, d)."""
        self.method.eval()
        chunks = []
        for rows in torch.split(torch.arange(len(part), device=self.device), EVALUATION_ROWS):
            nothing = torch.zeros_like(rows, dtype=torch.bool)
            chunks.append(
                self.method.embed(part.batch(rows, available=available.expand(len(rows), -1), labelled=nothing))
            )
        return {name: torch.cat([chunk[name] for chunk in chunks]).cpu().numpy() for name in chunks[0]}

    def _finite_outputs(self, part: Resident, subsets: list[str]) -> NDArray[np.float32]:
        """Outputs of a split on each of S modality subsets, (S, N, W).

        Raises:
            TrainingFailed: a prediction is not finite.
        """
        outputs = self.outputs(part, subset_masks(self.spec, subsets, self.device))
        for subset, output in zip(subsets, outputs, strict=True):
            if not np.isfinite(output).all():
                raise TrainingFailed(f"the predictions for '{subset}' are not finite")
        return outputs

    def _validate(self) -> Row:
        """Validation metrics of the full set, and `valid/score`: the primary metric over `selection_subsets`,
        averaged, its sign turned so that higher is better; NaN, which never wins, where a metric is undefined."""
        subsets, part = selection_subsets(self.spec), self.parts["valid"]
        outputs = self._finite_outputs(part, subsets)
        scores = {subset: self.task.evaluate(out, part.truth) for subset, out in zip(subsets, outputs, strict=True)}
        sign = 1.0 if self.task.metrics[self.task.primary] else -1.0
        row = {f"valid/{name}": value for name, value in scores[self.spec.full].items()}
        return row | {"valid/score": float(np.mean([sign * row[self.task.primary] for row in scores.values()]))}

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Total loss on the validation split in batches of the training's size (contrastive terms depend on it)."""
        self.method.eval()
        part, losses = self.parts["valid"], []
        for start in range(0, len(part), self.batch_size):
            index = torch.arange(start, min(start + self.batch_size, len(part)), device=self.device)
            losses.append(sum(self.method.loss(part.batch(index)).values(), torch.zeros((), device=self.device)))
        return float(torch.stack(losses).mean())

    def _evaluate(self, best_state: Mapping[str, Tensor] | None) -> dict[str, dict[str, Row]]:
        """Test metrics at the last epoch and at the best validation epoch (`None`: they are the same)."""
        checkpoint = self.training.save.checkpoint
        last = self._finished_scores(keep=checkpoint == "last" or best_state is None)
        best = last
        if best_state is not None:
            self.method.load_state_dict(best_state)
            best = self._finished_scores(keep=checkpoint == "best")
        return {name: {"last": last[name], "best": best[name]} for name in self.training.conditions}

    def _finished_scores(self, *, keep: bool) -> dict[str, Row]:
        """Test metrics under every condition.

        Args:
            keep: whether these are the weights whose arrays the grid asks for.
        """
        self.method.finish(self._whole_training_split())
        asked: dict[Corruption, list[str]] = {}
        for subset, corruption in map(split_condition, self.training.conditions):
            asked.setdefault(corruption, []).append(subset)
        scores: dict[str, Row] = {}
        for corruption, subsets in asked.items():
            part = resident(corrupted(self.data, self.data.parts["test"], corruption), self.device)
            outputs = self._finite_outputs(part, subsets)
            names = [condition(subset, corruption) for subset in subsets]
            rows = (self.task.evaluate(output, part.truth) for output in outputs)
            scores |= dict(zip(names, rows, strict=True))
            if keep:
                self._keep(part, dict(zip(names, outputs, strict=True)), subsets if not corruption.steps else [])
        return scores

    def _keep(self, part: Resident, outputs: Mapping[str, NDArray[np.float32]], clean: list[str]) -> None:
        """Put into `arrays` what the grid asks for of one test split: predictions, and embeddings where it is clean."""
        what = self.training.save.what
        if "predictions" in what:
            self.arrays |= {f"prediction/{name}": output for name, output in outputs.items()}
        if "embeddings" in what:
            for subset in clean:
                embedded = self.embeddings(part, subset_masks(self.spec, [subset], self.device)[0])
                self.arrays |= {f"embedding/{subset}/{name}": x for name, x in embedded.items() if shows(name, subset)}
        if {"predictions", "embeddings"} & set(what):
            self.arrays |= {"target": part.truth, "group": self.task.groups(part.target).cpu().numpy()}

    def _whole_training_split(self) -> Batch:
        """All training samples as one batch, with the labels and modalities training sees."""
        everything = torch.arange(len(self.labelled), device=self.device)
        return self.parts["train"].batch(everything, labelled=self.labelled, available=self.available)

    def _cost(self, trained_s: float, total_s: float) -> Row:
        """Seconds, parameters, and the highest memory use so far (of the process on a CPU) in MiB."""
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if self.device.startswith("cuda"):
            peak = torch.cuda.max_memory_allocated(self.device)
        epochs = self.settings.epochs if self.method.iterative else 0
        return {
            "train_s": trained_s,
            "wall_s": total_s,
            "step_ms": 1000 * trained_s / max(self.steps * epochs, 1),
            "parameters": float(sum(p.numel() for p in self.method.parameters())),
            "peak_mib": peak / 2**20,
        }
