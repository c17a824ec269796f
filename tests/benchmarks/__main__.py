"""`make benchmark`: how quick the suite is, as ratios of what is measured side by side in one run on this machine.

Steps are compared by CPU time of one thread, whole commands by the clock; figures are medians of runs taken in turns.
Nothing is asserted: the table says which target is met. Name items to run them alone: `python -m tests.benchmarks a d`.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tests.benchmarks import analyses, grids, steps
from tests.benchmarks.measure import Row, head, machine, shown, write_json

ITEMS: dict[str, tuple[str, Callable[[], Iterator[Row]]]] = {
    "startup": ("start-up of the command", grids.startup),
    "plan": ("planning of a large grid", grids.large_grid),
    "finished": ("a run that has nothing left to do", grids.finished_grid),
    "a": ("a training step against a straightforward implementation", steps.training_steps),
    "b": ("throughput of a grid with 1 and 2 slots, stacks on and off", grids.slots),
    "c": ("share of scheduling and tracking", grids.overhead),
    "d": ("7 subsets in one pass against 7 passes", steps.evaluation),
    "e": ("arithmetic, as a share of a large matrix product", steps.efficiency),
    "f": ("growth with modalities and replicas", steps.growth),
    "g": ("peak memory a replica", steps.memory),
    "h": ("reports of large experiments, t-SNE, Delaunay component analysis", analyses.analyses),
    "i": ("data sets of full size", analyses.full_size_data),
    "paper": ("hours of all of robult-paper, projected from measured pieces", steps.paper),
}
NEED_A_GPU = {
    "16 MOSI-shaped Robult replicas in at most 2 times the time of one",
    "30 times the replica-steps a second of the straightforward implementation",
    "robult-paper projected to under 60 minutes on one GPU",
}


def main() -> None:
    listed = "".join(f"  {name:<9}{what}\n" for name, (what, _) in ITEMS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        epilog=f"items:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("items", nargs="*", metavar="ITEM", help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file as well")
    asked = parser.parse_args()
    unknown = [name for name in asked.items if name not in ITEMS]
    if unknown:
        parser.error(f"there is no item '{unknown[0]}'; there are {', '.join(ITEMS)}")
    torch.set_num_threads(1)
    found, rows, started = machine(), [], time.perf_counter()
    print(f"{head(found)}\n", flush=True)
    for name in asked.items or ITEMS:
        for row in ITEMS[name][1]():
            rows.append(row)
            print(shown(row), flush=True)
        print(flush=True)
    for what in sorted(NEED_A_GPU):
        print(f"not run: {what} (measured on CPUs only)")
    print(f"{time.perf_counter() - started:.0f} s in all")
    if asked.json is not None:
        write_json(asked.json, rows, found, sorted(NEED_A_GPU))


if __name__ == "__main__":
    main()
