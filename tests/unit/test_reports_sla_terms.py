"""Credits by the figures of public SLA texts, worked out by hand; and terms that cannot be used are refused.

Where the figures are from (only figures were taken):
- Amazon Compute SLA of 5 May 2022, aws.amazon.com/compute/sla/historical: an instance 99.5 % in a month; below it 10 %,
  below 99.0 % 30 %, below 95.0 % 100 %. A region 99.99 %, then 10, 30 and 100 % at 99.99, 99.0 and 95.0.
- Google Compute Engine SLA of 29 August 2023, cloud.google.com/compute/sla: a single instance 99.9 %, then 10, 25 and
  100 % at 99.9, 99.0 and 95.0. Downtime lasts for one minute or more.
- Microsoft's SLA for virtual machines: one with premium disks 99.9 %, then 10, 25 and 100 % at 99.9, 99 and 95; read
  in www.dev-toolbox.tech/tools/uptime-calculator/examples/azure-vm-sla.
- Nevskiy, a GPU cloud, 28 December 2024, nevskiy.xyz/legal/sla: 99.99 %, then 10, 25 and 100 % at 99.99, 99.90 and
  99.00; left out are maintenance announced 24 hours before, force majeure and what the customer caused.
"""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import polars as pl
import pytest

from reports.registers_import.rows import read_rows
from reports.sla_terms import Cause, Terms, UnitKind, UnknownCounts, excluded_by, terms_of
from storage.register_kinds import DECLARATIONS, RegisterKind
from storage.registers import typed
from tests.servers.sla_registers import CONTRACT, register_csv

MINUTE_MS = 60_000
OCTOBER_MINUTES = 31 * 24 * 60  # 44,640

AWS_INSTANCE = {"target_percent": "99.5", "credit_tiers": "99.5:10;99.0:30;95.0:100"}
AWS_REGION = {"target_percent": "99.99", "credit_tiers": "99.99:10;99.0:30;95.0:100"}
GOOGLE = {"target_percent": "99.9", "credit_tiers": "99.9:10;99.0:25;95.0:100", "minimum_outage_s": "60"}
AZURE = {"target_percent": "99.9", "credit_tiers": "99.9:10;99:25;95:100"}
NEVSKIY = {
    "target_percent": "99.99",
    "credit_tiers": "99.99:10;99.90:25;99.00:100",
    "exclusions": "maintenance;force_majeure;customer",
    "notice_hours": "24",
}


def register(kind: RegisterKind, *rows: dict[str, str]) -> pl.DataFrame:
    """Rows as they come out of the store after an import."""
    if not rows:
        return pl.DataFrame(schema=DECLARATIONS[kind].schema)
    found = read_rows(f"{kind}.csv", register_csv(kind, rows).encode(), kind)
    stored = pl.DataFrame(
        {"text": [row.text for row in found], "version": "v", "line": [row.line for row in found]},
        schema={"text": pl.String, "version": pl.String, "line": pl.UInt32},
    )
    return typed(stored, kind)


def terms(**cells: str) -> Terms:
    (one,) = terms_of(register(RegisterKind.CONTRACTS, {**CONTRACT, **cells}), "Europe/Oslo")
    return one


@pytest.mark.parametrize(
    ("text", "down_minutes", "credit_percent"),
    [
        # 0.5 % of 44,640 minutes are 223.2, 1 % are 446.4, 5 % are 2,232.
        (AWS_INSTANCE, 223, 0), (AWS_INSTANCE, 224, 10), (AWS_INSTANCE, 446, 10), (AWS_INSTANCE, 447, 30),
        (AWS_INSTANCE, 2232, 30), (AWS_INSTANCE, 2233, 100),
        # 0.01 % are 4.464.
        (AWS_REGION, 4, 0), (AWS_REGION, 5, 10), (AWS_REGION, 447, 30), (AWS_REGION, 44_640, 100),
        # 0.1 % are 44.64.
        (GOOGLE, 44, 0), (GOOGLE, 45, 10), (GOOGLE, 446, 10), (GOOGLE, 447, 25), (GOOGLE, 2233, 100),
        (AZURE, 0, 0), (AZURE, 45, 10), (AZURE, 447, 25), (AZURE, 2232, 25), (AZURE, 2233, 100),
        (NEVSKIY, 4, 0), (NEVSKIY, 5, 10), (NEVSKIY, 45, 25), (NEVSKIY, 447, 100),
    ],
)  # fmt: skip
def test_credit_is_that_of_the_public_text(text: dict[str, str], down_minutes: int, credit_percent: int) -> None:
    up_ms = (OCTOBER_MINUTES - down_minutes) * MINUTE_MS
    assert terms(**text).credit(up_ms, down_minutes * MINUTE_MS) == Fraction(credit_percent, 100)


def test_an_availability_that_just_reaches_a_limit_is_not_below_it() -> None:
    agreed = terms(**AZURE)
    assert agreed.credit(999, 1) == 0
    assert agreed.credit(999_000, 1001) == Fraction(1, 10)


def test_credit_stops_at_the_cap_and_nothing_is_due_for_a_month_that_was_left_out() -> None:
    capped = terms(**AWS_INSTANCE, credit_cap_percent="50")
    assert capped.credit(0, 1) == Fraction(1, 2)
    assert capped.credit(0, 0) == 0


def test_terms_are_those_of_the_register_in_the_sites_days() -> None:
    told = terms(
        first_day="2026-07-01", last_day="2027-06-30", unit="rack", rack_minimum_trays="17", exclusion_cap_hours="8",
        unknown_counts_as="excluded", price_per_unit_month="180000", currency="NOK", **NEVSKIY,
    )  # fmt: skip
    assert (told.start, told.end) == (
        datetime(2026, 6, 30, 22, tzinfo=UTC),
        datetime(2027, 6, 30, 22, tzinfo=UTC),
    )
    assert (told.unit, told.minimum_trays, told.unknown) == (UnitKind.RACK, 17, UnknownCounts.EXCLUDED)
    assert (told.target, told.maintenance_cap, told.notice) == (
        Fraction(9999, 10000), timedelta(hours=8), timedelta(hours=24),
    )  # fmt: skip
    assert (told.unit_price, told.currency) == (180_000.0, "NOK")


@pytest.mark.parametrize("tiers", ["95:100;99:25", "99:25;95:10", "99.:10;1.2.3:20"])
def test_tiers_out_of_order_are_refused_with_the_contracts_name(tiers: str) -> None:
    """The import refuses them, too; rows may be older than its check."""
    stored = register(RegisterKind.CONTRACTS, dict(CONTRACT)).with_columns(credit_tiers=pl.lit(tiers))
    with pytest.raises(ValueError, match=r"'SLA-1'.*credit_tiers"):
        terms_of(stored, "Europe/Oslo")


def excluded(agreed: Terms, *rows: dict[str, str], others: tuple[dict[str, str], ...] = ()) -> set[tuple[str, int]]:
    numbered = pl.col("resource").cast(pl.UInt64)
    maintenance = register(RegisterKind.MAINTENANCE, *rows).with_columns(numbered)
    happened = register(RegisterKind.EXCLUSIONS, *others).with_columns(numbered)
    found = excluded_by(agreed, maintenance, happened)
    return {(row["cause"], row["resource"]) for row in found.iter_rows(named=True)}


def maintenance(resource: str, **cells: str) -> dict[str, str]:
    return {
        "resource_kind": "tray", "resource": resource, "start": "2026-10-14T08:00Z", "end": "2026-10-14T12:00Z",
        "maintenance_kind": "planned", "counts_as_exclusion": "yes", **cells,
    }  # fmt: skip


def test_maintenance_is_left_out_only_if_it_may_be_and_was_announced_in_time() -> None:
    rows = (
        maintenance("1", announced_at="2026-10-13T08:00Z"),
        maintenance("2", announced_at="2026-10-13T08:01Z"),
        maintenance("3"),
        maintenance("4", announced_at="2026-10-01T08:00Z", counts_as_exclusion="no"),
        maintenance("5", maintenance_kind="customer_request"),
        maintenance("6", maintenance_kind="emergency", announced_at="2026-10-14T07:00Z"),
    )
    assert excluded(terms(**NEVSKIY), *rows) == {("maintenance", 1), ("customer", 5)}
    assert excluded(terms(exclusions="maintenance"), *rows) == {("maintenance", n) for n in (1, 2, 3, 6)}
    assert excluded(terms(), *rows) == set()


def test_other_causes_are_left_out_where_the_contract_names_them() -> None:
    rows = tuple(
        {
            "cause": cause.value, "resource_kind": "rack", "resource": str(place), "start": "2026-10-19T03:12Z",
            "end": "2026-10-19T05:40Z", "reference": "INC-1",
        }
        for place, cause in enumerate(Cause) if cause is not Cause.MAINTENANCE
    )  # fmt: skip
    assert {cause for cause, _ in excluded(terms(**NEVSKIY), others=rows)} == {"customer", "force_majeure"}
    assert {cause for cause, _ in excluded(terms(exclusions="upstream;suspension"), others=rows)} == {
        "upstream", "suspension",
    }  # fmt: skip
