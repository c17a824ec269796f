"""What `bench data` does; torch and MLflow, which preparing data needs not, are left alone."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cli.tell import tell
from datasets.errors import DataError, UserError


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
    from bench.cli.show import print_data

    print_data(rows)
    return 0


def prepare_data(name: str, source: Path, overlap: str = "refuse") -> int:
    """`bench data prepare`."""
    from bench.cli.data_progress import PrepareBar
    from datasets.catalog import DATASETS
    from datasets.overlap import checked
    from datasets.progress import listening
    from datasets.store import store_directory

    cls = DATASETS.get(name)
    prepare: Callable[..., str | None] = cls.prepare
    options = {} if checked(overlap) == "refuse" else {"overlap": overlap}
    if options and "overlap" not in inspect.signature(prepare).parameters:
        raise UserError(f"data set '{name}' has no splits whose samples could overlap: leave --overlap out.")
    if not source.exists():
        raise DataError(f"{source} does not exist: --from takes the raw file or folder of '{name}'.")
    store = store_directory(name)
    before = _written_at(store)
    with PrepareBar() as bar, listening(bar):
        told = prepare(source, store, **options)
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
        tell(f"warning: {warning}")
    try:
        if not page_is_current(store):
            write_page(store, {"summary": cls.summary, "source": cls.source, "licence": cls.licence})
    except OSError as error:  # of a store that others own
        tell(f"note: the page of its card cannot be written: {error.strerror}.")
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

    from bench.cli.data_progress import PrepareBar
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
    from bench.cli.data_progress import PrepareBar
    from datasets.progress import listening
    from datasets.raw_maker import make_raw

    with PrepareBar() as bar, listening(bar):
        make_raw(name, out, rows, form)
    print(f"Random data in the format of {name}: {out}. Next: bench data prepare {name} --from {out}")
    tell(f"warning: preparing it replaces the {name} you have prepared, if any; set BENCH_DATA to keep them apart.")
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
        tell(f"{name}: {problem}")
    return 1
