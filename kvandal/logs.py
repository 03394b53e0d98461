"""Log lines: a fixed sentence, then fields as key=value, on stderr."""

import logging
import sys
from typing import Any

from kvandal.talk import printable, printable_line

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """Appends what was given as `extra`; control characters from outside cannot forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        fields = [f"{key}={_quoted(value)}" for key, value in vars(record).items() if key not in _STANDARD]
        return " ".join([printable_line(super().formatMessage(record)), *fields])

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - logging's name and type
        return printable(super().formatException(ei))


def _quoted(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else repr(text)


def set_up_logs(*, verbose: bool = False) -> None:
    """Log to stderr: our own from INFO (DEBUG when verbose), the libraries' from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("collectors", "kvandal", "reports", "storage", "stream"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
    # The client libraries report every lost connection at length; our own sentences say what it means.
    for library in ("kafka", "urllib3.connectionpool", "clickhouse_connect"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
