"""The catalogue: what follows from a metric's declaration, and identities that never change."""

import json
from fractions import Fraction
from hashlib import blake2b

import numpy as np
import pytest

from catalogue import GPU, RACK, TABLES, TRAY, Kind, Metric, ResourceKind, Table, known_layouts, layout_of, resource_id
from catalogue.documents import catalogue_document, metrics_reference
from catalogue.layouts import render_layouts
from catalogue.metrics import Codec
from catalogue.origins import DcgmField, HostValue, NvmlCall, NvmlField
from catalogue.tables import table as find_table
from catalogue.types import I8, I16, I32, U8, U16, U32, U64, StoredType
from catalogue.units import WATTS

# type, absent, lowest and highest reading
RANGES = [
    (U8, 255, 0, 254),
    (U16, 65_535, 0, 65_534),
    (U32, 4_294_967_295, 0, 4_294_967_294),
    (U64, 18_446_744_073_709_551_615, 0, 18_446_744_073_709_551_614),
    (I8, -128, -127, 127),
    (I16, -32_768, -32_767, 32_767),
    (I32, -2_147_483_648, -2_147_483_647, 2_147_483_647),
]


def metric(resolution: Fraction = Fraction(1)) -> Metric:
    return Metric(
        name="power_watts",
        unit=WATTS,
        kind=Kind.GAUGE,
        stored=U16,
        brief="Power draw",
        origins=(NvmlField(186),),
        resolution=resolution,
    )


@pytest.mark.parametrize(("stored", "absent", "lowest", "highest"), RANGES)
def test_each_type_reserves_one_value_at_its_edge(stored: StoredType, absent: int, lowest: int, highest: int) -> None:
    assert (stored.absent, stored.lowest, stored.highest) == (absent, lowest, highest)


@pytest.mark.parametrize("stored", [row[0] for row in RANGES])
def test_numpy_and_clickhouse_mean_the_same_type(stored: StoredType) -> None:
    assert stored.clickhouse.lower() == np.dtype(stored.numpy).name
    assert np.dtype(stored.numpy).itemsize * 8 == stored.bits
    assert np.array([stored.absent], dtype=stored.numpy)[0] == stored.absent


def test_resource_id_is_a_hash_of_kind_and_identity() -> None:
    digest = blake2b(b"gpu\0GPU-5c2c", digest_size=8).digest()
    assert resource_id(ResourceKind.GPU, "GPU-5c2c") == int.from_bytes(digest, "little")


def test_the_same_serial_number_of_another_kind_is_another_resource() -> None:
    assert resource_id(ResourceKind.METER, "4711") != resource_id(ResourceKind.HEAT_METER, "4711")


def test_resource_without_identity_is_refused() -> None:
    with pytest.raises(ValueError, match="a rack needs a stable identity"):
        resource_id(ResourceKind.RACK, "")


@pytest.mark.parametrize(
    ("resolution", "comment"),
    [
        (Fraction(1), "Power draw; 65535 = absent"),
        (Fraction(1, 10), "Power draw in steps of 0.1 W; 65535 = absent"),
        (Fraction(1_000_000), "Power draw in steps of 1000000 W; 65535 = absent"),
        (Fraction(1, 6_000_000), "Power draw in steps of 1/6000000 W; 65535 = absent"),
    ],
)
def test_column_comment_tells_the_step_as_people_write_it(resolution: Fraction, comment: str) -> None:
    assert metric(resolution).comment == comment


def test_stored_column_and_help_follow_from_name_and_brief() -> None:
    assert metric().column == "power_watts_raw"
    assert metric().help == "Power draw."


@pytest.mark.parametrize(
    ("table", "name", "exported"),
    [
        (GPU, "power_watts", "kvandal_gpu_power_watts"),
        (GPU, "energy_joules", "kvandal_gpu_energy_joules_total"),
        (GPU, "gpu_state", "kvandal_gpu_state"),
        (RACK, "energy_register_joules", "kvandal_rack_energy_register_joules_total"),
        (TRAY, "gpu_count", "kvandal_tray_gpu_count"),
    ],
)
def test_prometheus_name_says_the_table_once_and_total_for_what_grows(table: Table, name: str, exported: str) -> None:
    assert table.prometheus_name(table.metric(name)) == exported


def test_unknown_names_are_errors_that_say_where_to_look() -> None:
    with pytest.raises(KeyError, match="table gpu has no metric powerwatts"):
        GPU.metric("powerwatts")
    with pytest.raises(KeyError, match="no table gpus; there are gpu, "):
        find_table("gpus")


def test_every_layout_starts_with_resource_and_time_and_has_no_padding() -> None:
    for table in TABLES:
        layout = layout_of(table)
        dtype = np.dtype(layout.description)
        assert [(f.name, f.type) for f in layout.fields[:2]] == [("resource", "<u8"), ("time", "<u4")]
        assert dtype.itemsize == 12 + sum(m.stored.bits // 8 for m in table.metrics)


def test_fingerprint_changes_with_table_name_type_and_resolution() -> None:
    layout = layout_of(GPU)
    text = "gpu;" + ";".join(f"{f.name}:{f.type}:{f.resolution}" for f in layout.fields)
    assert layout.fingerprint == int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def test_rendering_layouts_keeps_the_old_and_adds_todays_last() -> None:
    entries = json.loads(render_layouts({}))["layouts"]
    assert [entry["table"] for entry in entries] == [table.name for table in TABLES]
    again = json.loads(render_layouts(known_layouts()))["layouts"]
    assert len(again) == sum(len(layouts) for layouts in known_layouts().values())


def test_reference_and_document_name_every_metric() -> None:
    reference = metrics_reference()
    document = json.dumps(catalogue_document())
    for table in TABLES:
        for each in table.metrics:
            assert f"| `{each.name}` |" in reference
            assert f'"{each.column}"' in document


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (NvmlField(186, scope=1), "NVML field 186 scope 1"),
        (NvmlCall("nvmlDeviceGetMemoryInfo_v2", "used"), "NVML nvmlDeviceGetMemoryInfo_v2 (used)"),
        (DcgmField(156, "DCGM_OLD", "DCGM_NEW"), "DCGM 156 DCGM_OLD / DCGM_NEW"),
        (HostValue("cpu_times"), "psutil cpu_times"),
    ],
)
def test_origins_read_as_their_source_names_them(origin: object, text: str) -> None:
    assert str(origin) == text


def test_codecs_are_those_that_were_measured() -> None:
    assert {codec.value for codec in Codec} == {"ZSTD(1)", "T64, ZSTD(1)", "Delta, ZSTD(3)", "ZSTD(3)"}
