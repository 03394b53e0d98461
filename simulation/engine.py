"""The simulation: moves the site forward and shows what its sensors would show.

Between events every GPU draws floor + swing·w(t), with w its job's drive, so that energy over any
step is exact; events (jobs, faults, repairs) touch only the trays they concern. Heat, cooling and
meters follow once a step from the step's mean powers.
"""

import heapq
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogue import GPU, TRAY
from simulation import power, thermal
from simulation.carrier import RemainderCarrier
from simulation.climate import Climate
from simulation.columns import Columns, Facility, Instruments, cooling_columns, power_columns, rack_columns
from simulation.faults import Effect, Hazard, Scope, SiteEvent, Strike
from simulation.gpu import GpuView, gpu_columns, limits_w
from simulation.health import (
    CORRECTED_PER_S,
    RECOVERED_PER_S,
    SCALE_OUT_SHARE,
    TRACES,
    WEAKNESS_SIGMA,
    HealthView,
    PortView,
    health_columns,
    port_columns,
    trouble_of,
)
from simulation.host import HostView, host_columns
from simulation.jobs import (
    JobInterval,
    Scheduler,
    interval_document,
    interval_from,
    intervals_between,
    wave,
    wave_integral,
)
from simulation.plant import Plant
from simulation.site import FIRST_IT_METER, Site
from simulation.state import State
from simulation.store import Arrays, read_store, write_store
from simulation.truth import (
    HOUR_S,
    HOURLY_FLEET_GPUS,
    FacilityFigures,
    FleetFigures,
    GpuCondition,
    Outage,
    Truth,
    facility_arrays,
    facility_from,
    fleet_arrays,
    fleet_from,
)
from simulation.wander import Wander

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

LOOK_EVERY_S = 1800.0  # the scheduler looks for room even if nothing ended

_NO_TRAYS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Every table's columns in base units at an instant, NaN where absent.

    Shapes: gpu (trays, 4), tray (trays,), rack (racks,), cooling (CDUs + loops + 2,), power (meters,).
    """

    time_s: float
    gpu: Columns
    tray: Columns
    rack: Columns
    cooling: Columns
    power: Columns


@dataclass(frozen=True, slots=True)
class _Active:
    """A fault whose repair is under way: where its effects are counted."""

    first_tray: int
    end_tray: int
    gpu: int  # -1 for all of each tray
    strike: Strike
    place: int


class Simulation:
    """A site in motion. The same site, seed and sequence of steps and readings give the same result.

    `seed` drives jobs, faults and noise, each from its own stream: neither the size of steps nor
    the readings taken change what happens. `fault_rate` multiplies every fault's rate.
    """

    def __init__(self, site: Site, start_s: int, *, seed: int | None = None, fault_rate: float = 1.0) -> None:
        self.site = site
        self.start_s = start_s
        self.time_s = float(start_s)
        self.truth = Truth()
        self._seed = site.seed if seed is None else seed
        self._fault_rate = fault_rate
        self._draw_streams()
        self._queue: list[tuple[float, int, str, int]] = []
        self._pushed = 0
        self._active: dict[int, _Active] = {}
        self._open_outages: dict[int, Outage] = {}
        self._new_events: list[SiteEvent] = []
        self._new_intervals: list[JobInterval] = []
        # What the agents' energy counters have not given out yet, in whole counts of the catalogue.
        self.gpu_carrier = RemainderCarrier((site.trays, 4), float(GPU.metric("energy_joules").resolution))
        self.tray_carrier = RemainderCarrier((site.trays,), float(TRAY.metric("energy_joules").resolution))
        self._spent_j = np.zeros((site.trays, 4))
        self._kept_waves: dict[float, Floats] = {}  # by time
        self._state = State.new(site, float(start_s))
        self._begin()

    def _draw_streams(self) -> None:
        streams = np.random.SeedSequence([self._seed, self.site.seed]).spawn(4)
        plant, jobs, faults, noise = (np.random.default_rng(stream) for stream in streams)
        self._draw_plant(plant)
        self._scheduler = Scheduler(self.site.trays, jobs)
        self._hazard = Hazard(self.site.trays, self.site.racks, self._fault_rate, faults)
        self._noise = noise

    def _draw_plant(self, rng: np.random.Generator) -> None:
        """What differs from one device to the next and never changes."""
        site, gpu = self.site, (self.site.trays, 4)
        self._silicon = np.clip(rng.normal(1.0, 0.02, gpu), 0.94, 1.06)
        self._idle_w = np.clip(rng.normal(power.GPU_IDLE_W, 6.0, gpu), 130.0, 170.0)
        liquid_share = np.clip(rng.normal(power.LIQUID_FRACTION, 0.004, site.racks), 0.85, 0.89)
        supply = Wander.draw(rng, site.cdus, thermal.SUPPLY_SIGMA_K, 600.0, 43_200.0)
        day_j = site.racks * 110e3 * 86_400.0  # of the whole site, to give registers a past
        past = rng.uniform(200, 400, FIRST_IT_METER + site.halls)
        shares = np.array([1.06, 0.03, 0.01] + [1 / site.halls] * site.halls)
        self.instruments = Instruments(
            climate=Climate.draw(rng),
            pressure=Wander.draw(rng, site.cdus, 1_500.0, 1_800.0, 86_400.0),
            level=Wander.draw(rng, site.cdus, 0.01, 43_200.0, 864_000.0),
            rack_start_j=rng.uniform(100, 400, site.racks) * 110e3 * 86_400.0,
            meter_start_j=past * day_j * shares,
            heat_start_j=rng.uniform(60, 120, 2) * day_j,
            volume_start=rng.uniform(60, 120, 2) * day_j / 42e6,  # 42 MJ/m³ at 10 K
        )
        self._plant = Plant(site, self.instruments, liquid_share, supply)
        weakness = rng.lognormal(-(WEAKNESS_SIGMA**2) / 2, WEAKNESS_SIGMA, (2, *gpu))  # with a mean of 1
        self._corrected_per_s, self._recovered_per_s = CORRECTED_PER_S * weakness[0], RECOVERED_PER_S * weakness[1]
        self._built_s = self.start_s - past.mean() * 86_400.0  # memory errors have a past too

    def _begin(self) -> None:
        """The first jobs start and the plant is in balance with their mean power."""
        every = np.arange(self.site.trays)
        self._reload(every, self.time_s)
        self._schedule(self.time_s)
        self._push(self.time_s + LOOK_EVERY_S, "look", 0)
        self._push(self.time_s + self._hazard.wait_s(), "fault", 0)
        state = self._state
        duty = self._scheduler.slots["duty"][self._scheduler.tray_slot]
        state.plate_w = state.floor_w + state.swing_w * duty[:, None]
        self._plant.begin(state, self._rack_watts(duty), self.time_s)
        self.mark()

    # Moving forward

    def advance(self, dt_s: float) -> None:
        """Move dt_s seconds on."""
        self.step(self.time_s + dt_s)

    def step(self, to_s: float) -> None:
        """Move to `to_s`, UTC seconds; ValueError if that is in the past."""
        if to_s < self.time_s:
            raise ValueError(f"the simulation is at {self.time_s} and cannot go back to {to_s}")
        while self.time_s < to_s:
            next_hour = (self.time_s // HOUR_S + 1) * HOUR_S
            next_kept = min((t for t in self.truth.keep_fleet_at if t > self.time_s), default=np.inf)
            self._move(min(to_s, next_hour, next_kept))
            if self.time_s in (next_hour, next_kept):
                self._mark(fleet=self.site.gpu_count <= HOURLY_FLEET_GPUS or self.time_s == next_kept)

    def _move(self, to_s: float) -> None:
        while self._queue and self._queue[0][0] <= to_s:
            time_s, _, kind, number = heapq.heappop(self._queue)
            self._happen(time_s, kind, number)
        self._kept_waves.clear()
        self._integrate(to_s)

    def _push(self, time_s: float, kind: str, number: int) -> None:
        if time_s < np.inf:
            self._pushed += 1
            heapq.heappush(self._queue, (time_s, self._pushed, kind, number))

    def _happen(self, time_s: float, kind: str, number: int) -> None:
        if kind == "schedule":
            self._schedule(time_s)
        elif kind == "look":
            self._push(time_s + LOOK_EVERY_S, "look", 0)
            self._schedule(time_s)
        elif kind == "job_end":
            self._end_job(number, time_s)
        elif kind == "repair":
            self._repair(number, time_s)
        else:
            self._push(time_s + self._hazard.wait_s(), "fault", 0)
            self._strike(time_s)

    # Jobs

    def _schedule(self, time_s: float) -> None:
        effects = self._state.effects
        unusable = [Effect.DOWN, Effect.MAINTENANCE, Effect.DARK, Effect.OFF]
        usable: Bools = np.logical_not((effects[unusable] > 0).any(axis=(0, 2)))
        started = self._scheduler.fill(time_s, usable)
        for slot, interval, end_s in started:
            self._push(end_s, "job_end", int(self._scheduler.slots["number"][slot]))
            self._new_intervals.append(interval)
        if started:
            trays = np.concatenate([interval.trays for _, interval, _ in started])
            self._settle(trays, time_s, self._no_wave(trays))
            self._reload(trays, time_s)

    def _no_wave(self, trays: Ints) -> Floats:
        """W of trays that worked for nobody until now."""
        return self._state.mark_wave[trays]

    def _end_job(self, number: int, time_s: float) -> None:
        slots = [slot for slot, job in self._scheduler.running.items() if job.number == number]
        if not slots:
            return  # it lost all its trays before its time
        trays = np.flatnonzero(self._scheduler.tray_slot == slots[0])
        self._settle(trays, time_s, self._waves(trays, time_s))
        _, ended = self._scheduler.end(slots[0], time_s)
        self._new_intervals += ended
        self._reload(trays, time_s)
        self._push(time_s + self._scheduler.gap_s(), "schedule", 0)

    def _interrupt(self, lost: Ints, slots: Ints, time_s: float) -> None:
        """Jobs lose trays and restart; all their trays must have been settled."""
        self._new_intervals += self._scheduler.release(lost, time_s)
        for slot in map(int, slots):
            if (self._scheduler.tray_slot == slot).any():
                self._scheduler.restart(slot, time_s)
            else:
                self._scheduler.end(slot, time_s)
                self._push(time_s + self._scheduler.gap_s(), "schedule", 0)

    # Faults

    def _strike(self, time_s: float) -> None:
        strike, place, gpu = self._hazard.draw()
        where = self._footprint(strike, place, gpu)
        if self._is_already_struck(where):
            return  # what is broken cannot break
        trays = np.arange(where.first_tray, where.end_tray)
        stops = strike.repair_s == 0.0 or strike.condition in (GpuCondition.DOWN, GpuCondition.MAINTENANCE)
        slots = np.unique(self._scheduler.tray_slot[trays]) if stops else _NO_TRAYS
        slots = slots[slots > 0]
        touched = np.union1d(trays, np.flatnonzero(np.isin(self._scheduler.tray_slot, slots)))
        self._settle(touched, time_s, self._waves(touched, time_s))
        self._report(where, time_s)
        if strike.repair_s > 0:
            self._begin_outage(where, time_s)
        self._interrupt(trays if stops and strike.repair_s > 0 else _NO_TRAYS, slots, time_s)
        self._reload(touched, time_s)

    def _footprint(self, strike: Strike, place: int, gpu: int) -> _Active:
        if strike.scope is Scope.GPU:
            return _Active(place, place + 1, gpu, strike, place)
        if strike.scope is Scope.TRAY:
            return _Active(place, place + 1, -1, strike, place)
        cdu = int(self.site.rack_cdu[place])
        is_cdu = strike.scope is Scope.CDU
        trays = self.site.trays_of_cdu(cdu) if is_cdu else self.site.trays_of_rack(place)
        return _Active(trays.start, trays.stop, -1, strike, cdu if is_cdu else place)

    def _is_already_struck(self, where: _Active) -> bool:
        trays, gpus = self._span(where)
        broken = [Effect.DOWN, Effect.MAINTENANCE] if where.strike.scope in (Scope.GPU, Scope.TRAY) else []
        same = [effect for effect in where.strike.effects if effect not in (Effect.DEGRADED, Effect.DARK)]
        counts = self._state.effects[:, trays, gpus]
        if where.strike.scope in (Scope.GPU, Scope.TRAY):
            return bool((counts[broken] > 0).any())
        return bool((counts[same] > 0).all(axis=(1, 2)).any())

    @staticmethod
    def _span(where: _Active) -> tuple[slice, slice]:
        gpus = slice(None) if where.gpu < 0 else slice(where.gpu, where.gpu + 1)
        return slice(where.first_tray, where.end_tray), gpus

    def _resource(self, where: _Active) -> int:
        match where.strike.scope:
            case Scope.GPU:
                return int(self.site.gpu_ids[where.first_tray, where.gpu])
            case Scope.TRAY:
                return int(self.site.tray_ids[where.first_tray])
            case Scope.RACK:
                return int(self.site.rack_ids[where.place])
            case _:
                return int(self.site.cdu_ids[where.place])

    def _report(self, where: _Active, time_s: float) -> None:
        strike = where.strike
        self._new_events.append(SiteEvent(self._resource(where), time_s, strike.kind, strike.xid, strike.text))
        if Effect.DARK in strike.effects:
            ids = self.site.gpu_ids[self._span(where)].ravel()
            self._new_events += [SiteEvent(int(i), time_s, "gpu_dark", strike.xid, "GPU cannot be read") for i in ids]

    def _begin_outage(self, where: _Active, time_s: float) -> None:
        self._count(where, +1)
        self._leave_trace(where)
        gpus = (where.end_tray - where.first_tray) * (4 if where.gpu < 0 else 1)
        strike = where.strike
        number = self._pushed
        self._active[number] = where
        outage = Outage(self._resource(where), strike.name, strike.condition, gpus, time_s, None)
        self._open_outages[number] = outage
        self._push(time_s + strike.repair_s, "repair", number)

    def _repair(self, number: int, time_s: float) -> None:
        where, outage = self._active.pop(number), self._open_outages.pop(number)
        trays = np.arange(where.first_tray, where.end_tray)
        self._settle(trays, time_s, self._waves(trays, time_s))
        self._count(where, -1)
        self._clear_trouble(where, time_s)
        if Effect.OFF in where.strike.effects:
            self._state.boot_s[trays] = time_s
        closed = Outage(outage.resource, outage.fault, outage.condition, outage.gpus, outage.start_s, time_s)
        self.truth.outages.append(closed)
        text = f"Back in service after {where.strike.text.lower()}"
        self._new_events.append(SiteEvent(outage.resource, time_s, "restored", 0, text))
        self._reload(trays, time_s)
        self._push(time_s + self._scheduler.gap_s(), "schedule", 0)

    def _count(self, where: _Active, change: int) -> None:
        state, strike = self._state, where.strike
        for effect in strike.effects:
            state.effects[(effect, *self._span(where))] += change
        if strike.scope is Scope.CDU:
            state.cdu_trips[where.place] += change
        elif strike.scope is Scope.RACK:
            state.rack_brakes[where.place] += change if Effect.BRAKE in strike.effects else 0
            state.rack_leaks[where.place] += change if Effect.OFF in strike.effects else 0

    def _leave_trace(self, where: _Active) -> None:
        """What the slow counters keep of a fault, and what they show until its repair."""
        number = trouble_of(where.strike)
        if number == 0:
            return
        state, place, trace = self._state, self._span(where), TRACES[number]
        state.trouble[place] = number
        state.errors[place] += trace.uncorrectable
        state.remapped[place] += trace.rows
        state.lost_links[place] += trace.lost_links
        state.port_downs[place] += trace.port_downs

    def _clear_trouble(self, where: _Active, time_s: float) -> None:
        """A repair ends the signs of its own fault; where the GPU was out of use, its driver is loaded anew."""
        state, place = self._state, self._span(where)
        mine = state.trouble[place] == trouble_of(where.strike)
        state.trouble[place] = np.where(mine, 0, state.trouble[place])
        if where.strike.condition is not GpuCondition.DEGRADED:
            state.loaded_s[place] = time_s
            state.errors_loaded[place] = state.errors[place]

    # Accounts of single trays

    def _waves(self, trays: Ints, time_s: float) -> Floats:
        return wave_integral(self._scheduler.active, time_s)[self._scheduler.tray_slot[trays]]

    def _waves_of_all(self, time_s: float) -> Floats:
        """W of every tray, shape (trays,); kept until the next step, as each instant is asked for many times."""
        if time_s not in self._kept_waves:
            self._kept_waves[time_s] = wave_integral(self._scheduler.active, time_s)[self._scheduler.tray_slot]
        return self._kept_waves[time_s]

    def _settle(self, trays: Ints, time_s: float, waves: Floats) -> None:
        """Book what the trays drew up to now, before anything about them changes."""
        state = self._state
        lasted, drove = time_s - state.mark_s[trays], waves - state.mark_wave[trays]
        state.gpu_j[trays] += state.floor_w[trays] * lasted[:, None] + state.swing_w[trays] * drove[:, None]
        state.tray_j[trays] += state.tray_floor_w[trays] * lasted + state.tray_swing_w[trays] * drove
        state.capped_s[trays] += state.capped[trays] * drove[:, None]
        state.held_s[:, trays] += state.held[:, trays] * lasted[:, None]
        state.condition_s[state.condition[trays], trays[:, None], np.arange(4)] += lasted[:, None]
        state.mark_s[trays] = time_s

    def _reload(self, trays: Ints, time_s: float) -> None:
        """Set what the trays draw from now on, from their jobs and faults."""
        state = self._state
        has = state.effects[:, trays] > 0
        job = self._scheduler.slots[self._scheduler.tray_slot[trays]]
        stopped = has[Effect.DOWN] | has[Effect.MAINTENANCE] | has[Effect.DARK]
        working = (self._scheduler.tray_slot[trays] > 0)[:, None] & ~stopped
        silicon = self._silicon[trays]
        limits = limits_w(has[Effect.POOR_CONTACT], has[Effect.TRIPPED], has[Effect.BRAKE])
        wanted = job["peak"][:, None] * silicon
        floor = np.minimum(job["floor"][:, None] * silicon, limits)
        state.floor_w[trays] = np.where(has[Effect.DARK], 0.0, np.where(working, floor, self._idle_w[trays]))
        state.swing_w[trays] = np.where(working, np.minimum(wanted, limits) - floor, 0.0)
        state.capped[trays] = working & (wanted >= power.GPU_LIMIT_W) & (limits == power.GPU_LIMIT_W)
        state.held[:, trays] = working * has[[Effect.POOR_CONTACT, Effect.TRIPPED, Effect.BRAKE]]
        self._reload_trays(trays, off=has[Effect.OFF].any(axis=1), working=working.any(axis=1))
        state.condition[trays] = np.select(
            [has[Effect.DOWN], has[Effect.MAINTENANCE], has[Effect.DEGRADED]],
            [GpuCondition.DOWN, GpuCondition.MAINTENANCE, GpuCondition.DEGRADED],
            GpuCondition.HEALTHY,
        )
        state.mark_wave[trays] = self._waves(trays, time_s)
        self._reload_racks(time_s)

    def _reload_trays(self, trays: Ints, *, off: Bools, working: Bools) -> None:
        state = self._state
        busy_w = power.PROCESSORS_BUSY_W + power.NETWORK_BUSY_W
        idle_w = power.PROCESSORS_IDLE_W + power.NETWORK_IDLE_W
        gpus = (1 + power.REGULATOR_LOSS) * state.floor_w[trays].sum(axis=1)
        state.tray_floor_w[trays] = np.where(off, power.STANDBY_W, gpus + np.where(working, busy_w, idle_w))
        state.tray_swing_w[trays] = (1 + power.REGULATOR_LOSS) * state.swing_w[trays].sum(axis=1)

    def _reload_racks(self, time_s: float) -> None:
        """Settle and set what racks draw beside their trays: their NVLink switches."""
        state, site = self._state, self.site
        state.rack_extra_j += state.rack_extra_w * (time_s - state.rack_mark_s)
        state.rack_mark_s[:] = time_s
        busy = np.add.reduceat((self._scheduler.tray_slot > 0).astype(np.float64), site.rack_tray)
        watts = power.SWITCHES_W + power.SWITCH_PER_BUSY_TRAY_W * busy
        state.rack_extra_w = np.where(state.rack_leaks > 0, 0.0, watts)

    # Totals at an instant

    def _drove(self, time_s: float) -> Floats:
        """W since each tray's mark, shape (trays,)."""
        drove: Floats = self._waves_of_all(time_s) - self._state.mark_wave
        return drove

    def _gpu_joules(self) -> Floats:
        state = self._state
        lasted = (self.time_s - state.mark_s)[:, None]
        total: Floats = state.gpu_j + state.floor_w * lasted + state.swing_w * self._drove(self.time_s)[:, None]
        return total

    def _tray_joules(self, time_s: float) -> Floats:
        state = self._state
        lasted = time_s - state.mark_s
        total: Floats = state.tray_j + state.tray_floor_w * lasted + state.tray_swing_w * self._drove(time_s)
        return total

    def _rack_joules(self, time_s: float) -> Floats:
        state = self._state
        extra = state.rack_extra_j + state.rack_extra_w * (time_s - state.rack_mark_s)
        trays = np.add.reduceat(self._tray_joules(time_s), self.site.rack_tray)
        total: Floats = (trays + extra) / power.SHELF_EFFICIENCY
        return total

    def _tray_watts(self, drive: Floats) -> Floats:
        return self._state.tray_floor_w + self._state.tray_swing_w * drive

    def _rack_watts(self, drive: Floats) -> Floats:
        trays = np.add.reduceat(self._tray_watts(drive), self.site.rack_tray)
        watts: Floats = (trays + self._state.rack_extra_w) / power.SHELF_EFFICIENCY
        return watts

    def _mean_drive(self) -> Floats:
        """w averaged over the last second, shape (trays,)."""
        mean: Floats = self._waves_of_all(self.time_s) - self._waves_of_all(self.time_s - 1.0)
        return np.minimum(np.maximum(mean, 0.0), 1.0)

    # Heat, cooling and meters

    def _integrate(self, to_s: float) -> None:
        dt_s = to_s - self.time_s
        if dt_s <= 0:
            return
        total = self._rack_joules(to_s)
        rack_j = total - self._state.rack_total_j
        self._state.rack_total_j = total
        self._plant.step(self._state, rack_j, to_s, dt_s)
        self.time_s = to_s

    # Readings

    def facility(self) -> Facility:
        """The state from which rack, cooling and power columns follow."""
        return self._plant.facility(self._state, self._rack_watts(self._mean_drive()), self.time_s)

    def read_gpus(self) -> Columns:
        """The gpu table now, shape (trays, 4); amounts are since the previous call."""
        state, site = self._state, self.site
        dt_s = self.time_s - float(state.gpu_read_s[0])
        energy, capped, held = self._gpu_joules(), self._capped_seconds(), self._held_seconds()
        spent = energy - state.gpu_read_j
        if dt_s > 0:
            state.plate_w = thermal.relax(state.plate_w, spent / dt_s, dt_s, thermal.COLD_PLATE_TAU_S)
        has = state.effects > 0
        slot = self._scheduler.tray_slot
        stopped = has[Effect.DOWN] | has[Effect.MAINTENANCE] | has[Effect.DARK]
        view = GpuView(
            job=self._scheduler.slots[slot],
            drive=wave(self._scheduler.active, self.time_s)[slot],
            drive_mean=self._mean_drive(),
            floor_w=state.floor_w,
            swing_w=state.swing_w,
            energy_j=spent,
            capped_s=capped - state.gpu_read_capped_s,
            held_s=held - state.gpu_read_held_s,
            plate_w=state.plate_w,
            coolant_c=self._plant.supply_c(state, self.time_s)[site.rack_cdu][site.tray_rack],
            processor_w=np.where(slot > 0, power.PROCESSORS_BUSY_W, power.PROCESSORS_IDLE_W),
            silicon=self._silicon,
            noise=self._noise.standard_normal(state.floor_w.shape, dtype=np.float32).astype(np.float64),
            working=(slot > 0)[:, None] & ~stopped,
            capped=state.capped > 0,
            poor_contact=has[Effect.POOR_CONTACT],
            tripped=has[Effect.TRIPPED],
            brake=has[Effect.BRAKE],
            dark=has[Effect.DARK],
        )
        state.gpu_read_j, state.gpu_read_capped_s, state.gpu_read_held_s = energy, capped, held
        state.gpu_read_s = np.array([self.time_s])
        self._spent_j = spent
        return gpu_columns(view)

    def gpu_joules_spent(self) -> Floats:
        """Energy between the last two calls of `read_gpus`, shape (trays, 4), that of dark GPUs included."""
        return self._spent_j

    def _capped_seconds(self) -> Floats:
        state = self._state
        total: Floats = state.capped_s + state.capped * self._drove(self.time_s)[:, None]
        return total

    def _held_seconds(self) -> Floats:
        state = self._state
        total: Floats = state.held_s + state.held * (self.time_s - state.mark_s)[:, None]
        return total

    def read_trays(self) -> Columns:
        """The tray table now, shape (trays,); amounts are since the previous call.

        A tray that is off shows only what its management controller knows.
        """
        state = self._state
        dt_s = self.time_s - float(state.tray_read_s[0])
        energy, mean = self._tray_joules(self.time_s), self._mean_drive()
        spent = energy - state.tray_read_j
        state.tray_read_j, state.tray_read_s = energy, np.array([self.time_s])
        air_c = self.instruments.climate.air_inlet_c(self.time_s)
        columns = host_columns(self._host_view(mean, dt_s))
        off = (state.effects[Effect.OFF] > 0).any(axis=1)
        columns = {name: np.where(off, np.nan, column) for name, column in columns.items()}
        columns["power_watts"] = self._tray_watts(mean)
        columns["energy_joules"] = spent
        columns["inlet_temperature_celsius"] = np.full(self.site.trays, float(air_c))
        columns["gpu_count"] = 4.0 - (state.effects[Effect.DARK] > 0).sum(axis=1)
        return columns

    def _host_view(self, drive: Floats, dt_s: float) -> HostView:
        slot = self._scheduler.tray_slot
        supply_c = self._plant.supply_c(self._state, self.time_s)
        return HostView(
            job=self._scheduler.slots[slot],
            busy=slot > 0,
            drive=drive,
            dt_s=dt_s,
            uptime_s=self.time_s - self._state.boot_s,
            coolant_c=supply_c[self.site.rack_cdu][self.site.tray_rack],
        )

    def read_health(self) -> Columns:
        """The gpu_health table now, shape (trays, 4); amounts are since the previous call."""
        state = self._state
        before_s = float(state.health_read_s[0])
        view = HealthView(
            trouble=state.trouble,
            corrected=_happened(self._corrected_per_s, state.loaded_s, self.time_s),
            corrected_in_life=_happened(self._corrected_per_s, self._built_s, self.time_s),
            uncorrectable=state.errors - state.errors_loaded,
            uncorrectable_in_life=state.errors,
            rows=state.remapped,
            recovered_links=_happened(self._recovered_per_s, before_s, self.time_s),
            lost_links=state.lost_links - state.lost_links_read,
            dark=state.effects[Effect.DARK] > 0,
        )
        columns = health_columns(view)
        # A dark GPU's counter goes on: what it lost is told when it is back.
        state.lost_links_read = np.where(view.dark, state.lost_links_read, state.lost_links)
        state.health_read_s = np.array([self.time_s])
        return columns

    def read_ports(self) -> Columns:
        """The port table now, shape (trays, 4), a port for each GPU; amounts are since the previous call."""
        state = self._state
        dt_s = self.time_s - float(state.port_read_s[0])
        job = self._scheduler.slots[self._scheduler.tray_slot]
        waiting = (1 - 0.6 * self._mean_drive()) * (self._scheduler.tray_slot > 0)  # as NVLink is, in simulation/gpu.py
        view = PortView(
            trouble=state.trouble,
            sent_bytes=(SCALE_OUT_SHARE * dt_s * waiting * job["nvlink"])[:, None] * self._silicon,
            downs=state.port_downs - state.port_downs_read,
            off=state.effects[Effect.OFF] > 0,
        )
        columns = port_columns(view)
        state.port_downs_read = np.where(
            np.isnan(columns["link_downed_count"]), state.port_downs_read, state.port_downs
        )
        state.port_read_s = np.array([self.time_s])
        return columns

    def snapshot(self) -> Snapshot:
        """Every table at this instant; reads GPUs and trays, so their amounts start again."""
        state = self.facility()
        return Snapshot(
            self.time_s,
            self.read_gpus(),
            self.read_trays(),
            rack_columns(self.site, self.instruments, state),
            cooling_columns(self.site, self.instruments, state),
            power_columns(self.site, self.instruments, state),
        )

    # Records

    def take_events(self) -> list[SiteEvent]:
        """Events since the last call, in order of time."""
        taken, self._new_events = self._new_events, []
        return taken

    def take_intervals(self) -> list[JobInterval]:
        """Holds that began (without an end) or ended since the last call."""
        taken, self._new_intervals = self._new_intervals, []
        return taken

    def jobs(self, start_s: float, end_s: float) -> list[JobInterval]:
        """Every hold of trays by a job that touches the period."""
        return intervals_between([*self._scheduler.closed, *self._scheduler.open], start_s, end_s)

    def outages(self, start_s: float, end_s: float) -> list[Outage]:
        """Every outage that touches the period, those under way included."""
        still_open: Sequence[Outage] = list(self._open_outages.values())
        running = [outage for outage in still_open if outage.start_s < end_s]
        return sorted([*self.truth.outages_between(start_s, end_s), *running], key=lambda outage: outage.start_s)

    @property
    def allocated_share(self) -> float:
        """Trays that jobs hold, of all."""
        return float((self._scheduler.tray_slot > 0).mean())

    def mark(self) -> float:
        """Keep the truth's figures at this instant, those of every GPU included; returns the time."""
        self._mark(fleet=True)
        return self.time_s

    def _mark(self, *, fleet: bool) -> None:
        self.truth.facility_marks[self.time_s] = self.facility_totals()
        if fleet:
            self.truth.fleet_marks[self.time_s] = self.fleet_totals()

    def facility_totals(self) -> FacilityFigures:
        """Cumulative joules since the start."""
        state = self._state
        stored = (
            thermal.COLD_PLATE_TAU_S * state.plate_heat_w.sum()
            + thermal.RACK_TAU_S * state.rack_heat_w.sum()
            + thermal.LOOP_TAU_S * state.loop_heat_w.sum()
        )
        return FacilityFigures(
            rack=state.rack_total_j,
            meter=state.meter_j,
            rack_liquid=state.rack_liquid_j,
            handed_over=float(state.heat_j[0]),
            rejected=float(state.heat_j[1]),
            air=float(state.air_j[0]),
            stored=float(stored),
        )

    def fleet_totals(self) -> FleetFigures:
        """Cumulative joules and seconds since the start."""
        state = self._state
        seconds = state.condition_s.copy()
        lasted = (self.time_s - state.mark_s)[:, None]
        for condition in GpuCondition:
            seconds[condition] += np.where(state.condition == condition, lasted, 0.0)
        return FleetFigures(self._gpu_joules(), self._tray_joules(self.time_s), seconds)

    # Keeping

    def save(self, path: Path) -> None:
        """Write everything that `load` needs to go on exactly; replaces the file at once or not at all."""
        arrays = {f"state.{f.name}": getattr(self._state, f.name) for f in fields(State)}
        arrays |= facility_arrays(self.truth.facility_marks) | fleet_arrays(self.truth.fleet_marks)
        arrays |= {"slots": self._scheduler.slots, "tray_slot": self._scheduler.tray_slot}
        arrays |= {"gpu_remainder": self.gpu_carrier.remainder, "tray_remainder": self.tray_carrier.remainder}
        arrays |= {"hot_c": self._plant.hot_c, "cold_c": self._plant.cold_c}
        write_store(path, arrays, self._document())

    @classmethod
    def load(cls, path: Path) -> "Simulation":
        """The simulation as it was saved; its registers, jobs and faults go on."""
        arrays, document = read_store(path)
        site = Site.build(**document["site"])
        simulation = cls(site, document["start_s"], seed=document["seed"], fault_rate=document["fault_rate"])
        simulation._restore(arrays, document)
        return simulation

    def _document(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON."""
        return {
            "site": {"gpus": self.site.gpu_count, "seed": self.site.seed, "name": self.site.name},
            "start_s": self.start_s,
            "time_s": self.time_s,
            "seed": self._seed,
            "fault_rate": self._fault_rate,
            "outside_c": self._plant.outside_c,
            "scheduler": self._scheduler.document(),
            "hazard_rng": self._hazard.rng.bit_generator.state,
            "noise_rng": self._noise.bit_generator.state,
            "queue": self._queue,
            "pushed": self._pushed,
            "active": {str(number): asdict(where) for number, where in self._active.items()},
            "open_outages": {str(number): asdict(outage) for number, outage in self._open_outages.items()},
            "outages": [asdict(outage) for outage in self.truth.outages],
            "keep_fleet_at": sorted(self.truth.keep_fleet_at),
            "new_events": [asdict(event) for event in self._new_events],
            "new_intervals": [interval_document(interval) for interval in self._new_intervals],
        }

    def _restore(self, arrays: Arrays, document: dict[str, Any]) -> None:
        self.time_s = document["time_s"]
        self._kept_waves.clear()
        # A site that an older version saved has not yet what was added since: that begins anew.
        fresh = State.new(self.site, self.time_s)
        kept = {f.name: arrays.get(f"state.{f.name}", getattr(fresh, f.name)) for f in fields(State)}
        self._state = State(**kept)
        self._scheduler.restore(document["scheduler"], arrays["slots"], arrays["tray_slot"])
        self.gpu_carrier.remainder, self.tray_carrier.remainder = arrays["gpu_remainder"], arrays["tray_remainder"]
        plant = self._plant
        plant.hot_c, plant.cold_c, plant.outside_c = arrays["hot_c"], arrays["cold_c"], document["outside_c"]
        self._hazard.rng.bit_generator.state = document["hazard_rng"]
        self._noise.bit_generator.state = document["noise_rng"]
        self._queue = [(time_s, order, kind, number) for time_s, order, kind, number in document["queue"]]
        self._pushed = document["pushed"]
        self._active = {int(number): _active_from(where) for number, where in document["active"].items()}
        self._open_outages = {int(n): _outage_from(outage) for n, outage in document["open_outages"].items()}
        self._new_events = [SiteEvent(**event) for event in document["new_events"]]
        self._new_intervals = [interval_from(interval) for interval in document["new_intervals"]]
        self.truth = Truth(
            keep_fleet_at=set(document["keep_fleet_at"]),
            facility_marks=facility_from(arrays),
            fleet_marks=fleet_from(arrays),
            outages=[_outage_from(outage) for outage in document["outages"]],
        )


def _happened(per_s: Floats, since_s: Floats | float, now_s: float) -> Floats:
    """How many whole events of a steady rate fell between two instants, of which each counts from the epoch."""
    counted: Floats = np.floor(per_s * now_s) - np.floor(per_s * since_s)
    return counted


def _outage_from(document: dict[str, Any]) -> Outage:
    return Outage(**{**document, "condition": GpuCondition(document["condition"])})


def _active_from(document: dict[str, Any]) -> _Active:
    strike = document["strike"]
    effects = tuple(Effect(effect) for effect in strike["effects"])
    return _Active(**{**document, "strike": Strike(**{**strike, "scope": Scope(strike["scope"]), "effects": effects})})
