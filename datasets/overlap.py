"""Samples that are in several splits, or twice in one: refused, unless a person decides what becomes of them.

Real releases have such samples. A test score on samples that were trained on is worth nothing, so nothing is assumed.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from datasets.base import SPLITS, Split
from datasets.errors import UserError, did_you_mean

Overlap = Literal["refuse", "keep", "drop"]
"""keep: every sample stays where it is; drop: each stays once, in the test split rather than in validation, in
validation rather than in training."""
REMEDY = "--overlap drop leaves it in one of them only, --overlap keep in both"


def checked(word: str) -> Overlap:
    """The word as what to do about overlap.

    Raises:
        UserError: it is none of them.
    """
    for known in get_args(Overlap):
        if word == known:
            return known  # type: ignore[no-any-return]
    known_words = list(get_args(Overlap))
    raise UserError(f"--overlap is one of {', '.join(known_words)}, got '{word}'.{did_you_mean(word, known_words)}")


def first_overlap(ids: Mapping[Split, Sequence[str]]) -> tuple[str, Split, Split] | None:
    """A sample that comes twice, and the two splits it is in; they may be one."""
    seen: dict[str, Split] = {}
    for split in SPLITS:
        for name in ids[split]:
            if name in seen:
                return name, seen[name], split
            seen[name] = split
    return None


def kept_rows(ids: Mapping[Split, Sequence[str]], *, within: bool) -> dict[Split, list[int]]:
    """Which samples of each split stay when those that come again are dropped, in their order.

    Args:
        ids: what tells samples apart.
        within: of samples that are alike in one split, too, only the first stays.
    """
    taken: set[str] = set()
    rows: dict[Split, list[int]] = {}
    for split in reversed(SPLITS):
        first = {name: row for row, name in reversed([*enumerate(ids[split])])}
        rows[split] = [
            row for row, name in enumerate(ids[split]) if name not in taken and (first[name] == row or not within)
        ]
        taken |= first.keys()
    return {split: rows[split] for split in SPLITS}


def shown(name: str) -> str:
    """A name out of a file, short and printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:60])
