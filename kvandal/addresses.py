"""Where things are, from the settings; without the clients that go there."""

from kvandal.settings import KafkaSettings
from stream.client import KafkaAddress


def kafka_address(settings: KafkaSettings) -> KafkaAddress:
    return KafkaAddress(settings.bootstrap)
