"""Texts from outside, made fit to be drawn: with nothing in them but what can be seen.

vl-convert ends the whole process, or never returns, when a chart's text has a control character in it: XML has no way
to write one. A line end in a title breaks the expression that Vega makes of it.
"""

import re
from typing import TypeVar, cast

_LINE_ENDS = re.compile("[\t\n\r\v\f\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


Data = TypeVar("Data")


def drawable(data: Data) -> Data:
    """The same data, in each text spaces for line ends, and its code for every other character that cannot be drawn."""
    found: object = data
    if isinstance(data, str):
        found = _CONTROL.sub(lambda one: f"U+{ord(one[0]):04X}", _LINE_ENDS.sub(" ", data))
    elif isinstance(data, dict):
        found = {key: drawable(value) for key, value in data.items()}
    elif isinstance(data, list):
        found = [drawable(value) for value in data]
    return cast(Data, found)
