-- What the GPUs of each rack, and of each hall, did together in each minute, computed with the hours by storage/hours.py: ten
-- thousand GPUs are 14.4 million minutes a day, and 200,000 rows here (docs/adr/0011-minutes-of-the-fleet.md).

CREATE TABLE IF NOT EXISTS fleet_minutes
(
    kind Enum8('rack' = 1, 'hall' = 2) CODEC(ZSTD(1)) COMMENT 'What the place is: every GPU counts once in its rack and once in its hall',
    place UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Rack or hall in which the GPUs stood in that minute; 0 where the inventory does not say',
    time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Start of the minute',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins',
    gpus UInt64 CODEC(T64, ZSTD(1)) COMMENT 'GPUs that were heard, dark ones among them',
    dark UInt64 CODEC(T64, ZSTD(1)) COMMENT 'GPUs of which at some time nothing could be read',
    partly_readable UInt64 CODEC(T64, ZSTD(1)) COMMENT 'Others of which at some time only a part could be read',
    sm_active_ratio_sum Float64 CODEC(ZSTD(1)) COMMENT 'The GPUs'' mean shares of cycles with a warp resident, added up',
    sm_active_ratio_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'GPUs that told of it',
    tensor_active_ratio_sum Float64 CODEC(ZSTD(1)) COMMENT 'The GPUs'' mean shares of cycles with a tensor pipe active, added up',
    tensor_active_ratio_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'GPUs that told of it',
    working_watts Float64 CODEC(ZSTD(1)) COMMENT 'The mean powers of GPUs at work, added up',
    idle_watts Float64 CODEC(ZSTD(1)) COMMENT 'The mean powers of idle GPUs, whose engines were active for less than 1 % of the time, added up',
    power_count UInt64 CODEC(T64, ZSTD(1)) COMMENT 'GPUs that told of their power and of their activity',
    power_watts_sketch AggregateFunction(quantilesDD(0.01, 0.05, 0.5, 0.95), Float64) CODEC(ZSTD(3)) COMMENT 'Quantile sketch of the GPUs'' mean powers; of halls only, a rack''s is empty'
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toMonday(time)
PRIMARY KEY (kind, toStartOfHour(time), place)
ORDER BY (kind, toStartOfHour(time), place, time)
TTL time + INTERVAL 1098 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000, ttl_only_drop_parts = 1
COMMENT 'GPUs of each rack and of each hall by minute, of hours that are computed; read it with FINAL';
