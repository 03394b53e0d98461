"""Sources of one's own: a package that is not ours offers one under the entry point group `kvandal.sources`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from collectors.counters import CounterStore
from collectors.source import Source
from stream.clock import Clock

GROUP = "kvandal.sources"


class PluginError(ValueError):
    """A source of one's own cannot be had; the message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What the agent hands to a source of one's own.

    `gateway` is the identity of the machine that reads, `counters` where device counters are kept between starts.
    """

    gateway: str
    clock: Clock
    counters: CounterStore | None = None


PluginFactory = Callable[[Mapping[str, object], PluginContext], Source]


def make_plugin_source(name: str, settings: Mapping[str, object], context: PluginContext) -> Source:
    """The source that the entry point `name` makes of its settings. PluginError, also for what the factory raises."""
    entry = _entry_point(name)
    try:
        factory: PluginFactory = entry.load()
        source = factory(settings, context)
    except Exception as error:  # somebody else's code: whatever it raises is about this source alone
        raise PluginError(f"source {name} ({entry.value}) does not start: {type(error).__name__}: {error}") from error
    if source.name != name:
        raise PluginError(f"source {name} ({entry.value}) calls itself {source.name!r}; both names must be the same")
    return source


def _entry_point(name: str) -> EntryPoint:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        there_are = ", ".join(sorted(found)) or "none"
        raise PluginError(
            f"no installed package offers a source {name} in the entry point group {GROUP} (there are: {there_are}); "
            "install it beside kvandal"
        )
    return found[name]
