"""Style of a report's page: light and dark, and the colours that its figures take."""

from __future__ import annotations

from causcell.evaluation import dot_plot, map_panels, shift_heat_map, shift_panels, verdict_cards

_COLOURS = (
    ":root{color-scheme:light dark;--text:#1c2430;--quiet:#5b6675;--back:#fff;--card:#f4f6f9;--line:#d3dae3;"
    "--model:#0072b2;--far:#c04f00;--good:#007a5a;--up:#d55e00;--down:#0072b2;--behind:#ccd3dc}"
    "@media(prefers-color-scheme:dark){:root{--text:#e6e9ee;--quiet:#a3adba;--back:#14181d;--card:#1e242c;"
    "--line:#3a4450;--model:#56b4e9;--far:#ff9248;--good:#2fc79b;--up:#ff8c3a;--down:#56b4e9;--behind:#414b57}}"
)
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008), each with its dark page's."""

_TEXT = (
    "body{font:16px/1.55 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:var(--text);"
    "background:var(--back)}h1{margin-bottom:.2rem;overflow-wrap:anywhere}h2{margin-top:2.6rem}"
    "h3{margin:2rem 0 .4rem}p{max-width:48rem}"
    "nav{columns:2;font-size:.92rem;background:var(--card);border-radius:8px;padding:.8rem 1.2rem;"
    "margin-top:1.6rem}"
    "nav a{display:block;color:inherit;margin:.1rem 0;break-inside:avoid}.silent{color:var(--quiet)}"
    "figure{margin:0}figcaption{color:var(--quiet);font-size:.9rem;max-width:48rem;margin-top:.3rem}"
    "table{border-collapse:collapse;font-size:13px;margin-top:.6rem}"
    "td,th{padding:.2em .7em;border-bottom:1px solid var(--line);text-align:right;font-variant-numeric:tabular-nums}"
    "td:first-child,th:first-child{text-align:left}pre,.scroll{overflow:auto}pre{background:var(--card);padding:.7em;white-space:pre-wrap;"
    "border-radius:6px}summary{cursor:pointer;color:var(--quiet)}dt{float:left;clear:left;font-weight:600;"
    "margin-right:.6rem}dd{margin:0 0 .3rem 0}"
)

STYLE = _COLOURS + _TEXT + "".join(
    each.STYLE for each in (verdict_cards, dot_plot, shift_panels, shift_heat_map, map_panels)
)  # fmt: skip
"""All of it."""


def embed_style(svg: str) -> str:
    """Return a figure of a report as a file of its own: with the style, on the page's background."""
    opening, end, body = svg.partition(">")
    return f'{opening}{end}<style>{STYLE}</style><rect width="100%" height="100%" fill="var(--back)"/>{body}'
