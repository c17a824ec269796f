"""YAML as people mistype it and as nobody should write it: for grids, for a folder's `data.yaml`, for any file."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from hypothesis import strategies as st

from bench.grids import bundled_names
from datasets.catalog import DATASETS
from methods.registry import METHODS
from tests.fuzz.edits import damaged, mistyped

HOSTILE = (
    "", "~", "null", ".nan", "-.inf", ".inf", "1e999", "-0.0", "0x7fffffffffffffff", "9" * 40, "9" * 400, "-1", "0",
    "1_000", "0o17", "1e-400", "2024-02-30", "2024-01-01T00:00:00Z", "yes", "no", "on", "true", "!!python/object:os.x",
    "!!binary aGk=", "!!int '3'", "&a [*a]", "*b", "<<", "? x", "- - -", "{", "]", "'", '"', '"\\UFFFFFFFF"', '"\\x00"',
    "\x00", "\x1b[31m", "\u202e", "\ufeff", "\ud7ff", "\U0001f600", "é", "a: b: c", "|", ">-", "%YAML 9.9", "---",
    "...", "os:system", "builtins:eval", "../../etc/passwd", "/dev/zero", "x" * 300, "[" * 30, "{a: " * 30, "text+text",
    "+", "robutl", "digit", "true: 1", "[[]]", "{}", "[1, 1]", "1:30", "\t", "#", "@", "`", "sqlite:///x.db", "http://",
)  # fmt: skip
"""Words that have broken readers of YAML, of numbers, of names, of paths and of terminals."""

_words = st.sampled_from(HOSTILE)
_odd: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.dates(), _words,
    st.lists(st.integers(-2, 2), max_size=3), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
)  # fmt: skip


def _mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A good value, nineteen times out of twenty."""
    return st.integers(0, 19).flatmap(lambda n: good if n else _odd)


def _options(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Options of a method or data set: their names as they are or slightly wrong, values of any kind."""
    numbers = st.one_of(st.floats(0, 2), st.integers(0, 40), st.lists(st.floats(0, 2), max_size=3))
    keys = st.one_of(st.sampled_from(names or ("x",)), st.text(max_size=6))
    return st.dictionaries(keys, _mostly(numbers), max_size=3)


def _entries(kinds: Mapping[str, tuple[str, ...]]) -> st.SearchStrategy[Any]:
    """A list of methods or data sets, alone or with options."""

    def one(name: str) -> st.SearchStrategy[Any]:
        return st.one_of(st.just(name), st.builds(lambda found: {name: found}, _options(*kinds[name])))

    return st.lists(_mostly(st.sampled_from(sorted(kinds)).flatmap(one)), max_size=4)


def _fields(registry: Any) -> dict[str, tuple[str, ...]]:
    return {name: tuple(registry.get(name).Config.model_fields) for name in registry.names()}


_SETTINGS = ("epochs", "batch_size", "lr", "weight_decay", "missing_rate", "optimizer", "datasets")
_RATES = st.one_of(st.floats(0, 1), st.lists(st.floats(0, 1), max_size=4))


def grid_values() -> st.SearchStrategy[dict[str, Any]]:
    """What a grid file may say, with a wrong value here and there."""
    levels = st.dictionaries(st.sampled_from(["upper", "lower", "all", "text"]), _mostly(_RATES), max_size=2)
    kinds = st.sampled_from(["gaussian", "mask", "swap", "drop", "gauss"])
    subsets = st.sampled_from(["all", "single", "full", "upper", "upper+lower", "upper+uper", "lower + upper", "+"])
    optional = {
        "name": _mostly(st.text(max_size=20)),
        "description": st.text(max_size=30),
        "label_ratios": _mostly(_RATES),
        "modalities": _mostly(st.lists(subsets, max_size=3)),
        "seeds": _mostly(st.one_of(st.integers(-1, 20), st.lists(st.integers(-1, 5), max_size=4))),
        "train": _mostly(_options(*_SETTINGS)),
        "checkpoint": _mostly(st.sampled_from(["last", "best", "lst"])),
        "corruptions": _mostly(st.lists(st.dictionaries(kinds, levels, max_size=2), max_size=2)),
        "save": _mostly(st.lists(st.sampled_from(["embeddings", "predictions", "weights", "all"]), max_size=3)),
        "tracking": _mostly(st.dictionaries(st.sampled_from(["uri", "url"]), _words, max_size=2)),
        "executor": _mostly(
            _options("kind", "devices", "slots", "timeout_s", "silence_s", "stack", "capture", "retries")
        ),
        "grids": _mostly(st.lists(st.sampled_from([*bundled_names(), "case.yaml", "none.yaml"]), max_size=2)),
    }
    required = {"methods": _mostly(_entries(_fields(METHODS))), "datasets": _mostly(_entries(_fields(DATASETS)))}
    return st.fixed_dictionaries(required, optional=optional)


def search_values() -> st.SearchStrategy[dict[str, Any]]:
    """What a search file may say: a grid's keys, and what is searched, by what, for how long."""
    bounds = st.fixed_dictionaries(
        {"low": _mostly(st.floats(0, 1)), "high": _mostly(st.floats(0, 9))},
        optional={"log": _mostly(st.booleans()), "points": _mostly(st.integers(-1, 9)), "step": _odd, "when": _odd},
    )
    parameter = st.one_of(bounds, st.just("declared"), st.lists(st.floats(0, 1), max_size=4), _odd)
    names = st.sampled_from(["tau", "lambda_u", "train.lr", "others", "kappa", "taw"])
    space = st.dictionaries(st.sampled_from(["robult", "gmc", "raml"]), st.dictionaries(names, parameter, max_size=3))
    goals = st.fixed_dictionaries({}, optional={"metric": _mostly(st.just("acc")), "modalities": _odd, "data": _odd})
    kinds = st.fixed_dictionaries(
        {"kind": _mostly(st.sampled_from(["tpe", "random", "grid", "none"]))},
        optional={"seed": _odd, "min_epochs": _odd},
    )
    return st.fixed_dictionaries({
        "methods": _mostly(st.lists(st.sampled_from(["robult", "gmc", "raml"]), unique=True, max_size=3)),
        "datasets": _mostly(st.just(["digits"])), "space": _mostly(space),
    }, optional={
        "label_ratios": _mostly(_RATES), "seeds": _mostly(st.integers(-1, 5)), "train": _mostly(_options(*_SETTINGS)),
        "objective": _mostly(goals), "sampler": _mostly(kinds), "pruner": _mostly(kinds), "batch": _odd, "name": _odd,
        "budget": _mostly(st.dictionaries(st.sampled_from(["trials", "minutes"]), _mostly(st.integers(-1, 99)))),
    })  # fmt: skip


def described_values() -> st.SearchStrategy[dict[str, Any]]:
    """What the `data.yaml` of `tests.datasets.fixtures.make_own_folder` may say, right and wrong."""
    places = st.sampled_from(
        [
            "text.npy",
            "rest.npz:audio",
            "rest.npz:label",
            "rest.npz",
            "none.npy",
            "data.yaml",
            "../text.npy",
            "rest.npz:",
        ]
    )
    kind = st.sampled_from(["multiclass", "binary", "regression", "multilabel", "classes"])
    task = st.fixed_dictionaries(
        {"kind": _mostly(kind)}, optional=dict.fromkeys(("n_classes", "low", "high", "n_labels"), _odd)
    )
    shares = st.dictionaries(st.sampled_from(["train", "valid", "test", "dev"]), _mostly(st.floats(0, 1)), max_size=3)
    return st.fixed_dictionaries({
        "task": _mostly(st.one_of(st.just({"kind": "multiclass", "n_classes": 3}), task)),
        "modalities": _mostly(st.dictionaries(st.sampled_from(["text", "audio", "a+b", ""]), places, max_size=3)),
        "target": _mostly(places), "split": _mostly(st.one_of(shares, places)),
    }, optional={"name": _odd, "source": _odd, "licence": _odd, "more": _odd})  # fmt: skip


def written(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """Values as YAML text in one of its styles."""

    def dump(value: Any, flow: bool, width: int) -> str:
        return str(yaml.safe_dump(value, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=width))

    return st.builds(dump, values, st.booleans(), st.sampled_from([20, 120]))


# ---- what nobody writes -----------------------------------------------------------------------------------------


def _laughs(levels: int, width: int) -> str:
    """A few lines whose aliases stand for `width` to the power of `levels` values."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join([*lines, f"methods: *a{levels}", f"seeds: *a{levels}", ""])


def _deep(depth: int, opening: str) -> str:
    closing = {"[": "]", "{a: ": "}", "- ": "", "? ": ""}[opening]
    return f"methods: {opening * depth}{closing * depth}\n" if closing else f"methods:\n  {opening * depth}x\n"


def _long(count: int, item: str) -> str:
    return f"methods: [constant]\ndatasets: [digits]\nseeds: [{', '.join([item] * count)}]\n"


def _numbered(key: str, first: int, count: int) -> str:
    values = ", ".join(map(str, range(first, first + count)))
    return f"methods: [constant]\ndatasets: [digits]\n{key}: [{values}]\n"


monsters: st.SearchStrategy[str] = st.one_of(
    st.builds(_laughs, st.integers(1, 40), st.integers(1, 12)),
    st.builds(_deep, st.integers(1, 3000), st.sampled_from(["[", "{a: ", "- ", "? "])),
    st.builds(_long, st.integers(1, 30_000), st.sampled_from(["1", "a", "{b: 1}", "[]", "*x"])),
    st.builds(_numbered, st.sampled_from(["seeds", "label_ratios"]), st.integers(-5, 1 << 70), st.integers(0, 2000)),
    st.builds("methods: [constant]\ndatasets: [digits]\n{}: 1\n".format, st.text(max_size=40)),
    st.builds(lambda n: f"name: {'x' * n}\nmethods: [constant]\ndatasets: [digits]\n", st.integers(1, 300_000)),
)


def bundled(folder: str = "bench.grids") -> st.SearchStrategy[str]:
    """One of the YAML files that come with a package."""
    found = sorted(
        (file for file in files(folder).iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name
    )
    return st.sampled_from([file.read_text(encoding="utf-8") for file in found])


def texts(values: st.SearchStrategy[Any], examples: st.SearchStrategy[str]) -> st.SearchStrategy[bytes]:
    """Files: values with wrong ones among them, examples with slips, monsters, and damaged or random bytes."""
    words = st.one_of(_words, st.text(max_size=8))
    plain = st.one_of(written(values), mistyped(written(values), words), mistyped(examples, words), examples, monsters)
    encoded = plain.map(lambda text: text.encode("utf-8", "surrogatepass"))
    noisy = examples.map(str.encode).flatmap(lambda content: damaged(lambda: content))
    return st.one_of(encoded, encoded, encoded, noisy, st.binary(max_size=300))
