"""The embedded stack behind `kvandal demo` and `kvandal up`: broker, store with ingest, agents."""

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kvandal.broker import EmbeddedBroker
from kvandal.children import Child
from kvandal.fault import Fault
from storage.client import StoreAddress
from storage.roles import RoleName

_START_S = 60.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class StackOptions:
    """One embedded stack: everything it keeps is under `data`."""

    data: Path
    broker_port: int = 0
    door_port: int = 0
    keep_days: int = 400  # of raw readings: a simulated month is older than the fleet's seven days
    drain_s: int = 120
    fault: Fault | None = None


@dataclass(slots=True)
class Stack:
    """The running processes. Enter it to start broker and store; leaving ends everything, agents first."""

    options: StackOptions
    door_url: str = ""
    metrics_url: str = ""
    _passwords: Mapping[RoleName, str] = field(
        default_factory=lambda: {name: secrets.token_urlsafe(24) for name in (RoleName.INGEST, RoleName.REPORTS)},
        repr=False,
    )
    _broker: EmbeddedBroker | None = None
    _store: Child | None = None
    _agents: Child | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def bootstrap(self) -> str:
        return self._broker.bootstrap if self._broker else ""

    def address(self, role: RoleName) -> StoreAddress:
        """The store as that role sees it, over the door."""
        return StoreAddress(self.door_url, role, self._passwords[role])

    def start_agents(self, arguments: Sequence[str]) -> None:
        """Start the process that produces; `arguments` are its verb and options."""
        self._agents = self._child("agent", [*arguments, "--broker", self.bootstrap])

    def watch(self, on_facts: Callable[[dict[str, Any]], None], *, until: Callable[[], bool]) -> None:
        """Hand on what the agents say until it is time; ChildError when a process ends by itself."""
        while not until() and self._agents and self._store:
            facts = self._agents.next_facts(0.2)
            self._store.check()
            if self._broker:
                self._broker.check()
            if facts is not None:
                on_facts(facts)

    def stop_agents(self) -> bool:
        """Stop producing and wait until everything produced is stored; False when something was left."""
        agents, self._agents = self._agents, None
        return agents is None or agents.stop(self.options.drain_s + _STOP_S) == 0

    def _start(self) -> None:
        options = self.options
        logs = options.data / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._broker = EmbeddedBroker.start(logs / "broker.log", port=options.broker_port)
        arguments = ["store", "--data", str(options.data / "clickhouse"), "--broker", self.bootstrap]
        arguments += ["--port", str(options.door_port), "--keep-days", str(options.keep_days)]
        self._store = self._child("store", arguments + (["--fault", options.fault] if options.fault else []))
        facts = self._store.next_facts(_START_S) or {}
        self.door_url, self.metrics_url = facts.get("door", ""), facts.get("metrics", "")

    def _child(self, name: str, arguments: Sequence[str]) -> Child:
        passwords = {f"KVANDAL_{role.upper()}_PASSWORD": text for role, text in self._passwords.items()}
        return Child(
            name,
            arguments,
            log_path=self.options.data / "logs" / f"{name}.log",
            environment={**os.environ, **passwords},
        )

    def _stop(self) -> None:
        self.stop_agents()
        if self._store is not None:
            self._store.stop(_STOP_S)
        if self._broker is not None:
            self._broker.stop()
