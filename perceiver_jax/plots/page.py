"""One HTML file that holds all of a report: tables that sort, figures, pictures, nothing to fetch.

Strings that enter a page are escaped, but for the parts that these functions have made. A page
reads on a telephone and on a desk, and in the reader's choice of light or dark.
"""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image


class Cell(NamedTuple):
    """A table's cell.

    Attributes:
      text: what is shown, with line ends.
      value: what it is sorted by; None sorts by the text.
      kind: a CSS class: `good`, `bad`, `unsure`, `wide` for long text.
    """

    text: str
    value: float | None = None
    kind: str = ""


class Table(NamedTuple):
    """Columns and rows; a cell is a `Cell` or text.

    `stacked` rows become cards on a narrow screen; others scroll sideways.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    stacked: bool = False

    def markdown(self) -> str:
        """As a table of GitHub's Markdown."""
        lines = [self.columns, ["---"] * len(self.columns)]
        lines += [[_as_cell(cell).text for cell in row] for row in self.rows]
        return "\n".join(
            "| " + " | ".join(c.replace("|", "\\|").replace("\n", "<br>") for c in line) + " |"
            for line in lines
        )

    def html(self) -> str:
        """A table whose headers sort it."""
        head = "".join(
            f'<th scope="col"><button type="button">{html.escape(name)}</button></th>'
            for name in self.columns
        )
        body = "".join(f"<tr>{self._row(row)}</tr>" for row in self.rows)
        kind = " stacked" if self.stacked else ""
        return (
            f'<div class="scroll{kind}"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def _row(self, row: Sequence[Cell | str]) -> str:
        cells = []
        for name, cell in zip(self.columns, map(_as_cell, row), strict=True):
            value = "" if cell.value is None else f' data-value="{cell.value:.6g}"'
            numeric = " number" if cell.value is not None else ""
            text = "".join(f"<div>{html.escape(line)}</div>" for line in cell.text.split("\n"))
            cells.append(
                f'<td data-label="{html.escape(name)}" class="{cell.kind}{numeric}"{value}>'
                f"{text}</td>"
            )
        return "".join(cells)


def _as_cell(cell: Cell | str) -> Cell:
    return cell if isinstance(cell, Cell) else Cell(cell)


def render(figure: Figure, kind: str) -> bytes:
    """A figure as `svg`, `pdf` or `png`, the same bytes for the same figure.

    An SVG has no background, so that it can lie on any page.
    """
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "page"}):
        options = {"svg": {"metadata": {"Date": None}, "transparent": True},
                   "pdf": {"metadata": {"CreationDate": None}}, "png": {"dpi": 150}}  # fmt: skip
        figure.savefig(file, format=kind, **options[kind])
    return file.getvalue()


def png(image: np.ndarray) -> bytes:
    """A uint8 image `[H, W, 1 or 3]`."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


def embed(data: bytes, kind: str, alt: str) -> str:
    """An image element that holds its data; `kind` is `png`, `svg+xml`, ..."""
    code = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{code}">'


def plot(figure: Figure, *parts: str, title: str, text: str) -> str:
    """A figure with its text beside it, below it on a narrow screen. Dark pages invert it.

    `parts` of a page follow the text.
    """
    return (
        f'<figure class="plot">{embed(render(figure, "svg"), "svg+xml", title)}<figcaption>'
        f"<strong>{html.escape(title)}</strong>{paragraphs(text)}{''.join(parts)}"
        "</figcaption></figure>"
    )


def strip(images: Sequence[tuple[np.ndarray, str]]) -> str:
    """Small images in a row, each with its caption, pixels shown as squares."""
    items = "".join(
        f"<figure>{embed(png(image), 'png', caption)}<figcaption>{html.escape(caption)}"
        "</figcaption></figure>"
        for image, caption in images
    )
    return f'<div class="strip">{items}</div>'


def picture(data: bytes, inches: float, title: str, text: str) -> str:
    """A PNG of photographs, `inches` wide, with its text above it.

    A dark page does not invert it, and a narrow one scrolls it sideways.
    """
    image = f'<div style="min-width: {3.2 * inches:.0f}rem">{embed(data, "png", title)}</div>'
    return media(f'<div class="sideways">{image}</div>', title=title, text=text)


def media(part: str, *, title: str, text: str) -> str:
    """A part of a page, such as a video, with its text above it."""
    return (
        f'<figure class="media"><figcaption><strong>{html.escape(title)}</strong>'
        f"{paragraphs(text)}</figcaption>{part}</figure>"
    )


def video(data: bytes, title: str) -> str:
    """An mp4 that plays at a click."""
    code = base64.b64encode(data).decode()
    return (
        f'<video controls playsinline aria-label="{html.escape(title)}" '
        f'src="data:video/mp4;base64,{code}"></video>'
    )


def audio(data: bytes, title: str) -> str:
    """A WAV file that plays at a click."""
    code = base64.b64encode(data).decode()
    return (
        f'<audio controls aria-label="{html.escape(title)}" src="data:audio/wav;base64,{code}">'
        "</audio>"
    )


def item(part: str, lines: Sequence[str]) -> str:
    """A part of a strip, with lines below it."""
    text = "".join(f"<div>{html.escape(line)}</div>" for line in lines)
    return f"<figure>{part}<figcaption>{text}</figcaption></figure>"


def code(text: str) -> str:
    """Text as it is, such as a command."""
    return f"<pre><code>{html.escape(text)}</code></pre>"


def section(title: str, *parts: str) -> str:
    """Parts of a page under a heading."""
    return f'<section id="{anchor(title)}"><h2>{html.escape(title)}</h2>{"".join(parts)}</section>'


def anchor(title: str) -> str:
    """The name of the section of this title in links."""
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def details(summary: str, *parts: str) -> str:
    """Parts that open at a click."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(parts)}</details>"


def paragraphs(text: str) -> str:
    """Text as paragraphs; an empty line parts them."""
    return "".join(f"<p>{html.escape(part)}</p>" for part in text.split("\n\n") if part.strip())


def page(title: str, *parts: Any) -> str:
    """The whole document. Its policy forbids a browser to fetch anything."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{''.join(parts)}</main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --ground: #ffffff; --raised: #f6f8fa;
  --good: #1a7f37; --bad: #b42318; --unsure: #7d5a00; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #a0a8b2; --line: #3a414a; --ground: #15181c; --raised: #1e2329;
    --good: #5fd07f; --bad: #ff8f85; --unsure: #e3b341; --link: #79b8ff; }
  .plot img { filter: invert(0.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
main { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.3rem; margin-top: 2.5rem; }
h3 { font-size: 1.05rem; margin-top: 1.5rem; }
p { max-width: 44rem; } a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; }
nav a { padding: 0.4rem 0; }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; }
th, td { padding: 0.4rem 0.6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
th { background: var(--raised); white-space: nowrap; padding: 0; }
th button { all: unset; display: block; width: 100%; box-sizing: border-box; cursor: pointer;
  padding: 0.5rem 0.6rem; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: -2px; }
th[aria-sort] button::after { content: " \\25B2"; font-size: 0.7em; }
th[aria-sort="descending"] button::after { content: " \\25BC"; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.wide { white-space: normal; min-width: 40rem; }
td div + div { margin-top: 0.3rem; }
td:first-child div:first-child { font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); } .unsure { color: var(--unsure); }
td.good div + div, td.bad div + div, td.unsure div + div { color: var(--soft); }
td.good div:first-child, td.bad div:first-child, td.unsure div:first-child { font-weight: 600; }
@media (min-width: 45.01rem) { .stacked td { min-width: 9rem; } .stacked td:first-child { width:
  24%; } .stacked td:nth-child(2) { width: 20%; } }
.plots { display: grid; gap: 1.5rem; grid-template-columns: minmax(0, 1fr); }
figure { margin: 0; }
.plot { display: grid; gap: 0.5rem 1.5rem; align-items: start;
  grid-template-columns: minmax(0, 1fr); padding: 0.75rem; border: 1px solid var(--line);
  border-radius: 6px; }
.plot img { width: 100%; max-width: 36rem; height: auto; }
figcaption { font-size: 0.9rem; } figcaption p { margin: 0.4rem 0; }
.media { margin: 1.5rem 0; } .media video { max-width: 100%; }
.sideways { overflow-x: auto; } .sideways img { display: block; width: 100%; height: auto; }
pre { overflow-x: auto; padding: 0.75rem; background: var(--raised); border-radius: 6px;
  border: 1px solid var(--line); font-size: 0.8rem; white-space: pre-wrap; }
td.code { font-family: ui-monospace, monospace; font-size: 0.8rem; }
td.words { white-space: normal; min-width: 10rem; }
.strip { display: flex; flex-wrap: wrap; gap: 0.75rem; }
.strip figure { width: 6.25rem; } 
.strip figcaption { color: var(--soft); font-size: 0.75rem; line-height: 1.3; }
.strip img { width: 100%; image-rendering: pixelated; border: 1px solid var(--line); }
.strip.large figure { width: 9.5rem; } .strip audio { width: 100%; }
.strip img + img { margin-top: 0.25rem; }
details { margin: 1rem 0; } summary { cursor: pointer; padding: 0.4rem 0; color: var(--link); }
@media (min-width: 60rem) { .plot { grid-template-columns: minmax(0, 36rem) minmax(0, 1fr); } }
@media (max-width: 45rem) {
  .stacked { border: 0; overflow: visible; }
  .stacked table, .stacked tbody, .stacked tr, .stacked td { display: block; }
  .stacked thead { display: none; }
  .stacked tr { border: 1px solid var(--line); border-radius: 6px; margin: 0 0 1rem;
    padding: 0.25rem 0; }
  .stacked td { border-bottom: 0; white-space: normal; }
  .stacked td::before { content: attr(data-label); display: block; color: var(--soft);
    font-weight: 400; font-size: 0.75rem; }
}
"""

SCRIPT = """
for (const header of document.querySelectorAll("th")) {
  header.querySelector("button").addEventListener("click", () => {
    const up = header.getAttribute("aria-sort") !== "ascending";
    const row = header.parentNode, column = [...row.children].indexOf(header);
    for (const other of row.children) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = header.closest("table").tBodies[0];
    const key = (line) => {
      const cell = line.cells[column];
      return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
    };
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)], [m, n] = [typeof x === "number", typeof y === "number"];
      if (m !== n) return m ? -1 : 1;  // what has no number is last, up and down
      return (up ? 1 : -1) * (m ? x - y : x.localeCompare(y, "en", { numeric: true }));
    };
    const lines = [...body.rows].sort(order);
    body.append(...lines);
  });
}
"""
