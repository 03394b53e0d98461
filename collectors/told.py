"""What a source has told of its resources, so that what it says again keeps the time since when it holds."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from stream.messages import InventoryMessage


class ToldBefore:
    """The latest message about each resource of a source."""

    def __init__(self) -> None:
        self._told: dict[int, InventoryMessage] = {}

    def dated(self, message: InventoryMessage) -> InventoryMessage:
        """The message, with the time of the first that said the same since something else was said."""
        before = self._told.get(message.resource)
        if before is not None and replace(message, valid_from_ms=before.valid_from_ms) == before:
            return before
        self._told[message.resource] = message
        return message

    def all_dated(self, messages: Iterable[InventoryMessage]) -> Sequence[InventoryMessage]:
        """All that there is to tell, one message for each resource; what is no longer there is forgotten."""
        self._told = {message.resource: self.dated(message) for message in messages}
        return list(self._told.values())
