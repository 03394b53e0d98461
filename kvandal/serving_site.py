"""`kvandal simulate --serve`: the simulated site through DSX, Modbus and Redfish, and the settings that read it."""

import dataclasses
import ipaddress
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from functools import partial
from pathlib import Path
from threading import Event
from typing import Literal
from zlib import crc32

import msgspec
import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from catalogue import ResourceKind
from collectors.dsx.settings import DsxSettings
from collectors.modbus.map import MapPoint, RegisterMap
from collectors.modbus.map_file import load_register_map
from collectors.modbus.registers import Order
from collectors.modbus.settings import OWN_ATTRIBUTES, ModbusDevice, ModbusSettings
from collectors.redfish.settings import RedfishDevice, RedfishResource, RedfishSettings
from kvandal.serving import tell_parent
from kvandal.settings import AgentSection, AgentSettings, KafkaSettings
from simulation import Resource, Simulation, Site
from simulation.power import SUPPLIES_PER_RACK
from simulation.serving import Moment, ServedSite, Server
from simulation.serving.dsx import BrokerAddress, BusRack, DsxBms
from simulation.serving.modbus import ModbusDevice as ServedDevice
from simulation.serving.modbus import ModbusServing, Register, Value
from simulation.serving.redfish import Account, Controller, RedfishServing
from simulation.serving.redfish_documents import (
    CDU,
    LOOP,
    Documents,
    Nameplate,
    Tree,
    cdu_documents,
    loop_documents,
    rack_documents,
)
from simulation.serving.serving import row_of

METER_MAP, HEAT_METER_MAP = "power_meter_three_phase", "heat_meter_en1434"
METERS_PER_PORT = 100  # units behind one address, as behind a serial gateway; an address has 247
CERTIFICATE_DAYS = 365
SAVE_EVERY_S = 60.0
SETTINGS_FILE, STATE_FILE = "gateway.toml", "site.npz"
_PASSWORD_FILE, _CERTIFICATE_FILE, _KEY_FILE = "redfish.password", "redfish.pem", "redfish.key"
USERNAME = "kvandal"
_WORDS_ON_PLATE = {"manufacturer": "Simulated", "model": "Simulated meter"}


class RacksThrough(StrEnum):
    """Which of its two protocols racks are read through: a row of one rack must not come twice."""

    DSX = "dsx"  # what a building system has: no energy registers
    REDFISH = "redfish"  # controllers of the racks: all that the simulator has


def mqtt_address(
    address: str, *, username: str = "", password_file: Path | None = None, ca_file: str = ""
) -> BrokerAddress:
    """The MQTT broker at HOST:PORT. Raises ValueError, and OSError when the password cannot be read."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{address!r} is no MQTT broker; give HOST:PORT, such as 127.0.0.1:1883")
    password = password_file.read_text().strip() if password_file else ""
    return BrokerAddress(host=host.strip("[]"), port=int(port), username=username, password=password, ca_file=ca_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The site and where it is served. `folder` keeps its state, the settings for an agent, and their secrets.

    Redfish needs a port for each controller: a CDU, a loop, a rack where these are read through it. They follow
    `redfish_port`; ports of 0 are free ones.
    """

    folder: Path
    gpus: int
    seed: int = 1
    fault_rate: float = 1.0
    tick_s: float = 1.0  # how often what is shown changes
    interval_s: int = 10  # how often the written settings read it
    host: str = "127.0.0.1"
    racks_through: RacksThrough = RacksThrough.DSX
    broker: BrokerAddress | None = None  # of MQTT; needed for racks through DSX
    broker_password_file: str = ""
    modbus_port: int = 5020
    redfish_port: int = 8443
    kafka: str = ""  # bootstrap address, for the written settings

    def __post_init__(self) -> None:
        if self.racks_through is RacksThrough.DSX and self.broker is None:
            raise ValueError("racks are served through DSX, which needs an MQTT broker: give its HOST:PORT")
        if not 0 < self.tick_s <= 10:
            raise ValueError(f"tick_s is {self.tick_s:g}; give seconds above 0, and 10 at most: so often a heart beats")


@dataclass(slots=True)
class Serving:
    """A site that is served: what moves it, and the settings with which an agent reads it. Close it in the end."""

    site: ServedSite
    settings: AgentSettings
    settings_file: Path
    _bus: DsxBms | None
    _controllers: RedfishServing
    _closing: ExitStack

    def said(self) -> int:
        """How many values the building system has published."""
        return self._bus.said if self._bus else 0

    def requests(self) -> int:
        """How often the controllers have been asked for something."""
        return self._controllers.requests()

    def close(self) -> None:
        self._closing.close()


def serve_site(options: ServeOptions, stop: Event) -> None:
    """Serve the site until `stop`. Says on stdout, as a JSON line, where the settings for an agent are.

    The site goes on where it was when the folder has its state. Raises OSError when a broker or port cannot be had.
    """
    state = options.folder / STATE_FILE
    simulation = _resume(options, state)
    serving = open_site(options, simulation)
    try:
        serving.site.advance(time.time())
        tell_parent({"phase": "serving", "settings": str(serving.settings_file)})
        saved_s = time.monotonic()
        while not stop.wait(options.tick_s - time.time() % options.tick_s):
            serving.site.advance(time.time())
            if time.monotonic() - saved_s >= SAVE_EVERY_S:
                _save(simulation, state)
                saved_s = time.monotonic()
    finally:
        serving.close()
    _save(simulation, state)


def open_site(options: ServeOptions, simulation: Simulation) -> Serving:
    """Serve a simulation, which shows nothing before it is advanced, and write the settings that read it."""
    options = dataclasses.replace(options, folder=options.folder.resolve())  # an agent runs where it likes
    options.folder.mkdir(parents=True, exist_ok=True)
    composed = _Composition(options, simulation.site)
    with ExitStack() as closing:
        bus = composed.bus(closing)
        controllers = composed.controllers(closing)
        servers = [composed.meters(closing), controllers, *([bus] if bus else [])]
        settings = composed.settings()
        file = options.folder / SETTINGS_FILE
        file.write_text(settings_document(settings))
        return Serving(ServedSite(simulation, servers), settings, file, bus, controllers, closing.pop_all())


def _resume(options: ServeOptions, state: Path) -> Simulation:
    """The site as it was, or a new one; meters count on while nobody serves them."""
    if not state.exists():
        site = Site.build(options.gpus, options.seed)
        return Simulation(site, int(time.time()), seed=options.seed, fault_rate=options.fault_rate)
    simulation = Simulation.load(state)
    if simulation.site.gpu_count != options.gpus or simulation.site.seed != options.seed:
        raise ValueError(
            f"{state} is a site of {simulation.site.gpu_count} GPUs with seed {simulation.site.seed}; give these, or "
            "another folder"
        )
    return simulation


def _save(simulation: Simulation, state: Path) -> None:
    """Nobody asks a served site for its jobs and events; kept, they would grow without end."""
    simulation.take_events()
    simulation.take_intervals()
    simulation.save(state)


class _Composition:
    """Makes the servers of one site and, from their ports, the settings that read them."""

    def __init__(self, options: ServeOptions, site: Site) -> None:
        self._options = options
        self._site = site
        self._resources = {resource.id: resource for resource in site.resources()}
        self._secrets = ServingSecrets.make(options.folder, options.host)
        self._meters: tuple[ModbusDevice, ...] = ()
        self._bmcs: tuple[RedfishDevice, ...] = ()

    # DSX --------------------------------------------------------------------------------------------------------------

    def bus(self, closing: ExitStack) -> DsxBms | None:
        if self._options.racks_through is not RacksThrough.DSX or self._options.broker is None:
            return None
        bms = DsxBms([BusRack(rack.identity, rack.name) for rack in self._racks()], self._options.broker)
        closing.callback(bms.close)
        bms.start()
        return bms

    def _dsx(self) -> DsxSettings | None:
        broker = self._options.broker
        if self._options.racks_through is not RacksThrough.DSX or broker is None:
            return None
        halls = [one for one in self._resources.values() if one.kind is ResourceKind.HALL]
        return DsxSettings(
            host=broker.host,
            port=broker.port,
            tls=bool(broker.ca_file),
            ca_file=_absolute(broker.ca_file),
            username=broker.username,
            password_file=_absolute(self._options.broker_password_file),
            # One bus of several halls does not tell them apart.
            hall=halls[0].identity if len(halls) == 1 else "",
            facts={rack.identity: rack.attributes for rack in self._racks()},
        )

    # Modbus -----------------------------------------------------------------------------------------------------------

    def meters(self, closing: ExitStack) -> Server:
        served = list(self._served_meters())
        behind = [served[first : first + METERS_PER_PORT] for first in range(0, len(served), METERS_PER_PORT)]
        first_port = self._options.modbus_port
        serving = ModbusServing(
            [[device for _, _, device in some] for some in behind],
            ports=[first_port + number if first_port else 0 for number in range(len(behind))],
            host=self._options.host,
        )
        closing.callback(serving.close)
        serving.start()
        self._meters = tuple(
            self._meter_settings(resource, map_name, device.unit, port)
            for some, port in zip(behind, serving.ports, strict=True)
            for resource, map_name, device in some
        )
        return serving

    def _served_meters(self) -> Iterator[tuple[Resource, str, ServedDevice]]:
        """Every meter and heat meter, with its map."""
        meters = [(int(one), METER_MAP, partial(meter_values, place=n)) for n, one in enumerate(self._site.meter_ids)]
        first = self._site.cdus + self._site.halls
        heat = [
            (int(one), HEAT_METER_MAP, partial(heat_meter_values, place=first + n))
            for n, one in enumerate(self._site.heat_meter_ids)
        ]
        maps = {name: load_register_map(name) for name in (METER_MAP, HEAT_METER_MAP)}
        for number, (identity, map_name, measure) in enumerate((*meters, *heat)):
            resource = self._resources[identity]
            unit = number % METERS_PER_PORT + 1
            yield resource, map_name, served_device(maps[map_name], unit, resource.identity, measure)

    def _meter_settings(self, resource: Resource, map_name: str, unit: int, port: int) -> ModbusDevice:
        attributes = dict(resource.attributes)
        said = {name: attributes.pop(name, "") for name in ("role", "class", "measured_at")}
        return ModbusDevice(
            name=resource.name,
            host=self._options.host,
            port=port,
            unit=unit,
            map=map_name,
            identity=resource.identity,
            parent=self._place(resource.parent) if resource.parent else None,
            serves=tuple(map(self._place, resource.serves)),
            role=said["role"],
            accuracy_class=said["class"],
            measured_at=said["measured_at"],
            attributes={name: text for name, text in attributes.items() if name not in OWN_ATTRIBUTES},
        )

    # Redfish ----------------------------------------------------------------------------------------------------------

    def controllers(self, closing: ExitStack) -> RedfishServing:
        made = [*self._cdus(), *self._loops()]
        if self._options.racks_through is RacksThrough.REDFISH:
            made += self._rack_controllers()
        first_port = self._options.redfish_port
        serving = RedfishServing(
            [controller for controller, _ in made],
            ports=[first_port + number if first_port else 0 for number in range(len(made))],
            host=self._options.host,
            certificate=self._secrets.certificate,
            key=self._secrets.key,
        )
        closing.callback(serving.close)
        serving.start()
        self._bmcs = tuple(
            replace(device, url=f"https://{_bracketed(self._options.host)}:{port}")
            for (_, device), port in zip(made, serving.ports, strict=True)
        )
        return serving

    def _cdus(self) -> Iterator[tuple[Controller, RedfishDevice]]:
        for place, identity in enumerate(self._site.cdu_ids):
            resource = self._resources[int(identity)]
            documents = partial(_cooling, cdu_documents, Nameplate("CDU 1300", resource.identity), place)
            yield self._controller(documents), self._device(resource, f"/redfish/v1/{CDU}", "loop")

    def _loops(self) -> Iterator[tuple[Controller, RedfishDevice]]:
        for number, identity in enumerate(self._site.loop_ids):
            resource = self._resources[int(identity)]
            plate, place = Nameplate("Hall controller", resource.identity), self._site.cdus + number
            documents = partial(_cooling, loop_documents, plate, place)
            yield self._controller(documents), self._device(resource, f"/redfish/v1/{LOOP}", "hall")

    def _rack_controllers(self) -> Iterator[tuple[Controller, RedfishDevice]]:
        for place, resource in enumerate(self._racks()):
            documents = partial(_rack, Nameplate("Rack controller", resource.identity), place)
            parent = self._resources[resource.parent].identity
            device = replace(self._sign_in(resource), rack=resource.identity, parent_kind="hall", parent=parent)
            yield self._controller(documents), device

    def _controller(self, documents: Callable[[Moment], Tree]) -> Controller:
        return Controller(documents, Account(USERNAME, self._secrets.password))

    def _device(self, resource: Resource, path: str, parent_kind: Literal["hall", "loop"]) -> RedfishDevice:
        served = [self._resources[one] for one in resource.serves if one in self._resources]
        said = RedfishResource(
            identity=resource.identity,
            name=resource.name,
            role=resource.attributes.get("role", ""),
            serves=tuple(one.identity for one in served if one.kind is ResourceKind.RACK),
        )
        parent = self._resources[resource.parent].identity
        return replace(self._sign_in(resource), parent_kind=parent_kind, parent=parent, resources={path: said})

    def _sign_in(self, resource: Resource) -> RedfishDevice:
        """What every controller's settings have; its port is known when it listens."""
        return RedfishDevice(
            name=resource.identity,
            url="https://localhost",
            username=USERNAME,
            password_file=str(self._secrets.password_file),
            fingerprint_sha256=self._secrets.fingerprint,
            sensors="none",
        )

    # Settings ---------------------------------------------------------------------------------------------------------

    def settings(self) -> AgentSettings:
        """What an agent needs to read all this; to be asked for when everything listens."""
        interval_s, dsx = self._options.interval_s, self._dsx()
        return AgentSettings(
            agent=AgentSection(
                sources=("modbus", "redfish", *(("dsx",) if dsx else ())),
                dsx_interval_s=interval_s,
                spool=str(self._options.folder / "spool.db"),
            ),
            kafka=KafkaSettings(bootstrap=self._options.kafka) if self._options.kafka else KafkaSettings(),
            dsx=dsx,
            modbus=ModbusSettings(interval_s=interval_s, devices=self._meters),
            redfish=_redfish_settings(interval_s, self._bmcs),
        )

    def _racks(self) -> list[Resource]:
        return [self._resources[int(identity)] for identity in self._site.rack_ids]

    def _place(self, resource: int) -> str:
        one = self._resources[resource]
        return f"{one.kind}:{one.identity}"


# What devices show ----------------------------------------------------------------------------------------------------


def meter_values(moment: Moment, *, place: int) -> Mapping[str, float]:
    """What an electrical meter measures; apparent power is what the power factor says."""
    values = row_of(moment.power, place)
    return {**values, "apparent_power": values["active_power_watts"] / values["power_factor_ratio"]}


def heat_meter_values(moment: Moment, *, place: int) -> Mapping[str, float]:
    """What a heat meter measures, at its place among the cooling table's rows."""
    values = row_of(moment.cooling, place)
    hot, cold = (values[f"primary_{end}_temperature_celsius"] for end in ("supply", "return"))
    return {**values, "temperature_difference": hot - cold}


def served_device(
    register_map: RegisterMap, unit: int, identity: str, measure: Callable[[Moment], Mapping[str, float]]
) -> ServedDevice:
    """A device that has exactly the map's registers; its serial number follows from its identity."""
    serial = crc32(identity.encode()) % 99_999_999 + 1  # eight digits, as they are engraved
    plate: dict[str, Value] = {
        point.name: serial if point.type else _WORDS_ON_PLATE.get(point.name, f"{serial:08d}")
        for point in register_map.facts
    }
    return ServedDevice(unit, tuple(map(register_of, register_map.points)), plate, measure)


def register_of(point: MapPoint) -> Register:
    """How a device shows what the map reads there. Raises ValueError for bits and scale factors, which none has."""
    if point.bit is not None or point.scale_factor is not None:
        raise ValueError(f"{point.name}: bits and scale factors are not served; take a map without them")
    factor, shift = (point.unit.factor, point.unit.shift) if point.unit else (Fraction(1), Fraction(0))
    whole = [int(number) for number in point.absent if isinstance(number, int)]
    return Register(
        name=point.name,
        function=point.span.function,
        address=point.span.address,
        registers=point.span.count,
        code=point.type.code if point.type else "",
        step=point.scale * factor,
        shift=point.offset * factor + shift,
        counts=point.is_register,
        modulus=point.modulus,
        absent=whole[0] if whole else None,
        states={state: number for number, state in point.states.items()},
        low_word_first=point.word_order is Order.LITTLE,
        low_byte_first=point.byte_order is Order.LITTLE,
    )


def _cooling(make: Documents, plate: Nameplate, place: int, moment: Moment) -> Tree:
    return make(plate, row_of(moment.cooling, place))


def _rack(plate: Nameplate, place: int, moment: Moment) -> Tree:
    return rack_documents(plate, row_of(moment.rack, place), supplies=SUPPLIES_PER_RACK)


# Secrets and settings -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ServingSecrets:
    """The controllers' password and certificate, made anew at every start, each in a file that only we can read."""

    password: str = field(repr=False)
    password_file: Path
    certificate: Path
    key: Path
    fingerprint: str

    @classmethod
    def make(cls, folder: Path, host: str) -> "ServingSecrets":
        password, files = secrets.token_urlsafe(24), (_PASSWORD_FILE, _CERTIFICATE_FILE, _KEY_FILE)
        password_file, certificate_file, key_file = (folder / name for name in files)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key, host)
        _write_secret(password_file, password.encode())
        _write_secret(certificate_file, certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        _write_secret(key_file, key.private_bytes(pem, pkcs8, plain))
        fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        return cls(password, password_file, certificate_file, key_file, fingerprint)


def _self_signed(key: ec.EllipticCurvePrivateKey, host: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "simulated site")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
    builder = builder.not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
    builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
    return builder.sign(key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_secret(file: Path, content: bytes) -> None:
    """Nobody else can read it at any time."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(content)


def _absolute(file: str) -> str:
    return str(Path(file).resolve()) if file else ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _redfish_settings(interval_s: int, devices: Sequence[RedfishDevice]) -> RedfishSettings:
    deadline_s = max(0.5, 0.8 * interval_s)
    return RedfishSettings(
        devices=tuple(devices), interval_s=interval_s, deadline_s=deadline_s, request_timeout_s=max(0.5, deadline_s / 2)
    )


def settings_document(settings: AgentSettings) -> str:
    """The settings as TOML, without what is so by default."""
    head = "# Written by `kvandal simulate --serve` at its start: reads the simulated site. Changes here are lost.\n\n"
    return head + tomli_w.dumps(_given(settings))


def _given(settings: msgspec.Struct) -> dict[str, object]:
    fields = msgspec.structs.fields(settings)
    given = {one.encode_name: (getattr(settings, one.name), one.default) for one in fields}
    return {name: _plain(value) for name, (value, default) in given.items() if value is not None and value != default}


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return _given(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
