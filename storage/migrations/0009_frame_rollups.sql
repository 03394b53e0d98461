-- What dashboards ask of ingest's lines about frames, computed with the hours by storage/hours.py: ten thousand GPUs' agents send
-- 27 million frames a day.

CREATE TABLE IF NOT EXISTS frame_minutes
(
    time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the minute in which ingest planned the frames',
    table_name LowCardinality(String) COMMENT 'Table of the frames',
    outcome Enum8('stored' = 1, 'duplicate' = 2, 'rejected' = 3, 'parked' = 4) CODEC(ZSTD(1)) COMMENT 'What became of them',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins',
    frames UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Frames',
    rows UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Rows in them',
    longest_delay_ms Int64 CODEC(T64, ZSTD(1)) COMMENT 'Longest time between sealing a frame and its line here',
    delay_ms_sketch AggregateFunction(quantileDD(0.01, 0.95), Float64) CODEC(ZSTD(3)) COMMENT 'Quantile sketch of these times'
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toMonday(time)
ORDER BY (time, table_name, outcome)
TTL time + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000, ttl_only_drop_parts = 1
COMMENT 'Frames by minute, of hours that are computed; read it with FINAL';

CREATE TABLE IF NOT EXISTS source_hours
(
    time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the hour in which ingest planned the frames',
    source UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Who sent them',
    epoch_ms UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Start of the agent that sent them, UTC milliseconds',
    table_name LowCardinality(String) COMMENT 'Table of the frames',
    outcome Enum8('stored' = 1, 'duplicate' = 2, 'rejected' = 3, 'parked' = 4) CODEC(ZSTD(1)) COMMENT 'What became of them',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins',
    ticks UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Ticks in them',
    first_sequence UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Lowest number of a tick in the epoch',
    end_sequence UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Number after the highest one',
    last_tick DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Latest tick'
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toMonday(time)
ORDER BY (time, source, epoch_ms, table_name, outcome)
TTL time + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000, ttl_only_drop_parts = 1
COMMENT 'What each source sent by hour, of hours that are computed; read it with FINAL';
