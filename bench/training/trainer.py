"""Train trainings of equal shape as one, evaluate each under every condition. Torch and NumPy only, no files.

Shapes: K replicas, N samples, B batch, M modalities, S modality subsets, W task width.
"""

import resource
import sys
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils._pytree import tree_map

from bench.arrays import PSEUDO_EPOCH
from bench.grid.plan import Training
from bench.training.captured import Captured, recorder_of
from bench.training.evaluation import (
    Asked,
    Resident,
    batches,
    corrupted_resident,
    corruptions_at_once,
    outputs_one_by_one,
    outputs_together,
    resident,
    subset_masks,
)
from bench.training.replica import Replica, Row, TrainingFailed, draw_batches, make_replica
from bench.training.replicas import make_replicas, train_mode
from datasets.base import Data, DataSpec, Split
from datasets.batch import Batch
from datasets.corruption import Corruption, condition, split_condition
from datasets.tasks import masked_mean
from methods.base import Method, Stage
from methods.noise import step_keys

PATIENCE, FACTOR = 20, 0.1
"""Of `schedule: plateau`: epochs without a better validation loss, and what the rate is then multiplied by."""


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
    """What a person should know about the labels, or about steps that cannot be captured, if anything."""
    cost: Row
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What the grid keeps, see `bench.arrays`."""


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


OnEpoch = Callable[[Training, int, Row], None]
OnStep = Callable[[], None]


def train(training: Training, data: Data, device: str = "cpu") -> Result:
    """One training from initial weights to test metrics.

    Raises:
        TrainingFailed: the loss is no longer finite, or no label is left to learn from.
    """
    (result,) = Trainer([training], data, device).run()
    if isinstance(result, TrainingFailed):
        raise result
    return result


class Trainer:
    """Trainings of one method, data set and train settings, from initial weights to test metrics, all at once."""

    def __init__(
        self,
        trainings: Sequence[Training],
        data: Data,
        device: str = "cpu",
        on_step: OnStep = lambda: None,
        split: Split = "test",
        *,
        capture: bool = False,
    ) -> None:
        """Build the replicas.

        Args:
            trainings: K that may share a stack (`bench.scheduling.stacks`), or one.
            data: what they are trained on.
            device: of all tensors.
            on_step: called after every step of training or evaluation, as a sign of life.
            split: what the cells are evaluated on; a search looks at `valid` alone.
            capture: replay steps from a CUDA graph where that is quicker; a CPU has none.
        """
        self.spec, self.task, self.data, self.device = data.spec, data.spec.task, data, device
        self.on_step, self.split = on_step, split
        self.settings = trainings[0].settings
        self.parts = {name: resident(data.parts[name], device) for name in ("train", "valid")}
        self.replicas = [make_replica(training, data.spec, data.parts["train"], device) for training in trainings]
        self.asked = list(self.replicas)
        """All of them, those included that were dropped on the way."""
        self.methods = [replica.method for replica in self.replicas]
        self.models = make_replicas(self.methods, self.settings)
        if capture and (recorder := recorder_of(device)) is not None:
            self.models = Captured(self.models, recorder)
        self.labelled = torch.as_tensor(np.stack([r.labelled for r in self.replicas]), device=device)  # (K, N)
        self.available = torch.as_tensor(np.stack([r.available for r in self.replicas]), device=device)  # (K, N, M)
        self.batch_size = min(self.settings.batch_size, len(self.parts["train"]))
        self.steps = len(self.parts["train"]) // self.batch_size
        self.together = True
        """Whether several conditions can be evaluated in one pass, until a method proves otherwise."""
        self.trained_s = 0.0
        """Seconds of all epochs so far."""

    @property
    def running(self) -> list[Replica]:
        """The replicas that have not failed."""
        return [replica for replica in self.replicas if replica.failure is None]

    # ---- training -----------------------------------------------------------------------------------------

    def run(self, on_epoch: OnEpoch = lambda training, epoch, row: None) -> list[Result | TrainingFailed]:
        """Train, select, evaluate.

        Args:
            on_epoch: called for each training after each epoch with its number (from 1) and its row of the curves.

        Returns:
            For each training its result, or why it failed: a loss that is no longer finite, or no label to learn from.
        """
        try:
            for epoch, rows in enumerate(self.epochs(), start=1):
                for replica, row in rows:
                    on_epoch(replica.training, epoch, row)
            return self.results()
        except TrainingFailed as failure:  # of all of them alike
            return [failure for _ in self.asked]

    def results(self) -> list[Result | TrainingFailed]:
        """What each training gave, or why it failed, once `epochs` has ended; the cells are evaluated here."""
        trained_s = self.trained_s
        started = time.perf_counter()
        if self.running:
            self._evaluate()
        cost = self._cost(trained_s, trained_s + time.perf_counter() - started)
        return [
            replica.failure or Result(
                replica.curves, replica.cells, replica.best_epoch, self._warning(replica), cost, replica.arrays
            )
            for replica in self.asked
        ]  # fmt: skip

    def _warning(self, replica: Replica) -> str | None:
        why_not = self.models.why_not if isinstance(self.models, Captured) else None
        return "; ".join(text for text in (replica.warning, why_not) if text) or None

    def drop(self, training_ids: Container[str], why: str) -> None:
        """Let trainings go between two epochs: they fail with this reason, and cost nothing from then on."""
        for replica in self.replicas:
            if replica.training.id in training_ids and replica.failure is None:
                replica.failure = TrainingFailed(why)
        kept = [k for k, replica in enumerate(self.replicas) if replica.failure is None]
        if kept and len(kept) < len(self.replicas):
            self.models.keep(kept)
            self.replicas = [self.replicas[k] for k in kept]
            self.methods = [replica.method for replica in self.replicas]
            self.labelled, self.available = self.labelled[kept], self.available[kept]

    def epochs(self) -> Iterator[list[tuple[Replica, Row]]]:
        """Train stage by stage and epoch by epoch, yielding each epoch's rows of the replicas that go on."""
        if not self.methods[0].iterative:
            return
        epoch, stages = 0, stage_epochs(self.methods[0], self.settings.epochs)
        for stage, epochs in stages:
            self._enter(stage)
            self._begin_schedule()
            for done in range(epochs):
                if not self.running:
                    return
                started = time.perf_counter()
                rows = self._train_epoch(epoch, (done / epochs, (done + 1) / epochs))
                rows = [row | valid for row, valid in zip(rows, self._validate(), strict=True)]
                if self.settings.schedule == "plateau":
                    self._adapt(rows)
                epoch += 1
                self.trained_s += time.perf_counter() - started
                yield list(self._told(rows, last=stage is stages[-1][0]))

    def _told(self, rows: list[Row], *, last: bool) -> Iterator[tuple[Replica, Row]]:
        """Put an epoch's rows into the curves of the replicas that go on; in the last stage, select."""
        for replica, row in zip(self.replicas, rows, strict=True):
            if replica.failure is None:
                row["time_ms"] = float(int(time.time() * 1000))
                replica.curves.append(row)
                if last:
                    replica.look(row)
                yield replica, row

    def _enter(self, stage: Stage) -> None:
        """Begin a stage: each method does what comes before it, an optimiser takes the parameters it trains."""
        for k, method in enumerate(self.methods):
            method.stage = stage.name
            with torch.no_grad():
                method.eval().enter(self._whole_training_split(k))
        self.models.refresh()
        self.models.begin(stage)

    def _begin_schedule(self) -> None:
        """A learning rate for each replica, which follows its own validation loss."""
        for replica in self.replicas:
            # A scheduler wants an optimiser: this one holds the rate and nothing else.
            holder = torch.optim.SGD([torch.zeros(())], lr=self.settings.lr)
            replica.schedule = ReduceLROnPlateau(holder, patience=PATIENCE, factor=FACTOR)

    def _adapt(self, rows: list[Row]) -> None:
        """Note each replica's validation loss and rate, and let the rate follow the loss."""
        for replica, row, loss in zip(self.replicas, rows, self._validation_losses(), strict=True):
            row["valid/loss"], row["lr"] = loss, replica.rate
            replica.schedule.step(loss)
        self.models.set_rates([replica.rate for replica in self.replicas])

    def _train_epoch(self, epoch: int, span: tuple[float, float]) -> list[Row]:
        """One pass; the loss terms stay on the device until its end.

        Args:
            epoch: how many came before it.
            span: progress of the stage at its start and at its end.

        Returns:
            A row for each replica; one whose loss is not finite has failed.
        """
        train_mode(self.methods, True)
        drawn = np.stack(
            [draw_batches(replica, self.steps, self.batch_size) for replica in self.replicas]
        )  # (K, steps, B)
        index, moves = torch.as_tensor(drawn, device=self.device), self._moves(drawn)
        looked_at = "pseudo_labels" in self.replicas[0].training.save.what and epoch + 1 == self._pseudo_epoch()
        noise, progress = self._keys(range(epoch * self.steps, (epoch + 1) * self.steps)), self._progress(span)
        pairs: list[dict[str, Tensor]] = []
        sums: dict[str, Tensor] = {}
        for step in range(self.steps):  # in here the host waits for nothing: everything is on the device already
            batch = self._batch(index[:, step], noise[step], progress[step])
            if looked_at:
                pairs.append(self._pairs(batch, index[:, step]))
            for name, term in self.models.step(batch, moves[:, step]).items():
                sums[name] = sums[name] + term if name in sums else term
            self.on_step()
        if pairs and pairs[0]:
            self._keep_pairs(pairs, epoch + 1)
        means = {name: (total / self.steps).tolist() for name, total in sums.items()}
        rows = [self._checked({name: values[k] for name, values in means.items()}, k, epoch) for k in range(len(drawn))]
        return [row | signs for row, signs in zip(rows, self._diagnose(batch, index[:, -1]), strict=True)]

    def _moves(self, drawn: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which replicas each step moves, (K, steps): one without a gradient would still move weights by momentum."""
        moves = np.ones(drawn.shape[:2], bool)
        for k, replica in enumerate(self.replicas):
            if replica.failure is not None:
                moves[k] = False
            elif replica.method.needs_labels:
                moves[k] = replica.labelled[drawn[k]].any(axis=1)
        return moves

    def _keys(self, steps: range) -> Tensor:
        """Noise keys of the samples of every step, (S, K, B)."""
        return step_keys([replica.noise_seed for replica in self.replicas], steps, self.batch_size, self.device)

    def _progress(self, span: tuple[float, float]) -> Tensor:
        """Progress of the stage at every step of an epoch, (steps,)."""
        share = span[0] + (span[1] - span[0]) * np.arange(self.steps) / self.steps
        return torch.as_tensor(share.astype(np.float32), device=self.device)

    def _batch(self, index: Tensor, noise: Tensor, progress: Tensor) -> Batch:
        """What every replica trains on in a step: samples (K, B) and their noise keys -> a batch of shape (K, B)."""
        k = torch.arange(len(index), device=self.device)[:, None]
        batch = self.parts["train"].batch(
            index.flatten(),
            labelled=self.labelled[k, index].flatten(),
            available=self.available[k, index].flatten(0, 1),
            noise=noise.flatten(),
            progress=progress,
        )
        return tree_map(lambda x: x.reshape(*index.shape, *x.shape[1:]), batch)  # type: ignore[no-any-return]

    def _checked(self, means: Row, k: int, epoch: int) -> Row:
        """The loss terms of a replica as its row of the curves; one that is not finite ends it."""
        broken = next((name for name, value in means.items() if not np.isfinite(value)), None)
        replica = self.replicas[k]
        if broken is not None and replica.failure is None:
            replica.failure = TrainingFailed(f"loss term '{broken}' became {means[broken]} in epoch {epoch + 1}")
        return {"train/loss": sum(means.values())} | {f"train/{name}": value for name, value in means.items()}

    def _diagnose(self, batch: Batch, index: Tensor) -> list[Row]:
        """What tells whether training is healthy, on the epoch's last batch: gradient norms, the method's own signs,
        and how often its pseudo-labels are right where the label is hidden (`index` (K, B) finds the truth)."""
        told = {f"gradient/{name}": norms for name, norms in self.models.gradient_norms().items()}
        train_mode(self.methods, False)
        told |= {f"diagnose/{name}": values for name, values in self.models.each("diagnose", batch).items()}
        rows = [
            {name: float(value) for name, value in zip(told, own, strict=True)}
            for own in zip(*told.values(), strict=True)
        ]
        rows = rows or [{} for _ in self.replicas]
        if self.methods[0].pseudo_labels:
            outputs = self.models.each("predict", batch)
            for row, output, labelled, own in zip(rows, outputs, batch.labelled, index, strict=True):
                if not labelled.all():
                    right = self.task.pseudo_groups(output) == self.task.groups(self.parts["train"].target[own])
                    row["diagnose/pseudo_label_accuracy"] = float(masked_mean(right.float(), ~labelled))
        return rows

    def _pseudo_epoch(self) -> int:
        return min(PSEUDO_EPOCH, self.settings.epochs)

    def _pairs(self, batch: Batch, index: Tensor) -> dict[str, Tensor]:
        """The pairs methods weigh by pseudo-labels in a step, with the truth; empty where they have none."""
        pairs: dict[str, Tensor] = self.models.each("weighted_pairs", batch)
        truth = self.task.groups(self.parts["train"].target[index.flatten()]).reshape(index.shape)
        return pairs | {"true": truth, "labelled": batch.labelled} if pairs else {}

    def _keep_pairs(self, pairs: list[dict[str, Tensor]], epoch: int) -> None:
        for name in pairs[0]:
            stacked = torch.stack([pair[name] for pair in pairs], dim=1).cpu().numpy()  # (K, steps, ...)
            for replica, own in zip(self.replicas, stacked, strict=True):
                replica.arrays[f"pseudo/{epoch}/{name}"] = own

    # ---- evaluation ---------------------------------------------------------------------------------------

    def outputs(self, asked: Sequence[Asked]) -> NDArray[np.float32]:
        """Raw outputs of every replica for each of C conditions on N samples, (K, C, N, W).

        All conditions go through together, so that encoders meet what they share once. A method whose predictions for
        a condition depend on what is then left out goes through condition by condition.
        """
        train_mode(self.methods, False)
        masks = subset_masks(self.spec, [one.subset for one in asked], self.device)
        if self.together:
            outputs = outputs_together(self._predict, len(self.methods), asked, masks)
            if self._is_finite(outputs):
                return outputs
        outputs = outputs_one_by_one(self._predict, asked, masks)
        self.together = self.together and not self._is_finite(outputs)  # weights that diverged say nothing about it
        return outputs

    def _predict(self, batch: Batch) -> Tensor:
        self.on_step()
        return self.models.shared("predict", batch)  # type: ignore[no-any-return]

    def _is_finite(self, outputs: NDArray[np.float32]) -> bool:
        """Whether the outputs (K, ...) of the replicas that go on are."""
        return bool(np.isfinite(outputs[[replica.failure is None for replica in self.replicas]]).all())

    def embeddings(self, part: Resident, available: Tensor) -> dict[str, NDArray[np.float32]]:
        """The representations of a split under one modality subset, (M,) bool -> name -> (K, N, d)."""
        train_mode(self.methods, False)
        chunks = [self.models.shared("embed", batch) for batch in batches(part, available)]
        return {name: torch.cat([chunk[name] for chunk in chunks], dim=1).cpu().numpy() for name in chunks[0]}

    def fusion_weights(self, part: Resident, available: Tensor) -> NDArray[np.float32] | None:
        """Mean over a split of each feature's weights, (M,) bool -> (K, M, D); None where the method has none."""
        train_mode(self.methods, False)
        total: Tensor | None = None
        for batch in batches(part, available):
            told = self.models.shared("fusion_weights", batch)
            if not told:
                return None
            summed = told["weight"].sum(2)  # (K, M, B, D)
            total = summed if total is None else total + summed
        return None if total is None else (total / len(part)).cpu().numpy()

    def validation(self, subsets: list[str]) -> dict[str, dict[str, Row]]:
        """Training id -> modality subset -> validation metrics after this epoch, of the replicas that go on.

        Those of `selection_subsets` are at hand; others are evaluated now.
        """
        known = set(selection_subsets(self.spec))
        if more := [subset for subset in subsets if subset not in known]:
            part = self.parts["valid"]
            outputs_of_all = self._finite_outputs({subset: Asked(part, subset) for subset in more})
            for replica, outputs in zip(self.replicas, outputs_of_all, strict=True):
                if replica.failure is None:
                    rows = (self.task.evaluate(output, part.truth) for output in outputs)
                    replica.validation |= dict(zip(more, rows, strict=True))
        return {r.training.id: {subset: r.validation[subset] for subset in subsets} for r in self.running}

    def _finite_outputs(self, asked: Mapping[str, Asked]) -> NDArray[np.float32]:
        """Outputs under each of C conditions, (K, C, N, W); a replica whose are not finite has failed."""
        outputs = self.outputs(list(asked.values()))
        for replica, own in zip(self.replicas, outputs, strict=True):
            bad = next((name for name, output in zip(asked, own, strict=True) if not np.isfinite(output).all()), None)
            if bad is not None and replica.failure is None:
                replica.failure = TrainingFailed(f"the predictions for '{bad}' are not finite")
        return outputs

    def _validate(self) -> list[Row]:
        """Of each replica the validation metrics of the full set, and `valid/score`: the primary metric over
        `selection_subsets`, averaged, its sign turned so that higher is better; NaN, which never wins, where a metric
        is undefined."""
        subsets, part = selection_subsets(self.spec), self.parts["valid"]
        sign = 1.0 if self.task.metrics[self.task.primary] else -1.0
        rows: list[Row] = []
        outputs_of_all = self._finite_outputs({subset: Asked(part, subset) for subset in subsets})
        for replica, outputs in zip(self.replicas, outputs_of_all, strict=True):
            if replica.failure is not None:
                rows.append({})
                continue
            scores = {subset: self.task.evaluate(out, part.truth) for subset, out in zip(subsets, outputs, strict=True)}
            replica.validation = scores
            row = {f"valid/{name}": value for name, value in scores[self.spec.full].items()}
            rows.append(row | {"valid/score": float(np.mean([sign * s[self.task.primary] for s in scores.values()]))})
        return rows

    def _validation_losses(self) -> list[float]:
        """Each replica's loss on the validation split in batches of the training's size, as contrastive terms depend
        on it."""
        train_mode(self.methods, False)
        part, losses = self.parts["valid"], []
        for start in range(0, len(part), self.batch_size):
            index = torch.arange(start, min(start + self.batch_size, len(part)), device=self.device)
            losses.append(torch.stack(list(self.models.shared("loss", part.batch(index)).values())).sum(0))  # (K,)
        return torch.stack(losses).mean(0).tolist()

    def _evaluate(self) -> None:
        """Metrics of `split` at the last epoch and at the best validation epoch, into `cells`."""
        checkpoint = self.replicas[0].training.save.checkpoint
        better = [r for r in self.running if r.best_state is not None and r.best_epoch != len(r.curves)]
        last = self._finished_scores(
            keep=self.running if checkpoint == "last" else [r for r in self.running if r not in better]
        )
        best = last
        if better:
            for replica in better:
                replica.method.load_state_dict(replica.best_state or {})
            self.models.refresh()
            best = self._finished_scores(keep=better if checkpoint == "best" else [])
        for k, replica in enumerate(self.replicas):
            chosen = best[k] if replica in better else last[k]
            replica.cells = {name: {"last": last[k][name], "best": chosen[name]} for name in last[k]}

    def _finished_scores(self, *, keep: list[Replica]) -> list[dict[str, Row]]:
        """Metrics of `split` of each replica under every condition; none of one that has failed.

        Args:
            keep: the replicas for which these are the weights whose arrays the grid asks for.
        """
        for k, method in enumerate(self.methods):
            method.eval().finish(self._whole_training_split(k))
        self.models.refresh()
        subsets: dict[Corruption, list[str]] = {}
        for subset, corruption in map(split_condition, self.replicas[0].training.conditions):
            subsets.setdefault(corruption, []).append(subset)
        scores: list[dict[str, Row]] = [{} for _ in self.replicas]
        clean = resident(self.data.parts[self.split], self.device)
        for corruptions in corruptions_at_once(self.data.parts[self.split], list(subsets)):
            parts = {c: corrupted_resident(self.data, self.split, c, clean, self.device) for c in corruptions}
            asked = {condition(s, c): Asked(parts[c], s) for c in corruptions for s in subsets[c]}
            outputs = self._finite_outputs(asked)
            for k, replica in enumerate(self.replicas):
                if replica.failure is None:
                    scores[k] |= {
                        name: self.task.evaluate(output, clean.truth)
                        for name, output in zip(asked, outputs[k], strict=True)
                    }
            if keep and self.replicas[0].training.save.what:
                for corruption in corruptions:
                    names = {condition(s, corruption) for s in subsets[corruption]}
                    told = {name: outputs[:, i] for i, name in enumerate(asked) if name in names}
                    self._keep(parts[corruption], told, [] if corruption.steps else subsets[corruption], keep)
        return scores

    def _keep(
        self, part: Resident, outputs: Mapping[str, NDArray[np.float32]], clean: list[str], keep: list[Replica]
    ) -> None:
        """Put into `arrays` what the grid asks for of one test split: predictions, and embeddings where it is clean."""
        what = self.replicas[0].training.save.what
        arrays: dict[str, NDArray[Any]] = {}
        if "predictions" in what:
            arrays |= {f"prediction/{name}": output for name, output in outputs.items()}
        for subset in clean if "embeddings" in what else []:
            embedded = self.embeddings(part, subset_masks(self.spec, [subset], self.device)[0])
            arrays |= {f"embedding/{subset}/{name}": x for name, x in embedded.items() if shows(name, subset)}
        for name in outputs if "weights" in what else ():
            weights = self.fusion_weights(part, subset_masks(self.spec, [split_condition(name)[0]], self.device)[0])
            if weights is not None:
                arrays |= {f"weight/{name}/{m}": weights[:, i] for i, m in enumerate(self.spec.modalities)}
        group = self.task.groups(part.target).cpu().numpy()
        for k, replica in enumerate(self.replicas):
            if replica in keep and arrays:
                replica.arrays |= {name: x[k] for name, x in arrays.items()} | {"target": part.truth, "group": group}

    def _whole_training_split(self, k: int) -> Batch:
        """All training samples as one batch, with the labels and modalities replica `k` sees."""
        everything = torch.arange(self.labelled.shape[1], device=self.device)
        return self.parts["train"].batch(everything, labelled=self.labelled[k], available=self.available[k])

    def _cost(self, trained_s: float, total_s: float) -> Row:
        """Each replica's share of the seconds, its parameters, and the highest memory use so far in MiB (on a CPU of
        the process); where steps may be captured, the share of them that was replayed."""
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        if self.device.startswith("cuda"):
            peak = torch.cuda.max_memory_allocated(self.device)
        epochs, k = (self.settings.epochs if self.methods[0].iterative else 0), len(self.methods)
        captured = {"captured": self.models.share} if isinstance(self.models, Captured) else {}
        return captured | {
            "train_s": trained_s / k,
            "wall_s": total_s / k,
            "step_ms": 1000 * trained_s / k / max(self.steps * epochs, 1),
            "parameters": float(sum(p.numel() for p in self.methods[0].parameters())),
            "peak_mib": peak / 2**20,
            "stack": float(k),
            "gpu": float(self.device.startswith("cuda")),
        }
