"""Fuzz everything that reads what others wrote: `python -m tests.fuzz [--cases 10000] [--seed 0]`."""

import argparse
import faulthandler
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.calls import sandbox
from tests.fuzz.targets import ALL, Fuzz


def main() -> int:
    """Exit code 1 and the smallest failing case of each target when a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the cases (default: another one each time)")
    parser.add_argument("--only", choices=[fuzz.name for fuzz in ALL], help="one target alone")
    asked = parser.parse_args()
    start = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    print(f"seed {start}: the same cases again with --seed {start}", flush=True)
    faulthandler.enable()
    failed = 0
    for fuzz in ALL if asked.only is None else [fuzz for fuzz in ALL if fuzz.name == asked.only]:
        n = asked.cases * fuzz.share // 100 if asked.only is None else asked.cases
        failed += not _run(fuzz, n, start)
    return int(failed > 0)


def _run(fuzz: Fuzz, n: int, start: int) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-fuzz-") as folder, sandbox(Path(folder)):
        try:
            codes = fuzz.run(n, start)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            for each in error.exceptions if isinstance(error, BaseExceptionGroup) else [error]:
                print(f"{fuzz.name}: BROKEN\n{type(each).__name__}: {each}", flush=True)
                print(*getattr(each, "__notes__", []), sep="\n", flush=True)
            return False
    told = ", ".join(f"{count} x exit {code}" for code, count in sorted(codes.items()))
    print(f"{fuzz.name}: {sum(codes.values()):,} cases in {time.monotonic() - began:.0f} s: {told}", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
