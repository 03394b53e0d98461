-- Ingest's own books: what was read from Kafka, what became of it, and what is planned next.

CREATE TABLE IF NOT EXISTS frames
(
    topic_id UUID CODEC(ZSTD(1)) COMMENT 'Identity of the topic; a recreated topic has another',
    partition UInt32 CODEC(Delta, ZSTD(1)) COMMENT 'Partition of the topic',
    offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the frame in its partition',
    log_epoch UInt32 CODEC(ZSTD(1)) COMMENT 'Rises when the log was found shorter than what had been read',
    table_raw FixedString(16) CODEC(ZSTD(1)) COMMENT 'Table of the frame, padded with zero bytes',
    source UInt64 CODEC(ZSTD(1)) COMMENT 'Who sent it',
    epoch_ms UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Start of the agent that sent it, UTC milliseconds',
    sequence UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Number of the first tick in the epoch',
    ticks UInt32 CODEC(Delta, ZSTD(1)) COMMENT 'Ticks in the frame',
    rows UInt32 CODEC(Delta, ZSTD(1)) COMMENT 'Rows in the frame',
    layout UInt64 CODEC(ZSTD(1)) COMMENT 'Fingerprint of the layout',
    first_time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Earliest tick',
    last_time DateTime('UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Latest tick',
    sent_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When the agent sealed the frame',
    checked_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When ingest planned it',
    outcome Enum8('stored' = 1, 'duplicate' = 2, 'rejected' = 3, 'parked' = 4) CODEC(ZSTD(1)) COMMENT 'What became of it',
    stored_at DateTime64(3, 'UTC') DEFAULT now64(3) CODEC(Delta, ZSTD(1)) COMMENT 'When this line was written, after the rows',
    table_name String ALIAS toStringCutToZero(table_raw) COMMENT 'Table of the frame',
    INDEX checked checked_at TYPE minmax GRANULARITY 1,
    INDEX stored stored_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(checked_at)
ORDER BY (topic_id, partition, offset)
TTL toDateTime(checked_at) + INTERVAL 400 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000, ttl_only_drop_parts = 1
COMMENT 'Every frame that was read, in the order of the log, and its outcome';

CREATE TABLE IF NOT EXISTS ingest_plan
(
    topic_id UUID,
    plan UInt64 COMMENT 'Number of the plan in its topic, rising',
    partition UInt32,
    first UInt64 COMMENT 'First offset of the range',
    end UInt64 COMMENT 'Offset after the range',
    checked_at_ms UInt64 COMMENT 'The clock against which the rows are checked',
    layouts UInt16 COMMENT 'How many layouts of the table were known',
    log_epoch UInt32 COMMENT 'Rises when the log was found shorter than what had been read'
)
ENGINE = MergeTree
ORDER BY (topic_id, plan, partition)
TTL fromUnixTimestamp(toUInt32(intDiv(checked_at_ms, 1000))) + INTERVAL 400 DAY DELETE
COMMENT 'Write-ahead plans of the single-owner ingest: written before the rows they announce';

CREATE TABLE IF NOT EXISTS events
(
    id String CODEC(ZSTD(3)) COMMENT 'Unique id given by the source',
    resource UInt64 CODEC(ZSTD(1)),
    time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When it happened',
    kind LowCardinality(String) COMMENT 'xid, leak, lost, ...',
    code Int64 CODEC(ZSTD(1)) COMMENT 'XID number or another code of the kind',
    count UInt64 CODEC(ZSTD(1)) COMMENT 'How many equal events this one stands for',
    text String CODEC(ZSTD(3)),
    source UInt64 CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (time, resource, id)
TTL toDateTime(time) + INTERVAL 3660 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'What happened, when, to which resource';

CREATE TABLE IF NOT EXISTS inventory
(
    resource UInt64,
    kind LowCardinality(String) COMMENT 'Kind of resource',
    identity String COMMENT 'Stable identity from which the id is computed',
    name String COMMENT 'What people call it',
    parent UInt64 COMMENT 'What it is part of, 0 for nothing',
    serves Array(UInt64) COMMENT 'What it feeds or cools, besides the tree',
    source UInt64 COMMENT 'Who says so',
    attributes Map(LowCardinality(String), String) COMMENT 'Facts that do not change every second',
    valid_from DateTime64(3, 'UTC') COMMENT 'Since when'
)
ENGINE = ReplacingMergeTree
ORDER BY (resource, valid_from)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'The site as a tree, versioned in time';

CREATE TABLE IF NOT EXISTS jobs
(
    job String COMMENT 'Id that the scheduler gave',
    resource UInt64 COMMENT 'The GPU held',
    start DateTime64(3, 'UTC'),
    end Nullable(DateTime64(3, 'UTC')) COMMENT 'NULL while the job runs',
    name String,
    owner String COMMENT 'Pseudonym',
    customer LowCardinality(String),
    attributes Map(LowCardinality(String), String),
    received_at DateTime64(3, 'UTC') COMMENT 'The latest message about a job and GPU wins'
)
ENGINE = ReplacingMergeTree(received_at)
PARTITION BY toYYYYMM(start)
ORDER BY (resource, start, job)
TTL toDateTime(start) + INTERVAL 3660 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Which job held which GPU, and when';

CREATE TABLE IF NOT EXISTS hours_computed
(
    table_name LowCardinality(String),
    hour DateTime('UTC'),
    computed_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY (table_name, hour)
TTL hour + INTERVAL 400 DAY DELETE
COMMENT 'When each hour of the hour tier was last computed from the minutes';
