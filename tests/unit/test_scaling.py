"""docs/scale.md says what `kvandal plan` says, and its disks are large enough."""

from kvandal.planning import load_unit_costs, plan_site
from kvandal.scaling import DISK_BYTES, FILLED, scale_page, shards_of


def row_of(page: str, name: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_the_page_has_the_rows_of_the_measured_site_grown_in_proportion() -> None:
    site = load_unit_costs().site
    each_second = sum(site.rows.values()) / site.hours / 3600 / site.gpus
    shown = [float(cell.replace(",", "")) for cell in row_of(scale_page(), "rows a second")]
    assert shown == [round(each_second * 100_000), round(each_second * 1_000_000)]


def test_no_broker_and_no_shard_holds_more_than_its_disk() -> None:
    page = scale_page()
    assert all(float(cell) <= DISK_BYTES * FILLED / 1e12 for cell in row_of(page, "each broker: disk, TB"))
    for gpus in (100_000, 1_000_000, 10_000_000):
        plan = plan_site(load_unit_costs(), gpus=gpus)
        one_copy = plan.store_bytes / plan.store_copies
        assert one_copy / shards_of(plan) <= DISK_BYTES * FILLED
        assert shards_of(plan) == 1 or one_copy / (shards_of(plan) - 1) > DISK_BYTES * FILLED
