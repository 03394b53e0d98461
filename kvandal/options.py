"""What several verbs share: options, and how they come to clients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from kvandal.settings import ClientSettings, load_settings

P = ParamSpec("P")
R = TypeVar("R")


class CannotError(click.ClickException):
    """One sentence, exit code 2."""

    exit_code = 2


def kafka_options(command: Callable[P, R]) -> Callable[P, R]:
    return click.option("--broker", metavar="HOST:PORT", help="Kafka bootstrap address. [setting kafka.bootstrap]")(
        command
    )


def store_options(command: Callable[P, R]) -> Callable[P, R]:
    command = click.option("--url", help="ClickHouse, as http://host:port. [setting store.url]")(command)
    return click.option("--user", help="User or role to connect as. [setting store.user]")(command)


def settings_options(command: Callable[P, R]) -> Callable[P, R]:
    command = click.option(
        "--config", type=click.Path(path_type=Path), help="TOML file with the settings of this process."
    )(command)
    return click.option("--check-config", is_flag=True, help="Print the effective settings and stop.")(command)


def client_settings(**flags: object) -> ClientSettings:
    names = {"url": "store.url", "user": "store.user", "broker": "kafka.bootstrap"}
    return load_settings(ClientSettings, flags={names[name]: value for name, value in flags.items()})


def connected(url: str | None, user: str | None) -> Any:  # noqa: ANN401 - clickhouse-connect's client
    from kvandal.addresses import store_address
    from storage.client import connect

    return connect(store_address(client_settings(url=url, user=user).store))
