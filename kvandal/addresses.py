"""Where things are, from the settings; without the clients that go there."""

from typing import TYPE_CHECKING

from kvandal.settings import KafkaSettings, StoreSettings
from stream.client import KafkaAddress
from stream.security import KafkaSecurity

if TYPE_CHECKING:
    from storage.client import StoreAddress


def kafka_address(settings: KafkaSettings) -> KafkaAddress:
    return KafkaAddress(
        settings.bootstrap,
        KafkaSecurity(
            tls=settings.tls,
            ca_file=settings.ca_file,
            certificate_file=settings.certificate_file,
            key_file=settings.key_file,
            username=settings.username,
            mechanism=settings.mechanism,
            password=settings.password,
            password_file=settings.password_file,
        ),
    )


def store_address(settings: StoreSettings) -> "StoreAddress":
    from storage.client import StoreAddress  # an agent has no client of ClickHouse

    return StoreAddress(settings.url, settings.user, settings.password, settings.database, settings.ca_file)
