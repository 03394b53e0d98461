"""How far ingest has stored a log, for agents whose broker forgets everything on restart."""

from collections.abc import Sequence
from uuid import UUID

from stream.client import KafkaAddress, kafka_errors, make_admin
from stream.topics import INGESTED


class GroupProgress:
    """The offsets that ingest's group has committed, and the identity of the topics they belong to."""

    def __init__(self, address: KafkaAddress, *, group: str, topics: Sequence[str] = ()) -> None:
        self._group = group
        self._topics = list(topics or (topic.name for topic in INGESTED))
        self._admin = make_admin(address)
        self._topic_ids = self._ask_topic_ids()

    def stored(self) -> dict[tuple[str, int], int]:
        """By topic and partition the offset below which everything is stored. LogUnavailableError."""
        with kafka_errors("asking how far ingest has come"):
            offsets = self._admin.list_group_offsets(self._group)[self._group]
        return {(place.topic, place.partition): committed.offset for place, committed in offsets.items()}

    def log_was_renewed(self) -> bool:
        """Whether a topic was made anew since the last call."""
        found = self._ask_topic_ids()
        renewed = found != self._topic_ids
        self._topic_ids = found
        return renewed

    def close(self) -> None:
        self._admin.close()

    def _ask_topic_ids(self) -> dict[str, UUID]:
        with kafka_errors("asking for the topics"):
            described = self._admin.describe_topics(self._topics)
        return {topic["name"]: UUID(str(topic["topic_id"])) for topic in described if not topic["error_code"]}
