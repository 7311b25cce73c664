"""A Markdown page as one HTML file that needs nothing else: its figures are inside it."""

import base64
import html
import re
from pathlib import Path

import markdown

CSS = """
:root { color-scheme: light; }
body { margin: 0; background: #f4f5f6; color: #1d2125; font: 16px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 76rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; background: #fff; }
h1 { font-size: clamp(1.4rem, 4vw, 2rem); line-height: 1.2; margin: .6em 0; }
h2 { font-size: 1.2rem; margin: 2.2em 0 .6em; padding-bottom: .25em; border-bottom: 1px solid #dde1e4; }
h3 { font-size: 1rem; margin: 1.6em 0 .5em; }
blockquote { margin: 1em 0; padding: .1em 1.1em; border-left: 4px solid #0072b2; background: #f1f6fa; }
img { display: block; max-width: 100%; height: auto; margin: 1.2em auto; }
.table { overflow-x: auto; margin: 1em 0; }
table { border-collapse: collapse; font-size: .77rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35em .45em; border-bottom: 1px solid #e6e9eb; white-space: nowrap; }
th { border-bottom: 2px solid #b9c0c5; vertical-align: bottom; white-space: normal; }
tbody tr:hover { background: #f7f9fa; }
code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .92em; background: #eef1f3;
       padding: .05em .3em; border-radius: 3px; }
pre { overflow-x: auto; background: #eef1f3; padding: .6em .8em; border-radius: 3px; font-size: .85rem; }
pre code { background: none; padding: 0; }
li { margin: .35em 0; }
p, li { max-width: 60rem; }
@media print {
  body { background: #fff; font-size: 10pt; } main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; } img, table { break-inside: avoid; } .table { overflow: visible; }
  pre { white-space: pre-wrap; } table { font-size: 6.5pt; } th, td { padding: .25em .35em; white-space: normal; }
}
"""


def html_page(text: str, folder: Path) -> str:
    """``text`` (Markdown, its first line the title) as a whole page; images below ``folder`` become SVG data."""
    title = text.splitlines()[0].lstrip("# ")
    body = markdown.markdown(text, extensions=["tables"])
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    body = re.sub(r'src="([^":]+)\.png"', lambda match: f'src="{_embedded(folder / f"{match[1]}.svg")}"', body)
    return (
        '<!DOCTYPE html>\n<html lang="en-GB">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _embedded(path: Path) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
