"""The report as one HTML file that works offline: figures inlined, light and dark, readable without colour."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from analysis.tables import Cell, Row, Table

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1c1c1c; --soft: #5c5c5c; --page: #ffffff; --line: #d9d9d9; --band: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --soft: #ababab; --page: #16181b; --line: #3b3f45; --band: #1f2227; }
}
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
a { color: inherit; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 .3rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 2px solid var(--line); }
tbody th { font-weight: 400; }
th.name { text-align: left; }
tbody { border-bottom: 1px solid var(--line); }
tbody tr:nth-child(even) { background: var(--band); }
p.note { margin: 0 0 1.5rem; color: var(--soft); font-size: .88rem; max-width: 60rem; }
u { text-underline-offset: 3px; }
</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
<dl>{% for name, value in context.items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
</header>
{% if notes %}
<section aria-labelledby="notes">
<h2 id="notes">What to know first</h2>
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
</section>
{% endif %}
<nav aria-label="Data sets"><ul>
{% for section in sections %}<li><a href="#set-{{ loop.index }}">{{ section.dataset }}</a></li>{% endfor %}
</ul></nav>
<main>
{% for section in sections %}
<section aria-labelledby="set-{{ loop.index }}">
<h2 id="set-{{ loop.index }}">{{ section.dataset }}</h2>
{% if section.figure %}
<figure><img src="{{ section.figure }}" alt="{{ section.alt }}"></figure>
{% endif %}
{% for table in section.tables %}
<div class="wide" role="region" tabindex="0" aria-label="{{ table.caption }}">
<table>
<caption>{{ table.caption }}</caption>
<thead><tr><th scope="col">label ratio</th><th scope="col" class="name">modalities</th>
{% for method in table.methods %}<th scope="col">{{ method }}</th>{% endfor %}</tr></thead>
{% for ratio, rows in table.rows | groupby("label_ratio") %}
<tbody>
{% for row in rows %}
<tr><th scope="row">{{ row.ratio }}</th><th scope="row" class="name">{{ row.modalities }}</th>
{% for tag, text in styled(table, row) %}
<td>{% if tag %}<{{ tag }}>{{ text }}</{{ tag }}>{% else %}{{ text }}{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
<p class="note">{{ table.notes | join(" ") }}</p>
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""


def to_html(
    title: str,
    context: Mapping[str, object],
    notes: Sequence[str],
    tables: Sequence[Table],
    figures: Mapping[str, bytes],
) -> str:
    """The whole page; every name is escaped, and nothing is loaded from elsewhere.

    Args:
        title: heading of the page.
        context: how the results were made, as name -> value.
        notes: what a reader must know first, in sentences.
        tables: all tables; those of one data set stand together.
        figures: data set -> SVG. As images and not inline, so that ids of two figures never meet.
    """
    sections = []
    for dataset in dict.fromkeys(table.dataset for table in tables):
        own = [table for table in tables if table.dataset == dataset]
        source = f"data:image/svg+xml;base64,{b64encode(figures[dataset]).decode()}" if dataset in figures else ""
        alt = f"Bar chart of {own[0].caption}, by modality subset and label ratio; the table below has its numbers."
        sections.append({"dataset": dataset, "figure": source, "alt": alt, "tables": own})
    return _template().render(title=title, context=context, notes=notes, sections=sections, styled=_styled)


def _styled(table: Table, row: Row) -> list[tuple[str, str]]:
    """Each cell of a row as (tag around it or "", text)."""
    return [(_tag(cell), text) for cell, text in zip(row.cells, table.texts(row), strict=True)]


def _tag(cell: Cell) -> str:
    return "strong" if cell.best else "u" if cell.second else ""


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE)
