"""What Kvandal measures: units, resources, metrics, tables. Everything else is derived from here."""

from catalogue.layouts import Field, Layout, known_layouts, layout_of
from catalogue.metrics import Codec, Kind, Metric
from catalogue.resources import ResourceKind, resource_id
from catalogue.tables import COOLING, GPU, GPU_HEALTH, POINTS, PORT, POWER, RACK, TABLES, TRAY, Retention, Table, table

__all__ = [
    "COOLING",
    "GPU",
    "GPU_HEALTH",
    "POINTS",
    "PORT",
    "POWER",
    "RACK",
    "TABLES",
    "TRAY",
    "Codec",
    "Field",
    "Kind",
    "Layout",
    "Metric",
    "ResourceKind",
    "Retention",
    "Table",
    "known_layouts",
    "layout_of",
    "resource_id",
    "table",
]
