"""The report as one HTML file that works offline: figures inlined, light and dark, readable without colour.

Nothing is loaded from elsewhere, and the page forbids it. Without JavaScript everything is there but sorting,
filters, copying and the switch of colours; views switch without it.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING, Any

from analysis.sections.base import Block, Grid, Head, Picture, Say, Section, Source, Views

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

LARGEST_SVG = 700_000
"""Bytes of an SVG that is inlined; a larger one (thousands of points) is shown as its PNG."""


def to_html(
    title: str,
    context: Mapping[str, object],
    sections: Sequence[Section],
    tables: Mapping[int, str],
    *,
    ui: str = "",
) -> str:
    """The whole page; every name is escaped.

    Args:
        title: heading of the page.
        context: how the results were made, as name -> value.
        sections: in their order.
        tables: `id` of a `Grid` -> its files beside the page, without suffix.
        ui: where links of numbers lead, for a sentence.
    """
    ids = count(1)
    shown = [
        {"id": section.key, "title": section.title, "items_": [_item(block, tables, ids) for block in section.blocks]}
        for section in sections
    ]
    text = _template().render(
        title=title, context=context, sections=shown, linked=ui, css=_asset("page.css"), js=_asset("page.js")
    )
    return text.lstrip()


def _item(block: Block, tables: Mapping[int, str], ids: Iterator[int]) -> dict[str, Any]:
    """A block in the template's terms."""
    name = f"b{next(ids)}"
    match block:
        case Head(text):
            return {"kind": "head", "id": name, "text": text}
        case Say(text, kind):
            return {"kind": "say", "text": text, "style": kind}
        case Source(caption, text):
            return {"kind": "source", "id": name, "caption": caption, "text": text}
        case Grid() if not block.shown:
            return {"kind": "file", "caption": block.caption, "n": len(block.rows), "file": tables[id(block)]}
        case Grid():
            rows = list(zip(block.rows, block.repeats(), strict=True))
            latex = not block.latex.startswith("%")
            return {
                "kind": "grid",
                "id": name,
                "grid": block,
                "rows": rows,
                "file": tables[id(block)],
                "has_latex": latex,
            }
        case Picture():
            image = _image(block, name)
            return {"kind": "picture", "caption": block.caption, "image": image, "file": block.name}
        case Views(title, views):
            shown = [(view, [_item(part, tables, ids) for part in parts]) for view, parts in views]
            return {"kind": "views", "id": name, "name": title, "views": shown}


# ---- figures ----------------------------------------------------------------------------------------------


def _image(figure: Picture, prefix: str) -> "Markup":
    """The figure inside the page: its SVG with ids of its own, or its PNG where that is far smaller."""
    from markupsafe import Markup

    label = escape(figure.alt, quote=True)
    if len(figure.svg) > LARGEST_SVG:
        image = b64encode(figure.png).decode()
        return Markup(f'<img alt="{label}" src="data:image/png;base64,{image}">')  # nosec B704  # escaped above
    svg = figure.svg.decode()
    svg = svg[svg.index("<svg") :]
    for part in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style[^>]*>.*?</style>"):
        svg = re.sub(part, "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)  # ids of two figures must not meet
    svg = re.sub(r"\n\s*", " ", svg)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))  # nosec B704  # by Matplotlib


# ---- template ---------------------------------------------------------------------------------------------


def _asset(name: str) -> "Markup":
    """A file of this package's own, which needs no escaping."""
    from markupsafe import Markup

    text = files("analysis.templates").joinpath(name).read_text(encoding="utf-8")
    return Markup(text.strip())  # nosec B704  # of this package


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("analysis.templates").joinpath("page.html").read_text(encoding="utf-8"))
