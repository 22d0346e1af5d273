"""A report of a run in one HTML file that needs nothing beside it."""

import base64
import html
from collections.abc import Mapping, Sequence

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{heading}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}
figure {{ margin: 1.5rem 0; }}
figcaption, footer {{ color: #555; font-size: 13px; }}
td, th {{ padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top; }}
th {{ font-weight: normal; color: #555; }}
</style>
<h1>{heading}</h1>
{figures}
<table>
{rows}
</table>
<footer>{footnote}</footer>
</html>
"""


def html_report(
    heading: str, figures: Sequence[tuple[str, bytes]], facts: Mapping[str, object], footnote: str = ""
) -> str:
    """Builds the text of a self-contained HTML page: heading, figures with captions, a table of facts.

    Args:
        heading: title.
        figures: (caption, picture as the bytes of a PNG file).
        facts: name to value; values are shown by `str`.
        footnote: small text at the end.

    Returns:
        The page; all text in it is escaped, the pictures are embedded.
    """
    shown = [
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for caption, png in figures
    ]
    rows = [
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    ]
    return _PAGE.format(
        heading=html.escape(heading),
        figures="\n".join(shown),
        rows="\n".join(rows),
        footnote=html.escape(footnote),
    )
