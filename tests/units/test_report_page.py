"""The page of a report is whole, safe and self-contained."""

import html.parser
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from report_cases import everything

from tenfold.report.page import PLUS_MINUS, page
from tenfold.report.pictures import Bar, bars, ticks


class Strict(html.parser.HTMLParser):
    """Fails on tags that are not closed, on repeated attributes and on anything that would be loaded or run."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "a"), tag
        assert not [name for name in names if name in ("src", "href", "xlink:href", "style") or name.startswith("on")], (tag, names)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(text: str) -> Strict:
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    assert "://" not in text and "url(" not in text and "@import" not in text
    return parser


def test_page_says_how_far_the_accuracy_may_be_off():
    """Half of a 95 % interval, from the answers that changed; unknown without them."""
    result, _, _ = everything()
    dense, small = result.dense, result.small
    assert dense is not None and small is not None
    half = 196 * ((1 - 0.5 - (small.accuracy - dense.accuracy) ** 2) / 12) ** 0.5
    for agreement, shown in ((0.5, f"on 12 predictions, {PLUS_MINUS} {half:.2f} points<"), (None, "on 12 predictions<")):
        assert shown in page(replace(result, small=replace(small, agreement=agreement)))


def test_page_is_well_formed_and_loads_nothing():
    _, text, _ = everything()
    parser = parsed(text)
    assert text.startswith("<!DOCTYPE html>") and parser.tags.count("h1") == 1
    assert "default-src 'none'" in text and 'name="viewport"' in text and "prefers-color-scheme: dark" in text
    for picture in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        root = ElementTree.fromstring(picture)
        assert root.get("role") == "img" and len(root.get("aria-label", "")) > 20
        for element in root.iter():
            assert "nan" not in " ".join(element.attrib.values()).split()
    assert text.count("<svg") == 11  # totals, accuracy, 2 curves, parameters, FLOP, error, 2 speeds, 2 spectra


def test_page_shows_what_matters():
    result, text, _ = everything()
    words = " ".join(parsed(text).text)
    for part in (result.summary, *result.notes, "cp:rank=4", "no format is given for it", "tenfold compress a.py:net", "everything else"):
        assert part in words
    assert result.plan is not None and result.plan in "".join(parsed(text).text)
    for value in result.environment.values():
        assert value in words


def test_page_shows_text_of_others_as_text():
    result, _, _ = everything()
    evil = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"
    rows = tuple(
        replace(row, name=evil, kind=evil, reason=evil, format=evil, statement=evil + "1", ranks={evil: 1}) for row in result.layers
    )
    spectra = tuple(replace(one, name=evil) for one in result.spectra)
    environment = {**result.environment, "device": evil, evil: evil}
    text = page(replace(result, model=evil, layers=rows, spectra=spectra, plan=evil, command=evil, environment=environment))
    parser = parsed(text)
    assert "<script" not in text and "<img" not in text
    assert evil in "".join(parser.text)  # shown as it is, not removed


def test_page_of_a_model_with_many_layers():
    result, _, _ = everything()
    rows = tuple(replace(result.layers[1], name=f"encoder.layers.{k}.attention.self.query", params_before=1000 + k) for k in range(200))
    spectra = tuple(replace(result.spectra[0], name=row.name, size=k) for k, row in enumerate(rows, 1))
    text = page(replace(result, layers=rows, spectra=spectra))
    parser = parsed(text)
    assert "The 80 largest of 200 layers" in text and "the 120 largest of 200 layers" in text
    assert parser.tags.count("tr") == 1 + 200 + 2
    assert '<th scope="row">encoder.layers.0.attention.self.query' in text
    folded = '<details><summary>200 layers</summary><div class="scroll"'
    assert folded in text and folded.replace("200", "120") not in page(replace(result, layers=rows[:120]))


def test_bars_of_long_names_and_of_nothing():
    name = "model." + "block." * 20 + "weight"
    picture = bars("x", [Bar(name, 1.0, 2.0, "half", mark=0.5)])
    assert "\u2026" in picture and name in picture  # short on the picture, whole in its title
    for empty in (bars("x", []), bars("x", [Bar("a", 0.0, 0.0, "0")])):
        ElementTree.fromstring(empty)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (82.6, 91.7), (-1, 1), (1e-5, 3e-5), (0.3, 1234.0), (91.7, 91.7)])
def test_ticks_are_few_and_around_the_values(low, high):
    values = ticks(low, high)
    assert 2 <= len(values) <= 7 and values[0] <= low + 1e-12 and values[-1] >= high - 1e-9
    assert values == sorted(set(values))
