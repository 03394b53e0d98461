"""Alerts of the catalogue that we do not have, and why: better said here than thought to be watched."""

from alerts.alert import LeftOut

LEFT_OUT = (
    LeftOut(
        number=7,
        name="GpuSbeStorm, by rate",
        reason="the counters of corrected errors are not on /metrics; XID 92 and the driver's own storm event are read",
    ),
    LeftOut(
        number=9,
        name="GpuAppXidBurst, by job",
        reason="bursts are grouped by tray: the incidents process does not read the topic of jobs yet",
    ),
    LeftOut(
        number=15,
        name="GpuClockLowUnderLoad, by job",
        reason="compared with the GPUs of the same tray: which GPUs share a job is not on /metrics",
    ),
    LeftOut(number=16, name="GpuAllocatedIdle", reason="which GPUs are allocated is not on /metrics; a report has it"),
    LeftOut(
        number=18,
        name="NvlinkErrorsHigh, by bit error rate",
        reason="no source gives a floor for the effective bit error rate; failed recoveries and checksums are read",
    ),
    LeftOut(
        number=20,
        name="ImexNotReady",
        reason="no collector reads IMEX; GpuRecoveryActionRequired tells when a driver asks to recover its domain",
    ),
    LeftOut(number=21, name="NvSwitchFatal", reason="switch trays are hosts of their own that no collector reads"),
    LeftOut(
        number=42,
        name="MeterReset",
        reason="the ledger flags and mends resets in every report; MeterFrozen and MeterExchanged are read",
    ),
    LeftOut(
        number=43, name="MeterDisagreement", reason="a day's sums are in ClickHouse: the ledger shows the residual"
    ),
    LeftOut(
        number=44, name="iPueHigh", reason="the energy of the site and of IT are sums in ClickHouse: a report has it"
    ),
    LeftOut(
        number=45,
        name="HeatExportBelowContract",
        reason="what was agreed with the off-taker is not on /metrics; the heat report has it",
    ),
    LeftOut(
        number=46,
        name="SlaBudgetBurn, by job",
        reason="CustomerSlaBurn is over whole racks that are rented: which customer's job holds which GPU of a shared "
        "rack is not on /metrics; the report on the SLA has it",
    ),
)
