"""Random data whose information is dialled in bit by bit and known exactly.

Independent bits of four kinds make the label y = (r, u_1, ..., u_M, s):

- redundant bits r, seen in every modality;
- unique bits u_i, seen in modality i alone;
- synergy bits s, seen in none: modality i holds a mask a_i, and s is the exclusive or of all M masks.

So in bits I(X_A; Y) = n_R + sum of n_Ui over A, plus n_S when A holds every modality, and the partial information
decomposition in the sense of Bertschinger et al. (2014, "BROJA") is R = n_R, U_i = n_Ui, S = n_S. (Other measures
disagree: I_min of Williams and Beer calls two independent unique bits one redundant and one synergy bit.) Erasure
and flips make the amounts fractional; `_sight` has the closed form.

Shapes: N samples, M modalities, n label bits, k bits that one modality sees, D features, T time steps.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datasets.base import SPLITS, Data, DataSet, DataSpec, Part, Split, all_subsets
from datasets.folds import FoldConfig, dealt, dealt_spec
from datasets.seeds import generator
from datasets.tasks import Binary, MultiClass, MultiLabel, Regression, Task

GENERATOR_VERSION = 1
"""Goes into the fingerprint: raise it with any change that changes an array."""

MAX_BITS = {"multiclass": 6, "binary": 6, "regression": 8, "multilabel": 16}
MAX_NONLINEAR_BITS = 6
EXACT_SIGMA = 0.25
"""Largest noise at which a bit is still read with 0.9998 bit of information, so that the truth is the truth."""

Bits = Annotated[int, Field(ge=0, le=16)]
Share = Annotated[float, Field(ge=0, lt=1)]
FlipRate = Annotated[float, Field(ge=0, lt=0.5)]
Floats = NDArray[np.float64]
BitArray = NDArray[np.int64]


class SyntheticConfig(FoldConfig):
    """Options of `synthetic`; the default is a 16-class problem with all three kinds of information.

    It is easy but for its synergy: with all labels a small network begins to learn the exclusive or of the three
    masks within 40 epochs (0.6 to 0.98 accuracy, where 0.5 is all the rest), with 5 percent of them it does not.
    """

    n_modalities: int = Field(default=3, ge=2, le=8, description="M; the modalities are called m1 to mM")
    redundancy: Bits = Field(default=1, description="redundant bits n_R")
    uniqueness: Bits | tuple[Bits, ...] = Field(
        default=(1, 0, 1), description="unique bits n_Ui: one number for every modality, or a list"
    )
    synergy: Bits = Field(default=1, description="synergy bits n_S")

    task: Literal["multiclass", "binary", "multilabel", "regression"] = Field(
        default="multiclass",
        description="how the label bits become a target: their code, the sign of the regression value, "
        "the bits themselves, or their weighted sum in [-3, 3]",
    )
    imbalance: float = Field(default=0.5, gt=0, lt=1, description="probability that a label bit is 1")

    redundancy_erasure: Share = Field(default=0.0, description="share of samples in which all see a bit r erased")
    uniqueness_erasure: Share = Field(default=0.0, description="share of samples in which a bit u_i is seen erased")
    synergy_erasure: Share = Field(default=0.0, description="share of samples in which all see their mask erased")
    redundancy_flip: FlipRate = Field(default=0.0, description="rate at which each modality misreads a bit r")
    uniqueness_flip: FlipRate = Field(default=0.0, description="rate at which a modality misreads a bit u_i")
    synergy_flip: FlipRate = Field(default=0.0, description="rate at which each modality misreads its mask")

    inputs: Literal["vector", "sequence"] = Field(default="vector", description="(D,) or (T, D) per sample")
    dim: int = Field(default=12, ge=1, le=4096, description="features D of every modality")
    n_nuisance: int = Field(default=2, ge=0, le=4096, description="directions of unit variance without information")
    sigma: float = Field(default=0.25, ge=0, description="standard deviation of the noise in every direction")
    nonlinear: bool = Field(default=False, description="show the bits through a fixed random network")
    time_steps: int = Field(default=16, ge=2, le=1024, description="T, for sequences")
    shuffle: bool = Field(default=False, description="show a sequence's bits in random order")

    n_train: int = Field(default=1500, ge=1, le=10_000_000)
    n_valid: int = Field(default=400, ge=1, le=10_000_000)
    n_test: int = Field(default=800, ge=1, le=10_000_000)
    data_seed: int = Field(default=0, description="seed of the data, not of a run")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(f"m{i}" for i in range(1, self.n_modalities + 1))

    @property
    def unique_bits(self) -> tuple[int, ...]:
        """n_Ui of every modality, (M,)."""
        return self.uniqueness if isinstance(self.uniqueness, tuple) else (self.uniqueness,) * self.n_modalities

    @property
    def n_bits(self) -> int:
        """Label bits n."""
        return self.redundancy + sum(self.unique_bits) + self.synergy

    @property
    def flips(self) -> bool:
        return max(self.redundancy_flip, self.uniqueness_flip, self.synergy_flip) > 0

    @model_validator(mode="after")
    def _bits_fit_the_task(self) -> "SyntheticConfig":
        if len(self.unique_bits) != self.n_modalities:
            raise ValueError(
                f"uniqueness lists {len(self.unique_bits)} numbers for {self.n_modalities} modalities: "
                f"give one number for each, or a single number for all."
            )
        if not 1 <= self.n_bits <= MAX_BITS[self.task]:
            raise ValueError(
                f"the bits redundancy + uniqueness + synergy add up to {self.n_bits}, "
                f"a {self.task} task takes 1 to {MAX_BITS[self.task]}."
            )
        if self.task == "binary" and self.n_bits > 1 and self.flips:
            raise ValueError(
                f"a binary label made of {self.n_bits} bits takes no flips: what is known of it would not be exact. "
                f"Use one bit, or erasure."
            )
        return self

    @model_validator(mode="after")
    def _bits_fit_the_inputs(self) -> "SyntheticConfig":
        needed = max(len(layout.columns) for layout in _layouts(self)) + self.n_nuisance
        if self.dim < needed:
            raise ValueError(f"dim is {self.dim}, the bits and nuisance directions of a modality need {needed}.")
        if self.inputs == "sequence" and self.time_steps < 2 * (needed - self.n_nuisance):
            raise ValueError(
                f"time_steps is {self.time_steps}, a sequence needs {2 * (needed - self.n_nuisance)} to show its bits "
                f"in any half of it."
            )
        if self.nonlinear and self.inputs == "sequence":
            raise ValueError("nonlinear inputs are vectors: set nonlinear to false or inputs to vector.")
        if self.nonlinear and (seen := max(layout.n_bits for layout in _layouts(self))) > MAX_NONLINEAR_BITS:
            raise ValueError(f"a nonlinear modality shows at most {MAX_NONLINEAR_BITS} bits, here it would be {seen}.")
        return self


class Synthetic(DataSet):
    """Redundancy, uniqueness and synergy in bits, chosen freely and known exactly.

    `Data.truth` holds, in bits: `entropy` of the label, `redundancy`, `unique/m1` ..., `synergy`, and
    `information/A` for every modality subset A; and the best that any method can reach from A: `bayes_accuracy/A`,
    or for a regression `bayes_mse/A` and, without flips, `bayes_mae/A`. They are those of the symbols shown, which
    noise of sigma up to 0.25 leaves readable; with more noise only `entropy` is given.

    Synergy is what no single modality carries. The three amounts are left out for a binary label made of several
    bits, whose decomposition has no closed form.
    """

    name = "synthetic"
    summary = "redundancy, uniqueness and synergy dialled in and known exactly"
    source = "generated; after the decomposition of Bertschinger et al., Entropy 16 (2014)"
    licence = "none needed"
    Config = SyntheticConfig
    config: SyntheticConfig

    def spec(self) -> DataSpec:
        return dealt_spec(self._whole(), self.config)

    def _whole(self) -> DataSpec:
        config = self.config
        shape = (config.dim,) if config.inputs == "vector" else (config.time_steps, config.dim)
        sizes: dict[Split, int] = {"train": config.n_train, "valid": config.n_valid, "test": config.n_test}
        return DataSpec(self.name, dict.fromkeys(config.modalities, shape), _task(config), sizes, _fingerprint(config))

    def load(self) -> Data:
        whole = self._whole()
        parts = {split: _draw_part(self.config, whole.sizes[split], split) for split in SPLITS}
        return Data(self.spec(), dealt(parts, whole, self.config), truth(self.config))


def _fingerprint(config: SyntheticConfig) -> str:
    """Hash of the options and the generator's version: no sample needs to be drawn for it."""
    options = config.model_dump(mode="json", exclude=set(FoldConfig.model_fields))
    options["uniqueness"] = list(config.unique_bits)
    text = json.dumps([GENERATOR_VERSION, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# ---- targets ----------------------------------------------------------------------------------------------------


def _task(config: SyntheticConfig) -> Task:
    match config.task:
        case "multiclass":
            return MultiClass(2**config.n_bits)
        case "binary":
            return Binary()
        case "multilabel":
            return MultiLabel(config.n_bits)
        case "regression":
            return Regression()


def target_of(task: str, bits: BitArray) -> NDArray[Any]:
    """What is to be predicted, from the label bits (N, n): as `Part.target`.

    A class is the bits' code, first bit highest; a value is their weighted sum (`weights`); a binary label is that
    value's sign. Every map but the last is one-to-one, so that it leaves all information as it is.
    """
    match task:
        case "multiclass":
            return bits @ (1 << np.arange(bits.shape[1])[::-1])
        case "multilabel":
            return bits.astype(np.float32)
        case "binary":
            return (_value(bits) > 0).astype(np.int64)
        case _:
            return _value(bits).astype(np.float32)


def weights(n_bits: int) -> Floats:
    """Weight w_b of each label bit in the regression value sum w_b (2 b - 1), (n,), with sum 3.

    Proportional to 2^n + 2^b: nearly equal, so that every bit counts, yet no two of the 2^n sums are equal and none
    is zero (their parts in 2^n and below it cannot make up for each other, and the latter is odd).
    """
    raw = 2.0**n_bits + 2.0 ** np.arange(n_bits)[::-1]
    scaled: Floats = 3 * raw / raw.sum()
    return scaled


def _value(bits: BitArray) -> Floats:
    value: Floats = (2 * bits - 1) @ weights(bits.shape[1])
    return value


# ---- what modalities see ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Bits of one kind: how many, and what hides them."""

    n: int
    erasure: float
    flip: float


@dataclass(frozen=True)
class Layout:
    """The kinds of bits that one modality shows, in order, and its columns: the bits, then a flag an erasable bit."""

    kinds: tuple[Kind, ...]

    @property
    def n_bits(self) -> int:
        return sum(kind.n for kind in self.kinds)

    @property
    def erasable(self) -> list[int]:
        """Which of the shown bits may be erased."""
        rates = [kind.erasure for kind in self.kinds for _ in range(kind.n)]
        return [bit for bit, rate in enumerate(rates) if rate > 0]

    @property
    def columns(self) -> list[int]:
        return [*range(self.n_bits), *self.erasable]

    def coefficients(self, bits: BitArray, erased: NDArray[np.bool_]) -> Floats:
        """What is shown, (N, columns): -1 or 1 for a bit, 0 when erased, and -1 or 1 for its flag "erased".

        The flag keeps any two different symbols at least as far apart as the two values of a bit.
        """
        shown = np.where(erased, 0, 2 * bits - 1)
        return np.concatenate([shown, 2 * erased[:, self.erasable] - 1], axis=1).astype(np.float64)


def _kinds(config: SyntheticConfig) -> tuple[Kind, list[Kind], Kind]:
    """The kinds of bits: redundant, unique of every modality, synergy."""
    return (
        Kind(config.redundancy, config.redundancy_erasure, config.redundancy_flip),
        [Kind(n, config.uniqueness_erasure, config.uniqueness_flip) for n in config.unique_bits],
        Kind(config.synergy, config.synergy_erasure, config.synergy_flip),
    )


def _layouts(config: SyntheticConfig) -> list[Layout]:
    """What each modality shows, (M,)."""
    redundant, unique, synergy = _kinds(config)
    return [Layout((redundant, own, synergy)) for own in unique]


def draw_symbols(config: SyntheticConfig, n: int, stream: np.random.Generator) -> tuple[BitArray, list[Floats]]:
    """Label bits (N, n_bits) and what each modality shows of them, M times (N, columns)."""
    redundant, unique, synergy = _kinds(config)

    def draw(size: int) -> BitArray:
        return (stream.random((n, size)) < config.imbalance).astype(np.int64)

    def flipped(bits: BitArray, rate: float) -> BitArray:
        return bits ^ (stream.random(bits.shape) < rate)

    def erased(kind: Kind) -> NDArray[np.bool_]:
        return stream.random((n, kind.n)) < kind.erasure

    r, s, own = draw(redundant.n), draw(synergy.n), [draw(kind.n) for kind in unique]
    masks = [stream.integers(0, 2, (n, synergy.n)) for _ in unique[1:]]
    masks.append(np.bitwise_xor.reduce([s, *masks]))
    r_erased, s_erased = erased(redundant), erased(synergy)
    shown = []
    for layout, kind, u, mask in zip(_layouts(config), unique, own, masks, strict=True):
        bits = [flipped(r, redundant.flip), flipped(u, kind.flip), flipped(mask, synergy.flip)]
        hidden = [r_erased, erased(kind), s_erased]
        shown.append(layout.coefficients(np.concatenate(bits, axis=1), np.concatenate(hidden, axis=1)))
    return np.concatenate([r, *own, s], axis=1), shown


# ---- what inputs look like --------------------------------------------------------------------------------------


def _draw_part(config: SyntheticConfig, n: int, split: Split) -> Part:
    """One split. Bits and noise have streams of their own: other noise leaves the bits as they are."""
    bits, shown = draw_symbols(config, n, generator("synthetic", config.data_seed, split, "bits"))
    inputs = {}
    for name, layout, coefficients in zip(config.modalities, _layouts(config), shown, strict=True):
        view = View(config, layout, name)
        x = view.sequence if config.inputs == "sequence" else view.vector
        stream = generator("synthetic", config.data_seed, split, "noise", name)
        inputs[name] = x(coefficients, stream).astype(np.float32)
    return Part(inputs, target_of(config.task, bits))


class View:
    """How one modality turns what it shows into features: fixed orthonormal directions for signal and nuisance."""

    def __init__(self, config: SyntheticConfig, layout: Layout, name: str) -> None:
        self.config, self.layout = config, layout
        self.stream_axes = ("synthetic", config.data_seed, "directions", name)
        n_signal = config.dim - config.n_nuisance if config.nonlinear else len(layout.columns)
        basis = _orthonormal(config.dim, n_signal + config.n_nuisance, generator(*self.stream_axes))
        self.signal, self.nuisance = basis[:, :n_signal], basis[:, n_signal:]

    def vector(self, coefficients: Floats, stream: np.random.Generator) -> Floats:
        """Signal, nuisance of unit variance and white noise, (N, columns) -> (N, D)."""
        signal = self.network(coefficients) if self.config.nonlinear else coefficients
        x: Floats = signal @ self.signal.T + self._nuisance((len(signal),), stream)
        return x + self.config.sigma * stream.standard_normal(x.shape)

    def sequence(self, coefficients: Floats, stream: np.random.Generator) -> Floats:
        """The columns shown one at a time at random steps, zeros in front, (N, columns) -> (N, T, D).

        A sample has between T/2 and T steps, as sentences have. The noise of a step is sigma / sqrt(T), so that the
        sum over the steps reads a bit as well as a vector with noise sigma does.
        """
        n, n_columns = coefficients.shape
        steps = self.config.time_steps
        length = stream.integers(steps // 2, steps + 1, (n, 1))
        present = np.arange(steps) >= steps - length  # (N, T)
        order = np.argsort(np.where(present, stream.random((n, steps)), 2.0), axis=1)[:, :n_columns]
        if not self.config.shuffle:
            order.sort(axis=1)
        x = self._nuisance((n, steps), stream)
        x += self.config.sigma / math.sqrt(steps) * stream.standard_normal(x.shape)
        x[np.arange(n)[:, None], order] += coefficients[:, :, None] * self.signal.T
        return np.where(present[:, :, None], x, 0.0)

    def _nuisance(self, shape: tuple[int, ...], stream: np.random.Generator) -> Floats:
        drawn: Floats = stream.standard_normal((*shape, self.nuisance.shape[1])) @ self.nuisance.T
        return drawn

    def network(self, coefficients: Floats) -> Floats:
        """A fixed random two-layer network of what is shown, (N, columns) -> (N, signal directions).

        Scaled so that the two closest of all possible symbols are 2 apart, as the two values of a bit are in the
        linear case: the noise hides no more.
        """
        symbols, hidden = _all_symbols(self.layout), 64
        stream, fan_in = generator(*self.stream_axes, "network"), symbols.shape[1]
        inner, bias = stream.standard_normal((fan_in, hidden)), stream.standard_normal(hidden)
        outer = stream.standard_normal((hidden, self.signal.shape[1]))

        def respond(x: Floats) -> Floats:
            # Twice as steep as needed to be sensitive, and off centre: bits act together, not one by one.
            response: Floats = np.tanh(2 * (x @ inner + math.sqrt(fan_in) * bias)) @ outer
            return response

        return 2 / _smallest_distance(respond(symbols)) * respond(coefficients)


def _smallest_distance(centres: Floats) -> float:
    """Distance of the two closest rows; 2 when there is but one."""
    squares = (centres**2).sum(1)
    squared = squares[:, None] + squares - 2 * centres @ centres.T
    return math.sqrt(squared[~np.eye(len(centres), dtype=bool)].min()) if len(centres) > 1 else 2.0


def _all_symbols(layout: Layout) -> Floats:
    """Every coefficient row that the layout can show."""
    options = [(0, 1, None) if bit in layout.erasable else (0, 1) for bit in range(layout.n_bits)]
    rows = list(product(*options))
    bits = np.array([[bit or 0 for bit in row] for row in rows], dtype=np.int64).reshape(len(rows), -1)
    erased = np.array([[bit is None for bit in row] for row in rows], dtype=bool).reshape(len(rows), -1)
    return layout.coefficients(bits, erased)


def _orthonormal(rows: int, columns: int, stream: np.random.Generator) -> Floats:
    """Random orthonormal columns, (rows, columns); uniform, and the same with every linear algebra library."""
    q, r = np.linalg.qr(stream.standard_normal((rows, columns)))
    turned: Floats = q * np.sign(np.diagonal(r))
    return turned


# ---- what is known exactly --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sight:
    """What a modality subset learns of one bit: its possible findings and what each makes of the bit."""

    probability: Floats
    """Probability of each finding, (J,), with sum 1."""
    posterior: Floats
    """Probability that the bit is 1, given the finding, (J,)."""

    @property
    def uncertainty(self) -> float:
        """Bits that remain unknown."""
        return float(self.probability @ entropy(self.posterior))

    @property
    def accuracy(self) -> float:
        """Accuracy of the best guess."""
        return float(self.probability @ np.maximum(self.posterior, 1 - self.posterior))

    @property
    def variance(self) -> float:
        """Mean variance of the bit."""
        return float(self.probability @ (self.posterior * (1 - self.posterior)))


def entropy(p: Floats) -> Floats:
    """Entropy in bits of an event of probability `p`, elementwise."""
    p = np.clip(p, 0, 1)
    safe = np.where((p > 0) & (p < 1), p, 0.5)
    bits: Floats = np.where((p > 0) & (p < 1), -(safe * np.log2(safe) + (1 - safe) * np.log2(1 - safe)), 0.0)
    return bits


def _sight(p: float, views: int, flip: float, erasure: float) -> Sight:
    """A bit that is 1 with probability p, read `views` times with independent flips, or erased for all at once.

    j of the readings are 1: for a bit 1 with probability C(v, j) (1 - flip)^j flip^(v - j).
    """
    ones = np.arange(views + 1)
    ways = np.array([math.comb(views, j) for j in ones], dtype=np.float64)
    if_one = p * ways * (1 - flip) ** ones * flip ** (views - ones)
    if_zero = (1 - p) * ways * flip**ones * (1 - flip) ** (views - ones)
    read = if_one + if_zero
    possible = read > 0
    return Sight(
        np.append((1 - erasure) * read[possible], erasure),
        np.append(if_one[possible] / read[possible], p),
    )


def _sights(config: SyntheticConfig, subset: set[int]) -> list[Sight]:
    """What the modalities of `subset` learn of each label bit, (n,)."""
    p, (redundant, unique, synergy) = config.imbalance, _kinds(config)
    together = int(len(subset) == config.n_modalities)
    parity_flip = _parity_flip(synergy.flip, config.n_modalities)
    sights = [_sight(p, len(subset), redundant.flip, redundant.erasure)] * redundant.n
    for i, kind in enumerate(unique):
        sights += [_sight(p, int(i in subset), kind.flip, kind.erasure)] * kind.n
    return sights + [_sight(p, together, parity_flip, synergy.erasure)] * synergy.n


def _parity_flip(flip: float, n: int) -> float:
    """Rate at which the exclusive or of n bits is wrong when each is flipped at rate `flip`: an odd number of times."""
    return (1 - (1 - 2 * flip) ** n) / 2


def truth(config: SyntheticConfig) -> dict[str, float]:
    """Information in bits and the best possible scores; see `Synthetic` for the names."""
    several = config.task == "binary" and config.n_bits > 1
    whole = config.n_bits * float(entropy(np.array(config.imbalance)))
    known = {"entropy": _threshold_entropy(config) if several else whole}
    if config.sigma > EXACT_SIGMA:
        return known
    numbers = {name: i for i, name in enumerate(config.modalities)}
    for name in all_subsets(config.modalities):
        subset = {numbers[modality] for modality in name.split("+")}
        limits = _threshold_limits(config, subset) if several else _limits(config, subset)
        known |= {f"{key}/{name}": value for key, value in limits.items()}
    return known if several else known | _atoms(config)


def _limits(config: SyntheticConfig, subset: set[int]) -> dict[str, float]:
    """What the modalities of `subset` tell of a label that is one-to-one with its bits, and the best scores."""
    sights = _sights(config, subset)
    total = config.n_bits * float(entropy(np.array(config.imbalance)))
    limits = {"information": total - sum(sight.uncertainty for sight in sights)}
    if config.task in ("multiclass", "binary"):
        # The bits are independent, so the likeliest code is made of the likeliest bits.
        limits["bayes_accuracy"] = math.prod(sight.accuracy for sight in sights)
    if config.task == "regression":
        w = weights(config.n_bits)
        limits["bayes_mse"] = float(4 * w**2 @ [sight.variance for sight in sights])
        if not config.flips:
            limits["bayes_mae"] = sum(
                probability * _spread(w[list(hidden)], config.imbalance)
                for probability, hidden in _hidden_patterns(sights)
            )
    return limits


def _threshold_limits(config: SyntheticConfig, subset: set[int]) -> dict[str, float]:
    """As `_limits` for the sign of the regression value: every label, weighed over all bits that may be hidden."""
    probability, positive = _code_table(config)
    left, accuracy = 0.0, 0.0
    for share, hidden in _hidden_patterns(_sights(config, subset)):
        known, ones = probability.sum(axis=hidden), (probability * positive).sum(axis=hidden)
        left += share * float((known * entropy(ones / known)).sum())
        accuracy += share * float(np.maximum(ones, known - ones).sum())
    return {"information": _threshold_entropy(config) - left, "bayes_accuracy": accuracy}


def _threshold_entropy(config: SyntheticConfig) -> float:
    """Bits in the sign of the regression value."""
    probability, positive = _code_table(config)
    return float(entropy((probability * positive).sum()))


def _code_table(config: SyntheticConfig) -> tuple[Floats, Floats]:
    """Probability of every setting of the label bits, and 1 where its value is positive; one axis a bit, (2,) * n."""
    bits = np.array(list(product((0, 1), repeat=config.n_bits)))
    probability = np.where(bits == 1, config.imbalance, 1 - config.imbalance).prod(axis=1)
    shape = (2,) * config.n_bits
    return probability.reshape(shape), (_value(bits) > 0).astype(np.float64).reshape(shape)


def _hidden_patterns(sights: list[Sight]) -> list[tuple[float, tuple[int, ...]]]:
    """Every set of bits that may stay unknown, with its probability; the other bits are known for certain."""
    unknown = [float(s.probability[(s.posterior > 0) & (s.posterior < 1)].sum()) for s in sights]
    patterns = []
    for pattern in product((False, True), repeat=len(sights)):
        share = math.prod(rate if hidden else 1 - rate for rate, hidden in zip(unknown, pattern, strict=True))
        if share > 0:
            patterns.append((share, tuple(np.flatnonzero(pattern).tolist())))
    return patterns


def _spread(w: Floats, p: float) -> float:
    """Mean absolute error of the best constant for sum w_b (2 b - 1) over unknown bits: that of its median."""
    bits = np.array(list(product((0, 1), repeat=len(w)))).reshape(2 ** len(w), len(w))
    value: Floats = (2 * bits - 1) @ w
    probability = np.where(bits == 1, p, 1 - p).prod(axis=1)
    order = np.argsort(value)
    median = value[order][int(np.searchsorted(np.cumsum(probability[order]), 0.5 - 1e-12))]
    return float(probability @ np.abs(value - median))


def _atoms(config: SyntheticConfig) -> dict[str, float]:
    """Redundancy, unique information of each modality, synergy: exact for two modalities (BROJA), and for more
    with synergy read as what no single modality carries."""
    redundant, unique, synergy = _kinds(config)
    p, n_modalities = config.imbalance, config.n_modalities

    def uncertainty(views: int, kind: Kind, flip: float) -> float:
        return _sight(p, views, flip, kind.erasure).uncertainty

    unseen, alone = float(entropy(np.array(p))), uncertainty(1, redundant, redundant.flip)
    atoms = {"redundancy": redundant.n * (unseen - alone)}
    for name, kind in zip(config.modalities, unique, strict=True):
        atoms[f"unique/{name}"] = kind.n * (unseen - uncertainty(1, kind, kind.flip))
    # All readings of a redundant bit tell more than one does, unless each is right.
    from_readings = redundant.n * (alone - uncertainty(n_modalities, redundant, redundant.flip))
    from_masks = synergy.n * (unseen - uncertainty(1, synergy, _parity_flip(synergy.flip, n_modalities)))
    return atoms | {"synergy": from_readings + from_masks}
