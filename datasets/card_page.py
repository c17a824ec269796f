"""The card of a prepared store as a page for people: `card.html`, self-contained, everything from files escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.base import SPLITS
from datasets.store import Card, read_card
from datasets.store_folder import CARD, PAGE

MAX_BARS = 60
SPLIT_NAMES = {"train": "training", "valid": "validation", "test": "test"}
BAR_HEIGHT = 90

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ card.name }}: data card</title>
<style>
:root { color-scheme: light dark; --text: #1a1a1a; --soft: #5c6470; --line: #d8dce2; --bar: #2f6f9f; --page: #fff;
  --warn: #fff6e0; --edge: #d9a400; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --soft: #a5adb8; --line: #3a4048; --bar: #6fb1de;
  --page: #16191d; --warn: #33290f; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0 auto;
  max-width: 60rem; padding: 1.5rem; }
h1 { margin: 0; } h2 { margin: 2rem 0 .5rem; font-size: 1.15rem; }
p.lead { margin: .25rem 0 0; color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
table.words td { text-align: left; overflow-wrap: anywhere; } table.words td:first-child { color: var(--soft);
  white-space: nowrap; }
.wide { overflow-x: auto; }
ul.warnings { background: var(--warn); border-left: 4px solid var(--edge); margin: 0; padding: .7rem 1rem .7rem 2rem; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; } figure { margin: 0; flex: 1 1 16rem; }
figcaption { color: var(--soft); font-size: .9rem; } svg { width: 100%; height: auto; display: block; }
rect { fill: var(--bar); } svg text { fill: var(--soft); font-size: 9px; } svg line { stroke: var(--line); }
</style>
</head>
<body>
<h1>{{ card.name }}</h1>
<p class="lead">{{ summary }}</p>
{% if card.warnings %}<h2>To know</h2>
<ul class="warnings">{% for warning in card.warnings %}<li>{{ warning }}</li>{% endfor %}</ul>{% endif %}
<h2>Samples</h2>
<div class="wide"><table>
<tr><th>split</th><th>samples</th>{% for name in card.modalities %}<th>{{ name }}</th>{% endfor %}</tr>
{% for split, title in splits.items() %}<tr><td>{{ title }}</td><td>{{ "{:,}".format(card.sizes[split]) }}</td>
{% for shape in card.modalities.values() %}<td>{{ shape | join(" × ") }}</td>{% endfor %}</tr>{% endfor %}
</table></div>
<p class="lead">Task: {{ task }}. A shape of two numbers is steps × features.</p>
{% if plots %}<h2>Labels</h2>
<div class="plots">{% for plot in plots %}<figure>
<svg viewBox="0 0 {{ plot.width }} {{ height + 26 }}" role="img" aria-label="Labels of the {{ plot.title }} split">
<line x1="0" x2="{{ plot.width }}" y1="{{ height + 10 }}" y2="{{ height + 10 }}"/>
{% for bar in plot.bars %}<rect x="{{ bar.x }}" y="{{ bar.y }}" width="{{ bar.width }}" height="{{ bar.height }}">
<title>{{ bar.label }}: {{ "{:,}".format(bar.count) }}</title></rect>{% endfor %}
{% for tick in plot.ticks %}<text x="{{ tick.x }}" y="{{ height + 22 }}" text-anchor="middle">{{ tick.label }}</text>
{% endfor %}<text x="0" y="8">{{ "{:,}".format(plot.most) }}</text>
</svg><figcaption>{{ plot.title }}: {{ plot.what }}</figcaption></figure>{% endfor %}</div>{% endif %}
{% if card.statistics %}<h2>Values</h2>
<div class="wide"><table>
<tr><th>modality</th><th>split</th><th>mean</th><th>std</th><th>lowest</th><th>highest</th><th>zero rows</th></tr>
{% for name, of_splits in card.statistics.items() %}{% for split, title in splits.items() %}
<tr><td>{{ name if loop.first }}</td><td>{{ title }}</td>
{% for key in ("mean", "std", "low", "high") %}<td>{{ "{:.4g}".format(of_splits[split][key]) }}</td>{% endfor %}
<td>{{ "{:.1%}".format(of_splits[split]["zero_rows"]) }}</td></tr>{% endfor %}{% endfor %}
</table></div>
<p class="lead">As stored, before the data set's options. A row is one step of a sequence, or one vector; rows of zeros
are padding, or a modality the sample does not have.</p>{% endif %}
<h2>Where it comes from</h2>
<table class="words">
{% for key, value in provenance.items() %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>{% endfor %}
</table>
</body>
</html>
"""


def write_page(directory: Path, about: Mapping[str, str]) -> Path:
    """Write `card.html` beside the card of a store.

    Args:
        directory: the store.
        about: `summary`, `source`, `licence` of the data set.

    Raises:
        DataError: there is no store.
        OSError: the page cannot be written.
    """
    page = directory / PAGE
    text = page_of(read_card(directory), about)
    unfinished = directory.parent / f".{directory.name}.{PAGE}.tmp"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(page)
    return page


def page_of(card: Card, about: Mapping[str, str]) -> str:
    """The page of a card; every text in it is escaped."""
    from jinja2 import Environment

    provenance = {key: about[key] for key in ("source", "licence") if key in about}
    provenance |= {**card.provenance, "fingerprint": card.fingerprint, "bytes": f"{card.data_bytes:,}"}
    template = Environment(autoescape=True).from_string(TEMPLATE)
    return template.render(
        card=card,
        summary=about.get("summary", ""),
        splits=SPLIT_NAMES,
        task=", ".join(f"{key} {value}" if key != "kind" else str(value) for key, value in card.task.items()),
        plots=[_plot(split, card) for split in SPLITS if card.labels.get(split)],
        provenance=provenance,
        height=BAR_HEIGHT,
    )


def _plot(split: Any, card: Card) -> dict[str, Any]:
    """Bars of one split's label counts, in the units of its drawing; beyond `MAX_BARS` the most frequent."""
    counts = card.labels[split]
    what = "samples by value" if card.task.get("kind") == "regression" else "samples by class"
    if len(counts) > MAX_BARS:
        kept = sorted(counts, key=lambda label: -counts[label])[:MAX_BARS]
        counts, what = {label: counts[label] for label in kept}, f"the {MAX_BARS} most frequent labels"
    most, width = max([*counts.values(), 1]), 320
    step = width / len(counts)
    bars = []
    for i, (label, count) in enumerate(counts.items()):
        tall = BAR_HEIGHT * count / most
        bars.append({
            "x": f"{i * step + step * 0.08:.1f}", "width": f"{step * 0.84:.1f}", "y": f"{10 + BAR_HEIGHT - tall:.1f}",
            "height": f"{tall:.1f}", "label": label, "count": count,
        })  # fmt: skip
    every = max(1, -(-len(counts) // 8))
    ticks = [{"x": f"{(i + 0.5) * step:.1f}", "label": f"{label:.9}"} for i, label in enumerate(counts)][::every]
    return {"title": SPLIT_NAMES[split], "bars": bars, "ticks": ticks, "most": most, "width": width, "what": what}


def page_is_current(directory: Path) -> bool:
    """Whether the page is there and not older than the card."""
    page, card = directory / PAGE, directory / CARD
    return page.exists() and page.stat().st_mtime_ns >= card.stat().st_mtime_ns
