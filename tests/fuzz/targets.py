"""All targets by name."""

from tests.fuzz.device_targets import DEVICE_TARGETS
from tests.fuzz.door_targets import DOOR_TARGETS
from tests.fuzz.site_targets import SITE_TARGETS
from tests.fuzz.stream_targets import STREAM_TARGETS

TARGETS = {target.name: target for target in (*STREAM_TARGETS, *DEVICE_TARGETS, *SITE_TARGETS, *DOOR_TARGETS)}
