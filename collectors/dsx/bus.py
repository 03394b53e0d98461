"""The MQTT connection to the BMS bus: metadata first, then values, for ever; it reads and never publishes.

MQTT 3.1.1 (OASIS, 2014). One thread connects, listens, and after a loss waits and begins anew, with everything that is
in files read again: certificates and tokens are renewed under us.
"""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from collectors.devices import DeviceError, DeviceReport, DeviceState
from collectors.dsx.message import METADATA_TOPICS, TRAY_LEAK_TOPICS, VALUE_TOPICS
from collectors.dsx.settings import DsxSettings

FIRST_PAUSE_S = 1.0  # before the broker is asked again; doubled each time it fails
LONGEST_PAUSE_S = 60.0
ROUND_S = 0.2  # how soon a stop is heeded
LONGEST_SETTLE_S = 10.0  # a bus on which metadata never end is read all the same
STOP_S = 2.0
MAX_PACKET_BYTES = 16 << 20  # brokers allow a megabyte or so; MQTT itself a quarter of a gigabyte
VERDICT_S = 0.15
MAX_SECRET_BYTES = 65_536

# MQTT 3.1.1 table 3.1, return codes 4 and 5, as paho names them in the numbers of MQTT 5.
_REFUSALS = frozenset({134, 135})

logger = logging.getLogger(__name__)

# A message: topic, payload, and whether it is live, not stored by the broker.
Receive = Callable[[str, bytes | bytearray, bool], None]


class _Listener(Client):
    """paho's client with a bound on what it takes, and a memory of why a connection ended.

    Both need its private `_sock_recv`: paho has no limit for MQTT 3.1.1, and turns every error of the socket into one
    number. tests/contract/test_dsx.py notices when a new version has no such method.
    """

    def __init__(self, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=True,  # what was missed is said again within 100 s; a queue at the broker would be old news
            protocol=MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        self.ended_by: DeviceError | None = None

    def _sock_recv(self, bufsize: int) -> bytes:
        try:
            if bufsize > MAX_PACKET_BYTES:
                raise ConnectionAbortedError(f"the broker sends a packet of more than {MAX_PACKET_BYTES} bytes")
            return super()._sock_recv(bufsize)
        except BlockingIOError:
            raise
        except OSError as error:
            self.ended_by = _as_device_error(error)
            raise


class _Session:
    """One connection, from connect to its end."""

    def __init__(self, settings: DsxSettings, client_id: str, receive: Receive, bad_topic: Callable[[], None]) -> None:
        self._settings = settings
        self._receive = receive
        self._bad_topic = bad_topic
        self._refused: DeviceError | None = None
        self._waits_for: dict[int, str] = {}  # topics, by the id of their SUBSCRIBE
        self._metadata_at_s: float | None = None  # the latest, once they were granted
        self._granted_at_s = self._asked_at_s = 0.0
        self.is_ready = False  # values come
        self.denied: list[str] = []  # topics that we may do without
        self._client = self._make_client(client_id)

    def run(self, stop: Event, ready: Callable[[], None]) -> None:
        """Listen until `stop`. Raises DeviceError when the connection cannot be had, or is lost."""
        try:
            self._connect()
            while not (self.is_ready or stop.is_set()):
                self._prepare()
            if self.is_ready:
                ready()
            while not stop.is_set():
                self._check(self._client.loop(ROUND_S))
        finally:
            self._client.disconnect()
            # These lead back to us: without them all is freed at once, sockets included.
            self._client.on_connect = self._client.on_subscribe = self._client.on_message = None

    def _prepare(self) -> None:
        self._check(self._client.loop(min(ROUND_S, max(self._settings.settle_s / 4, 0.01))))
        if self._refused is not None:
            raise self._refused
        if self._metadata_at_s is None and monotonic() - self._asked_at_s > self._settings.connect_timeout_s:
            raise DeviceError(DeviceState.SLOW, "it did not answer in time")
        if self._is_settled():
            self._metadata_at_s = None
            self._subscribe(TRAY_LEAK_TOPICS, VALUE_TOPICS)

    def _make_client(self, client_id: str) -> _Listener:
        settings = self._settings
        client = _Listener(client_id)
        client.connect_timeout = settings.connect_timeout_s
        if settings.tls:
            client.tls_set_context(_tls_context(settings))
            client.on_socket_open = _hear_verdict
        if settings.username:
            client.username_pw_set(settings.username, _secret(settings.password_file))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _connect(self) -> None:
        self._asked_at_s = monotonic()
        try:
            self._client.connect(self._settings.host, self._settings.port, self._settings.keepalive_s)
        except OSError as error:
            raise _as_device_error(error) from error

    def _check(self, result: MQTTErrorCode) -> None:
        if result == MQTTErrorCode.MQTT_ERR_SUCCESS:
            return
        if self._refused is not None:
            raise self._refused
        if self._client.ended_by is not None:
            raise self._client.ended_by
        if result == MQTTErrorCode.MQTT_ERR_PROTOCOL:
            raise DeviceError(DeviceState.NONSENSE, "what it sends is not MQTT 3.1.1")
        if result == MQTTErrorCode.MQTT_ERR_NO_CONN:
            raise DeviceError(DeviceState.SLOW, f"it fell silent for {self._settings.keepalive_s} s")
        raise DeviceError(DeviceState.UNREACHABLE, "the connection ended")

    def _is_settled(self) -> bool:
        """Retained metadata come at once and in a row: they are all there when none has come for a while."""
        if self._metadata_at_s is None:
            return False
        now_s = monotonic()
        return now_s - self._metadata_at_s >= self._settings.settle_s or now_s - self._granted_at_s >= LONGEST_SETTLE_S

    def _subscribe(self, *topics: str) -> None:
        self._asked_at_s = monotonic()
        for topic in topics:
            _, message_id = self._client.subscribe(topic, self._settings.qos)
            if message_id is not None:
                self._waits_for[message_id] = topic

    def _on_connect(
        self,
        client: Client,  # noqa: ARG002 - the callback's signature
        userdata: Any,  # noqa: ANN401, ARG002
        flags: Any,  # noqa: ANN401, ARG002
        reason: ReasonCode,
        properties: Properties | None,  # noqa: ARG002
    ) -> None:
        if not reason.is_failure:
            self._subscribe(METADATA_TOPICS)
        elif reason.value in _REFUSALS:
            self._refused = DeviceError(DeviceState.REFUSED, f"the broker does not let us in: {reason}")
        else:
            self._refused = DeviceError(DeviceState.UNREACHABLE, f"the broker cannot serve us: {reason}")

    def _on_subscribe(
        self,
        client: Client,  # noqa: ARG002
        userdata: Any,  # noqa: ANN401, ARG002
        message_id: int,
        reasons: list[ReasonCode],
        properties: Properties | None,  # noqa: ARG002
    ) -> None:
        topic = self._waits_for.pop(message_id, "")
        if any(reason.is_failure for reason in reasons):
            self._deny(topic)
        elif topic == METADATA_TOPICS:
            self._granted_at_s = self._metadata_at_s = monotonic()
        elif topic == VALUE_TOPICS:
            self.is_ready = True

    def _deny(self, topic: str) -> None:
        if topic == TRAY_LEAK_TOPICS:
            self.denied.append(topic)
        else:
            self._refused = DeviceError(DeviceState.REFUSED, f"the broker does not let us subscribe to {topic}")

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:  # noqa: ANN401, ARG002
        if self._metadata_at_s is not None:
            self._metadata_at_s = monotonic()
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._bad_topic()
        else:
            self._receive(topic, message.payload, not message.retain)


class DsxBus:
    """Keeps a connection to the broker. `receive` and `bad_topic` are called by the bus's own thread.

    Nothing happens before `start`. No method blocks for longer than it says.
    """

    def __init__(
        self, settings: DsxSettings, *, client_id: str, receive: Receive, bad_topic: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._client_id = settings.client_id or client_id
        self._receive = receive
        self._bad_topic = bad_topic
        self._state = DeviceState.UNKNOWN
        self._why = ""
        self._denied: tuple[str, ...] = ()
        self._stop = Event()
        self._settled = Event()  # values come, or it is known why they do not
        self._thread: Thread | None = None

    def start(self) -> None:
        """Connect, in a thread of our own. Harmless when repeated."""
        if self._thread is None and not self._stop.is_set():
            self._thread = Thread(target=self._run, name="dsx-bus", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Until values come, or it is known why they do not."""
        self._settled.wait(timeout_s)

    def report(self) -> DeviceReport:
        """How the connection does. Any thread may ask."""
        return DeviceReport(f"{self._settings.host}:{self._settings.port}", self._state, self._why)

    def denied(self) -> tuple[str, ...]:
        """Topics that the broker does not let us read, and without which we go on."""
        return self._denied

    def close(self) -> None:
        """Listen no more; waits for two seconds at most. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            was_ready = self._listen()
            failures = 0 if was_ready else failures + 1
            self._settled.set()
            self._stop.wait(min(FIRST_PAUSE_S * 2 ** min(max(failures - 1, 0), 30), LONGEST_PAUSE_S))

    def _listen(self) -> bool:
        """One session; True when values came in it."""
        was_ready = False
        try:
            session = _Session(self._settings, self._client_id, self._receive, self._bad_topic)
            try:
                session.run(self._stop, lambda: self._note_ready(session))
            finally:
                was_ready = session.is_ready
        except DeviceError as error:
            self._note(error.state, str(error))
        except Exception as error:  # the seam where the library ends: no packet may end the thread
            self._note(DeviceState.NONSENSE, f"{type(error).__name__}: {error}")
        return was_ready

    def _note_ready(self, session: _Session) -> None:
        self._denied = tuple(session.denied)
        self._note(DeviceState.OK, "")
        self._settled.set()

    def _note(self, state: DeviceState, why: str) -> None:
        if (state, why) == (self._state, self._why):
            return
        is_news = state is not self._state and not (self._state is DeviceState.UNKNOWN and state is DeviceState.OK)
        self._state, self._why = state, why
        if is_news:
            level = logging.INFO if state is DeviceState.OK else logging.WARNING
            bus = self.report().device
            logger.log(level, "the BMS bus is %s now%s", state.value, f": {why}" if why else "", extra={"bus": bus})


def _hear_verdict(client: Client, userdata: Any, opened: Any) -> None:  # noqa: ANN401, ARG001 - paho's signature
    """Wait a moment for what the broker thinks of our certificate, before we write.

    In TLS 1.3 it judges it when we believe that we are through (RFC 8446, 4.4.2.4). Its word is lost once we have
    written to a connection that it has closed. A broker that lets us in says nothing before we do.
    """
    before = opened.gettimeout()
    opened.settimeout(VERDICT_S)
    try:
        said = opened.recv(1)
    except TimeoutError:
        return
    finally:
        opened.settimeout(before)
    if said:
        raise ConnectionAbortedError("it speaks before it was spoken to, which MQTT brokers never do")
    raise ConnectionResetError("it closed the connection")


def _tls_context(settings: DsxSettings) -> ssl.SSLContext:
    """What the broker has to show, and what we show it. Raises DeviceError for files that cannot be read."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_file or None)
        if settings.certificate_file:
            context.load_cert_chain(settings.certificate_file, settings.key_file, password="")
    except (OSError, ValueError) as error:
        text = f"dsx.ca_file, dsx.certificate_file and dsx.key_file: {_reason(error)}"
        raise DeviceError(DeviceState.UNTRUSTED, text) from error
    return context


def _secret(file: str) -> str | None:
    """The first line of a file; None without a file. Raises DeviceError, which never has the text in it."""
    if not file:
        return None
    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_SECRET_BYTES).decode().partition("\n")[0].strip()
    except OSError as error:
        raise DeviceError(DeviceState.REFUSED, f"dsx.password_file {file}: {_reason(error)}") from error
    except UnicodeDecodeError:
        raise DeviceError(DeviceState.REFUSED, f"dsx.password_file {file} is not UTF-8") from None


def _as_device_error(error: OSError) -> DeviceError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return DeviceError(DeviceState.UNTRUSTED, f"its certificate is not one that we trust: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        # An alert is the broker's own word: it does not like what we show, or that we show nothing.
        state = DeviceState.REFUSED if "ALERT" in (error.reason or "") else DeviceState.NONSENSE
        return DeviceError(state, f"no TLS with it: {error.reason or _reason(error)}")
    if isinstance(error, TimeoutError):
        return DeviceError(DeviceState.SLOW, "it did not answer in time")
    if isinstance(error, ConnectionAbortedError):
        return DeviceError(DeviceState.NONSENSE, str(error))
    return DeviceError(DeviceState.UNREACHABLE, _reason(error))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
