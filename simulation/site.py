"""The site's topology: what there is, what it is called, what belongs to what."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from catalogue import ResourceKind, resource_id
from simulation import power
from simulation.fluid import PG25, WATER

Ids = NDArray[np.uint64]
Ints = NDArray[np.int64]

GPUS_PER_TRAY = 4  # GB300: two superchips of two GPUs
TRAYS_PER_RACK = 18  # NVL72
RACKS_PER_CDU = 8
RACKS_PER_HALL = 350  # at most

OFF_TAKER = "Narvik industry park"

# Rows of the power table, in this order, then one IT meter for each hall.
SITE_METER, COOLING_METER, OTHER_METER, FIRST_IT_METER = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing of the site; `parent` and `serves` are resource ids, 0 and () where there is none."""

    kind: ResourceKind
    identity: str
    name: str
    parent: int = 0
    serves: tuple[int, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> int:
        return resource_id(self.kind, self.identity)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """Sizes, ids and places. Index arrays run over trays, racks, CDUs and halls in order.

    Ids: `gpu_ids` and `port_ids` (trays, 4), `tray_ids`, `rack_ids`, `cdu_ids`, `loop_ids` (one a hall),
    `heat_meter_ids` (handed over, rejected), `meter_ids` (site, cooling, other, IT of each hall).
    `rack_tray`, `cdu_rack`, `hall_rack` and `hall_cdu` hold the first child's index, as `reduceat` takes it.
    """

    name: str
    seed: int
    gpu_count: int
    gpu_ids: Ids
    port_ids: Ids
    tray_ids: Ids
    rack_ids: Ids
    cdu_ids: Ids
    loop_ids: Ids
    heat_meter_ids: Ids
    meter_ids: Ids
    tray_rack: Ints
    rack_tray: Ints
    rack_cdu: Ints
    rack_hall: Ints
    cdu_rack: Ints
    cdu_hall: Ints
    hall_rack: Ints
    hall_cdu: Ints

    @classmethod
    def build(cls, gpus: int, seed: int, name: str = "Kvandal") -> "Site":
        """A site of `gpus` GPUs; the last rack, CDU and hall may be partly filled."""
        if gpus < GPUS_PER_TRAY or gpus % GPUS_PER_TRAY:
            raise ValueError(f"gpus is {gpus}; give a positive multiple of {GPUS_PER_TRAY}, whole trays")
        places = _Places(name, seed, gpus // GPUS_PER_TRAY)
        racks = np.arange(places.racks)
        rack_hall = racks // RACKS_PER_HALL
        cdus_per_hall = -(-RACKS_PER_HALL // RACKS_PER_CDU)
        rack_cdu = rack_hall * cdus_per_hall + racks % RACKS_PER_HALL // RACKS_PER_CDU
        cdu_rack = np.flatnonzero(np.diff(rack_cdu, prepend=-1))
        cdu_hall = rack_hall[cdu_rack]
        ids = _ids
        return cls(
            name=name,
            seed=seed,
            gpu_count=gpus,
            gpu_ids=ids(ResourceKind.GPU, map(places.gpu, range(gpus))).reshape(-1, GPUS_PER_TRAY),
            port_ids=ids(ResourceKind.PORT, map(places.port, range(gpus))).reshape(-1, GPUS_PER_TRAY),
            tray_ids=ids(ResourceKind.TRAY, map(places.tray, range(places.trays))),
            rack_ids=ids(ResourceKind.RACK, map(places.rack, range(places.racks))),
            cdu_ids=ids(ResourceKind.CDU, map(places.cdu, range(len(cdu_rack)))),
            loop_ids=ids(ResourceKind.LOOP, map(places.loop, range(int(rack_hall[-1]) + 1))),
            heat_meter_ids=ids(ResourceKind.HEAT_METER, map(places.heat_meter, ("handed_over", "rejected"))),
            meter_ids=ids(ResourceKind.METER, map(places.meter, _meter_names(int(rack_hall[-1]) + 1))),
            tray_rack=np.arange(places.trays) // TRAYS_PER_RACK,
            rack_tray=racks * TRAYS_PER_RACK,
            rack_cdu=np.searchsorted(cdu_rack, racks, side="right") - 1,
            rack_hall=rack_hall,
            cdu_rack=cdu_rack,
            cdu_hall=cdu_hall,
            hall_rack=np.flatnonzero(np.diff(rack_hall, prepend=-1)),
            hall_cdu=np.flatnonzero(np.diff(cdu_hall, prepend=-1)),
        )

    @property
    def trays(self) -> int:
        return len(self.tray_ids)

    @property
    def racks(self) -> int:
        return len(self.rack_ids)

    @property
    def cdus(self) -> int:
        return len(self.cdu_ids)

    @property
    def halls(self) -> int:
        return len(self.loop_ids)

    @property
    def nominal_liquid_heat_w(self) -> float:
        """Heat into the coolant with every GPU at its limit."""
        trays_in_rack = np.diff(self.rack_tray, append=self.trays)
        return float(power.full_load_rack_watts(trays_in_rack).sum()) * power.LIQUID_FRACTION

    def trays_of_rack(self, rack: int) -> slice:
        return slice(rack * TRAYS_PER_RACK, min((rack + 1) * TRAYS_PER_RACK, self.trays))

    def racks_of_cdu(self, cdu: int) -> slice:
        ends = (*self.cdu_rack[1:], self.racks)
        return slice(int(self.cdu_rack[cdu]), int(ends[cdu]))

    def trays_of_cdu(self, cdu: int) -> slice:
        racks = self.racks_of_cdu(cdu)
        return slice(racks.start * TRAYS_PER_RACK, min(racks.stop * TRAYS_PER_RACK, self.trays))

    def resources(self) -> Iterator[Resource]:
        """Everything there is, parents before their parts."""
        return _Inventory(self).resources()


def _ids(kind: ResourceKind, identities: Iterator[str]) -> Ids:
    return np.array([resource_id(kind, identity) for identity in identities], dtype=np.uint64)


def _meter_names(halls: int) -> Iterator[str]:
    yield from ("site", "cooling", "other")
    yield from (f"it-{hall + 1}" for hall in range(halls))


@dataclass(frozen=True, slots=True)
class _Places:
    """The stable identities: what stays when a thing is moved or renamed."""

    site: str
    seed: int
    trays: int

    @property
    def racks(self) -> int:
        return -(-self.trays // TRAYS_PER_RACK)

    def gpu(self, gpu: int) -> str:
        digest = blake2b(f"{self.site}/{self.seed}/{gpu}".encode(), digest_size=16).digest()
        return f"GPU-{uuid.UUID(bytes=digest)}"

    def rack(self, rack: int) -> str:
        return f"{self.site}-{self.seed}-R{rack:05d}"

    def tray(self, tray: int) -> str:
        return f"{self.rack(tray // TRAYS_PER_RACK)}-T{tray % TRAYS_PER_RACK:02d}"

    def port(self, port: int) -> str:
        """A network adapter for each GPU."""
        tray, place = divmod(port, GPUS_PER_TRAY)
        return f"{self.tray(tray)}-P{place}"

    def cdu(self, cdu: int) -> str:
        return f"{self.site}-{self.seed}-CDU{cdu:04d}"

    def loop(self, hall: int) -> str:
        return f"{self.site}-{self.seed}-TCS{hall + 1}"

    def heat_meter(self, name: str) -> str:
        return f"{self.site}-{self.seed}-HM-{name}"

    def meter(self, name: str) -> str:
        return f"{self.site}-{self.seed}-EM-{name}"


class _Inventory:
    """Resources with their names and attributes, from a site's ids."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._places = _Places(site.name, site.seed, site.trays)
        self._site_id = resource_id(ResourceKind.SITE, site.name)
        self._hall_ids = [resource_id(ResourceKind.HALL, self._hall(h)) for h in range(site.halls)]
        self._off_taker_id = resource_id(ResourceKind.OFF_TAKER, OFF_TAKER)

    def resources(self) -> Iterator[Resource]:
        yield Resource(ResourceKind.SITE, self._site.name, self._site.name)
        for hall, identity in enumerate(map(self._hall, range(self._site.halls))):
            yield Resource(ResourceKind.HALL, identity, f"hall-{hall + 1}", self._site_id)
        yield Resource(ResourceKind.OFF_TAKER, OFF_TAKER, OFF_TAKER)
        yield from self._cooling()
        yield from self._meters()
        yield from map(self._rack, range(self._site.racks))
        yield from map(self._tray, range(self._site.trays))
        yield from map(self._gpu, range(self._site.gpu_count))
        yield from map(self._port, range(self._site.gpu_count))

    def _hall(self, hall: int) -> str:
        return f"{self._site.name}-{self._site.seed}-H{hall + 1}"

    def _rack_name(self, rack: int) -> str:
        return f"hall-{self._site.rack_hall[rack] + 1} / rack {rack % RACKS_PER_HALL + 1:02d}"

    def _tray_name(self, tray: int) -> str:
        return f"{self._rack_name(tray // TRAYS_PER_RACK)} / tray {tray % TRAYS_PER_RACK + 1:02d}"

    def _rack(self, rack: int) -> Resource:
        trays = self._site.trays_of_rack(rack)
        nominal = float(power.full_load_rack_watts(trays.stop - trays.start))
        attributes = {
            "model": "NVIDIA GB300 NVL72",
            "fluid": PG25.name,
            "flow_meter_at": "supply",
            "nominal_power_watts": f"{nominal:.0f}",
        }
        parent = self._hall_ids[self._site.rack_hall[rack]]
        return Resource(
            ResourceKind.RACK, self._places.rack(rack), self._rack_name(rack), parent, attributes=attributes
        )

    def _tray(self, tray: int) -> Resource:
        attributes = {"model": "GB300 compute tray", "gpus": str(GPUS_PER_TRAY)}
        rack = int(self._site.rack_ids[tray // TRAYS_PER_RACK])
        return Resource(ResourceKind.TRAY, self._places.tray(tray), self._tray_name(tray), rack, attributes=attributes)

    def _gpu(self, gpu: int) -> Resource:
        tray, place = divmod(gpu, GPUS_PER_TRAY)
        attributes = {"model": "NVIDIA GB300", "nominal_power_watts": f"{power.GPU_LIMIT_W:.0f}"}
        name = f"{self._tray_name(tray)} / gpu {place}"
        parent = int(self._site.tray_ids[tray])
        return Resource(ResourceKind.GPU, self._places.gpu(gpu), name, parent, attributes=attributes)

    def _port(self, port: int) -> Resource:
        tray, place = divmod(port, GPUS_PER_TRAY)
        parent = int(self._site.tray_ids[tray])
        name, attributes = f"{self._tray_name(tray)} / port {place}", {"model": "ConnectX-8", "rate": "800 Gb/s"}
        return Resource(ResourceKind.PORT, self._places.port(port), name, parent, attributes=attributes)

    def _cooling(self) -> Iterator[Resource]:
        yield from map(self._loop, range(self._site.halls))
        yield from map(self._cdu, range(self._site.cdus))
        for name, role, serves in (
            ("handed_over", "heat_handed_over", (self._off_taker_id,)),
            ("rejected", "heat_rejected", ()),
        ):
            attributes = {"role": role, "fluid": WATER.name, "flow_meter_at": "return", "class": "EN 1434 class 2"}
            if serves:
                attributes["off_taker"] = OFF_TAKER
            identity, title = self._places.heat_meter(name), f"heat meter {name.replace('_', ' ')}"
            yield Resource(ResourceKind.HEAT_METER, identity, title, self._site_id, serves, attributes)

    def _loop(self, hall: int) -> Resource:
        attributes = {"role": "loop", "loop_type": "TCS", "fluid": PG25.name, "off_taker": OFF_TAKER}
        attributes["flow_meter_at"] = "supply"
        name = f"hall-{hall + 1} / TCS loop"
        parent = self._hall_ids[hall]
        return Resource(ResourceKind.LOOP, self._places.loop(hall), name, parent, (self._off_taker_id,), attributes)

    def _cdu(self, cdu: int) -> Resource:
        hall = int(self._site.cdu_hall[cdu])
        attributes = {"role": "cdu", "fluid": PG25.name, "primary_fluid": WATER.name, "flow_meter_at": "supply"}
        attributes["nominal_heat_watts"] = "1300000"
        name = f"hall-{hall + 1} / CDU {cdu - self._site.hall_cdu[hall] + 1:02d}"
        racks = tuple(map(int, self._site.rack_ids[self._site.racks_of_cdu(cdu)]))
        parent = int(self._site.loop_ids[hall])
        return Resource(ResourceKind.CDU, self._places.cdu(cdu), name, parent, racks, attributes)

    def _meters(self) -> Iterator[Resource]:
        yield from self._meter("site", "site", "grid", "0.5S", (self._site_id,), "before the transfer switch")
        yield from self._meter("cooling", "cooling", "cooling", "1", tuple(map(int, self._site.cdu_ids)), "input")
        yield from self._meter("other", "other", "lighting and offices", "1", (self._site_id,), "input")
        for hall in range(self._site.halls):
            racks = tuple(map(int, self._site.rack_ids[self._site.rack_hall == hall]))
            yield from self._meter(f"it-{hall + 1}", "it", f"hall-{hall + 1} IT", "0.5S", racks, "UPS output")

    def _meter(
        self, name: str, role: str, title: str, accuracy: str, serves: tuple[int, ...], at: str
    ) -> Iterator[Resource]:
        feeder = Resource(
            ResourceKind.FEEDER,
            f"{self._site.name}-{self._site.seed}-F-{name}",
            f"feeder {title}",
            self._site_id,
            serves,
        )
        attributes = {"role": role, "class": accuracy, "measured_at": at}
        yield feeder
        yield Resource(ResourceKind.METER, self._places.meter(name), f"meter {title}", feeder.id, serves, attributes)
