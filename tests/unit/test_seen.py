"""What comes out of `drawable` can be drawn, whatever went in: otherwise one name ends the process that draws it."""

import altair as alt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue.seen import drawable
from reports.charts import svg


@given(st.text())
def test_a_text_is_one_line_of_characters_that_xml_can_write(text: str) -> None:
    drawn = drawable(text)
    assert isinstance(drawn, str)
    assert len(drawn.splitlines()) <= 1
    assert not [one for one in drawn if ord(one) < 0x20 or 0x7F <= ord(one) < 0xA0 or 0xD800 <= ord(one) < 0xE000]


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert drawable({"name": [text, 1, None, True]}) == {"name": [text, 1, None, True]}


@pytest.mark.parametrize(
    "name", ["nul \x00", "\x1b[2J", "\r\nX: y", "line\nline", "\t", "\u2028", "\x9b", "\x7f", "</svg>"]
)
def test_a_chart_with_a_hostile_name_is_drawn(name: str) -> None:
    rows = alt.InlineData(values=[{"name": name, "value": 1}, {"name": "other", "value": 2}])
    chart = alt.Chart(rows, title=name).mark_bar().encode(
        alt.X("value:Q"), alt.Y("name:N", title=name), alt.Color("name:N")
    )  # fmt: skip

    drawn = svg(chart)

    assert drawn.startswith("<svg")
    assert "<svg onload" not in drawn
