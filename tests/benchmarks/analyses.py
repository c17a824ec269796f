"""Items h and i: reports of large experiments, the slow analyses, and data sets of full size."""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.bench.run_tools import environment
from tests.benchmarks.measure import Row, at_most

REPORT = """
import sys, time
from pathlib import Path
from analysis.report import write_report
from tests.analysis.frames import realistic
from tests.benchmarks.peak import peak_mib
sets = {f"set{i}": (("a", "b", "c"), {"acc": True, "f1_macro": True, "ua": True}) for i in range(10)}
methods = ("robult", "gmc", "raml", "actionmae", "unimodal", "tate", "mmin", "constant")
frame = realistic(methods, sets=sets, ratios=(0.05, 0.5, 1.0), seeds=10)
started = time.perf_counter()
write_report(frame, Path(sys.argv[1]), title="large", checkpoint="last", context={"grid": "large.yaml"})
print(time.perf_counter() - started, peak_mib(), len(frame))
"""

TSNE = """
import time
import numpy as np
from analysis.geometry import plane
x = np.random.default_rng(0).random((5000, 128))
started = time.perf_counter()
plane(x)
print(time.perf_counter() - started)
"""

DCA = """
import time
import numpy as np
from analysis.dca import delaunay_score
draw = np.random.default_rng(0)
r = draw.standard_normal((4643, 60))
e = r + 0.05 * draw.standard_normal((4643, 60))
started = time.perf_counter()
delaunay_score(r, e, threads=2)
print(time.perf_counter() - started)
"""

PREPARE = """
import sys, time
from pathlib import Path
from datasets.catalog import DATASETS
from datasets.store import store_directory
from tests.benchmarks.peak import peak_mib
started = time.perf_counter()
DATASETS.get("cmu_mosei").prepare(Path(sys.argv[1]), store_directory("cmu_mosei"))
print(time.perf_counter() - started, peak_mib())
"""

LOAD = """
import pickle, sys, time
from tests.benchmarks.peak import peak_mib
started = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    data = pickle.load(file)
print(time.perf_counter() - started, peak_mib())
"""

OPEN = """
import time
from datasets.catalog import DATASETS
data = DATASETS.get("cmu_mosei")
data().load()  # imports
started = time.perf_counter()
data().load()
print(time.perf_counter() - started)
"""


def figures(code: str, *words: str, env: dict[str, str] | None = None) -> list[float]:
    """What a program of its own printed, as numbers."""
    command, env = [sys.executable, "-c", code, *words], environment() | (env or {})
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return [float(word) for word in told.stdout.split()]


def analyses() -> Iterator[Row]:
    """h: the report of more than 100,000 results, t-SNE and Delaunay component analysis at full size."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, mib, n = figures(REPORT, folder)
    yield Row("h", f"report of {n:,.0f} results", seconds, "s", *at_most(seconds, 60, "s"))
    yield Row("h", "  memory", mib, "MiB", *at_most(mib, 2048, "MiB"))
    (seconds,) = figures(TSNE)
    yield Row("h", "t-SNE of 5,000 points in 128 dimensions", seconds, "s", *at_most(seconds, 60, "s"))
    (seconds,) = figures(DCA)
    yield Row("h", "DCA of 2 x 4,643 points in 60 dimensions", seconds, "s", *at_most(seconds, 300, "s"))


def full_size_data() -> Iterator[Row]:
    """i: preparing CMU-MOSEI at full size, against reading its pickle; needs 8 GB of disk and of memory."""
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "mosei.pkl"
        words = [sys.executable, "-m", "bench", "data", "make", "cmu_mosei", "--out", str(raw)]
        subprocess.run(words, check=True, capture_output=True, env=environment())
        size = raw.stat().st_size / 2**20
        pairs = []
        for turn in range(3):  # into a new place each time: what is there already is not prepared again
            env = {"BENCH_DATA": f"{name}/data{turn}"}
            pairs.append((figures(PREPARE, str(raw), env=env), figures(LOAD, str(raw))))
        opened = statistics.median(figures(OPEN, env=env)[0] for _ in range(3))
    prepared, peak = (statistics.median(ours[i] for ours, _ in pairs) for i in (0, 1))
    loaded = statistics.median(theirs[0] for _, theirs in pairs)
    ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
    told = f"{prepared:.1f} s, pickle.load {loaded:.1f} s, a file of {size:,.0f} MiB"
    yield Row("i", "preparing CMU-MOSEI against reading its pickle", ratio, "x", *at_most(ratio, 1.5), told)
    yield Row("i", "  peak memory against the file's size", peak / size, "x", *at_most(peak / size, 2.5))
    yield Row("i", "  opening the store", 1000 * opened, "ms", *at_most(1000 * opened, 50, "ms"))
