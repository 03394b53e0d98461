"""The simulated site: its physics, jobs and faults, with the truth that reports are judged against."""

from simulation.carrier import RemainderCarrier
from simulation.columns import Columns, Facility, cooling_columns, power_columns, rack_columns
from simulation.engine import Simulation, Snapshot
from simulation.faults import FAULT_CLASSES, RACK_FAULTS, FaultClass, RackFault, SiteEvent
from simulation.jobs import Job, JobInterval
from simulation.site import Resource, Site
from simulation.truth import FacilityFigures, FleetFigures, GpuCondition, Outage, Truth

__all__ = [
    "FAULT_CLASSES",
    "RACK_FAULTS",
    "Columns",
    "Facility",
    "FacilityFigures",
    "FaultClass",
    "FleetFigures",
    "GpuCondition",
    "Job",
    "JobInterval",
    "Outage",
    "RackFault",
    "RemainderCarrier",
    "Resource",
    "Simulation",
    "Site",
    "SiteEvent",
    "Snapshot",
    "Truth",
    "cooling_columns",
    "power_columns",
    "rack_columns",
]
