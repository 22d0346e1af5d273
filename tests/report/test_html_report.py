"""The page parses, embeds its pictures bit by bit, escapes its text and asks for nothing outside."""

import base64
import re
from html.parser import HTMLParser

from pgm_jax.report import html_report


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.text, self.sources, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_a_page_holds_all_it_shows():
    pictures = [("mean <1>", bytes(range(256))), ("std", b"\x89PNG")]
    text = html_report("a & b", pictures, {"draws": 8, "<script>": "</table>"}, "not a medical device")
    page = _Page()
    page.feed(text)
    assert [base64.b64decode(source.split(",")[1]) for source in page.sources] == [png for _, png in pictures]
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "script" not in page.tags and page.tags.count("table") == 1 and page.tags.count("tr") == 2
    assert {"a & b", "mean <1>", "<script>", "</table>", "not a medical device"} <= set(page.text)
    assert not re.search(r"https?://", text)
