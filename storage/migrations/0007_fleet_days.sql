-- What reports ask of the fleet's minutes, computed once for each day by kvandal/fleet_days.py: a hundred thousand GPUs
-- are 144 million minutes a day, and some hundred thousand rows here.

CREATE TABLE IF NOT EXISTS fleet_days
(
    day DateTime('UTC') COMMENT 'Start of the local day',
    until DateTime('UTC') COMMENT 'Its end, itself excluded',
    computed_at DateTime64(3, 'UTC') COMMENT 'The latest computation wins; the other tables of it have the same',
    basis UInt64 COMMENT 'Fingerprint of the jobs and places that it rests on',
    joules Nullable(Float64) COMMENT 'Energy that all GPUs told of',
    gpus UInt64 COMMENT 'GPUs that were heard',
    gpu_hours UInt64 COMMENT 'Hours in which each was heard, added up',
    watts_low Nullable(Float64) COMMENT '5th percentile of the GPUs'' mean powers',
    watts_median Nullable(Float64) COMMENT 'Their median',
    watts_high Nullable(Float64) COMMENT 'Their 95th percentile',
    sm_active Nullable(Float64) COMMENT 'Mean of the GPUs'' mean shares of cycles with work',
    processor_watts Nullable(Float64) COMMENT 'Mean power of all trays'' processors',
    trays UInt64 COMMENT 'Trays that told of it'
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (day, until)
TTL day + INTERVAL 3660 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Days that are computed; a line appears when all rows of its day are there. Read it with FINAL';

CREATE TABLE IF NOT EXISTS gpu_segments
(
    day DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the local day',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Which computation of the day',
    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'GPU',
    start DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'From',
    end DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'To, itself excluded',
    dark UInt8 CODEC(ZSTD(1)) COMMENT 'Nothing could be read, and the agent said so',
    throttled UInt8 CODEC(ZSTD(1)) COMMENT 'Held down for 5 % of the time or more, not by the power cap',
    activity UInt8 CODEC(ZSTD(1)) COMMENT '0 unknown, 1 idle, 2 busy',
    readings UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Readings of power',
    joules Nullable(Float64) CODEC(ZSTD(1)) COMMENT 'Energy; NULL where none was told',
    power_cap_s Float64 CODEC(ZSTD(1)) COMMENT 'Held down by the power cap',
    sync_boost_s Float64 CODEC(ZSTD(1)) COMMENT 'By sync boost',
    software_thermal_s Float64 CODEC(ZSTD(1)) COMMENT 'By heat, as the driver says',
    hardware_thermal_s Float64 CODEC(ZSTD(1)) COMMENT 'By heat, as the hardware says',
    power_brake_s Float64 CODEC(ZSTD(1)) COMMENT 'By the power brake',
    sm_sum Float64 CODEC(ZSTD(1)) COMMENT 'SM activity, added up over its readings',
    tensor_sum Float64 CODEC(ZSTD(1)) COMMENT 'Tensor activity, likewise',
    dram_sum Float64 CODEC(ZSTD(1)) COMMENT 'Memory activity, likewise',
    sm_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Readings of SM activity',
    tensor_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Readings of tensor activity',
    dram_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Readings of memory activity',
    celsius_sum Float64 CODEC(ZSTD(1)) COMMENT 'Temperature, added up over its readings',
    celsius_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Readings of temperature'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, resource, start)
TTL day + INTERVAL 1096 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'What each GPU did: five minutes in one state after another are one row';

CREATE TABLE IF NOT EXISTS gpu_troubles
(
    day DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the local day',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Which computation of the day',
    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'GPU',
    start DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'From',
    end DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'To, itself excluded',
    condition LowCardinality(String) COMMENT 'down or degraded'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, resource, start)
TTL day + INTERVAL 1096 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'When the slow readings of a GPU said that it was down or degraded';

CREATE TABLE IF NOT EXISTS job_outliers
(
    day DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the local day',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Which computation of the day',
    job String CODEC(ZSTD(1)) COMMENT 'Id that the scheduler gave',
    time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the minute',
    resource UInt64 CODEC(ZSTD(1)) COMMENT 'GPU of the job that lies outside',
    clock Float64 CODEC(ZSTD(1)) COMMENT 'SM clock, Hz',
    power Float64 CODEC(ZSTD(1)) COMMENT 'Power, W',
    temperature Float64 CODEC(ZSTD(1)) COMMENT 'Temperature, °C',
    clock_median Float64 CODEC(ZSTD(1)) COMMENT 'Median of the job''s GPUs in the minute',
    power_median Float64 CODEC(ZSTD(1)) COMMENT 'Likewise',
    temperature_median Float64 CODEC(ZSTD(1)) COMMENT 'Likewise',
    clock_mad Float64 CODEC(ZSTD(1)) COMMENT 'Median absolute deviation of the job''s GPUs in the minute',
    power_mad Float64 CODEC(ZSTD(1)) COMMENT 'Likewise',
    temperature_mad Float64 CODEC(ZSTD(1)) COMMENT 'Likewise'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, job, time)
TTL day + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Minutes of GPUs that lie outside of what their job''s GPUs do';

CREATE TABLE IF NOT EXISTS job_compared
(
    day DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the local day',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Which computation of the day',
    job String CODEC(ZSTD(1)) COMMENT 'Id that the scheduler gave',
    windows UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Minutes in which its GPUs could be compared',
    spacing_s Float64 CODEC(ZSTD(1)) COMMENT 'How far apart they are as a rule'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, job)
TTL day + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'In how many minutes the GPUs of each job were compared with each other';

CREATE TABLE IF NOT EXISTS rack_fleet_quarters
(
    day DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the local day',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Which computation of the day',
    member_kind LowCardinality(String) COMMENT 'tray or gpu',
    rack UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Where they were then',
    time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the quarter hour',
    joules Float64 CODEC(ZSTD(1)) COMMENT 'Energy that they told of',
    members UInt64 CODEC(T64, ZSTD(1)) COMMENT 'How many were heard',
    readings UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Readings of all of them',
    most UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Readings of the one that was heard most often'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, member_kind, rack, time)
TTL day + INTERVAL 1096 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Energy of the trays and of the GPUs of each rack by quarter hour; rows of one may be apart: sum them';

CREATE TABLE IF NOT EXISTS rack_coolant
(
    day DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the local day',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Which computation of the day',
    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Rack',
    minutes UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Minutes in which coolant flowed and both temperatures are known',
    flow_sum Float64 CODEC(ZSTD(1)) COMMENT 'Means of these minutes, added up: flow, m³/s',
    supply_sum Float64 CODEC(ZSTD(1)) COMMENT 'Supply temperature, °C',
    return_sum Float64 CODEC(ZSTD(1)) COMMENT 'Return temperature, °C',
    heat_sum Float64 CODEC(ZSTD(1)) COMMENT 'Heat as the rack tells it, W',
    heat_minutes UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Minutes in which it told heat',
    watts_sum Float64 CODEC(ZSTD(1)) COMMENT 'Power, W',
    watts_minutes UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Minutes in which it told power'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (day, resource)
TTL day + INTERVAL 3660 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Coolant of each rack by day';
