"""Where a preview's links lead: to files beside it, or to pages of the same server with range and variables."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlencode

Values = Mapping[str, Sequence[str]]
_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


class Links(Protocol):
    """What a page needs to know to link to others."""

    def page(self, uid: str) -> str: ...

    def of_value(self, template: str, value: str) -> str | None:
        """A link as the dashboard's JSON has it, for one value; None where it leads nowhere from here."""
        ...


class FileLinks:
    """Pages as files in one folder: they know nothing of each other's values."""

    def page(self, uid: str) -> str:
        return f"{uid}.html"

    def of_value(self, template: str, value: str) -> str | None:
        del template, value
        return None


@dataclass(frozen=True, slots=True)
class ServedLinks:
    """Pages that a server draws when they are asked for; `span` is the range as their addresses have it."""

    span: Mapping[str, str]
    values: Values

    def page(self, uid: str) -> str:
        """As Grafana's menu: with the range, and the variables, of which a page takes those that it has."""
        chosen = [(f"var-{name}", one) for name, names in self.values.items() for one in names]
        return f"/d/{uid}?{urlencode([*self.span.items(), *chosen])}"

    def of_value(self, template: str, value: str) -> str | None:
        if not value:
            return None
        return _PLACEHOLDER.sub(lambda found: self._filled(found[1], value), template)

    def _filled(self, placeholder: str, value: str) -> str:
        """The placeholders that links of ours use, as Grafana documents them. KeyError for another."""
        name, _, form = placeholder.partition(":")
        if placeholder == "__url_time_range":
            return urlencode(self.span)
        if placeholder == "__value.raw:percentencode":
            return quote(value, safe="")
        if form == "queryparam":
            return urlencode([(f"var-{name}", one) for one in self.values[name]])
        (only,) = self.values[name]
        return only
