"""A publication as one HTML page that needs nothing else: no network, no script."""

from reports.publishing.layout import laid_out
from reports.publishing.publication import Language, Publication, Seal
from reports.render import template_environment


def render_html(publication: Publication, language: Language, seal: Seal | None = None) -> str:
    """The page. Every text is escaped; only charts, whose texts Vega has escaped, go in as markup."""
    own = publication.page(seal) if language is Language.ENGLISH else None
    if own is not None:
        return own
    template = template_environment().get_template("publication.html")
    return template.render(page=laid_out(publication, language, seal))
