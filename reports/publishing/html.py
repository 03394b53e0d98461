"""A publication as one HTML page that needs nothing else: no network, no script."""

import unicodedata

from markupsafe import Markup

from reports.publishing.layout import laid_out
from reports.publishing.publication import Language, Publication, Seal
from reports.render import template_environment

# Categories of Unicode that show nothing, or change how their neighbours are shown.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def render_html(publication: Publication, language: Language, seal: Seal | None = None) -> str:
    """The page. Every text is escaped; only charts, whose texts Vega has escaped, go in as markup."""
    own = publication.page(seal) if language is Language.ENGLISH else None
    if own is not None:
        return own
    environment = template_environment()
    environment.finalize = printable
    return environment.get_template("publication.html").render(page=laid_out(publication, language, seal))


def printable(value: object) -> object:
    """Text with what cannot be seen made visible: a name must not turn round, hide or break what stands beside it."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        "\ufffd" if unicodedata.category(letter) in _UNSEEN and letter not in "\n\u00ad" else letter for letter in value
    )
