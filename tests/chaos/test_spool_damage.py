"""Whatever becomes of the files in the spool: what is whole is written, what is not is trained again."""

import json
import random

import pytest

from tests.chaos.arena import N_SMALL, Arena, spooled

pytestmark = pytest.mark.chaos

N_DAMAGES = 7


def test_damaged_and_foreign_files(waiting: Arena, rng: random.Random) -> None:
    arena = waiting
    folder = arena.folder / ".bench/chaos/outcomes"
    names = rng.sample(sorted(spooled(arena.folder)), N_DAMAGES)
    truncated, garbage, place, huge, shape, other, deep = (folder / name for name in names)
    whole = truncated.read_bytes()
    cut = rng.randrange(len(whole) - 1)
    arena.story.tell(f"{truncated.name} is cut at byte {cut} of {len(whole)}")
    truncated.write_bytes(whole[:cut])
    garbage.write_bytes(rng.randbytes(5000))
    place.unlink()
    place.mkdir()
    (place / "something.json").touch()
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    shape.write_text(json.dumps(json.loads(shape.read_text()) | {"cells": {"m1": 0.5}}))
    other.write_bytes(whole)  # the result of another training under this one's name
    deep.write_text("[" * 500_000)
    foreign = ["notes.json", ".hidden.json", "A" * 16 + ".json", "thesis.npz", "a\nname.json", "zwölf.json"]
    for name in foreign:
        (folder / name).write_text("{}")
    (folder / f".{'0' * 16}.json.half.tmp").write_text("half of an out")

    run = arena.run()
    assert run.returncode == 0, run.stderr
    assert f"{N_DAMAGES} results of an earlier run are damaged and were set aside" in run.stderr
    assert arena.check_cells() == N_SMALL
    assert sorted(path.name for path in folder.glob("*.damaged")) == sorted(
        name.replace(".json", ".damaged") for name in names
    )
    assert all((folder / name).read_text() == "{}" for name in foreign)
    arena.finish(left=(".bench/chaos/outcomes/*.damaged*", *(f".bench/chaos/outcomes/{name}" for name in foreign)))
