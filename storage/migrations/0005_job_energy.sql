-- The energy of jobs: computed by storage/job_energy.py when a job has ended, and again when it was corrected.

CREATE TABLE IF NOT EXISTS job_energy
(
    job String COMMENT 'Id that the scheduler gave',
    start DateTime64(3, 'UTC') COMMENT 'Start of its first hold of a GPU',
    end DateTime64(3, 'UTC') COMMENT 'End of its last hold of a GPU',
    gpus UInt32 COMMENT 'GPUs that it held at any time',
    gpu_seconds Float64 CODEC(ZSTD(1)) COMMENT 'Time for which it held GPUs, added up over them',
    observed_gpu_seconds Float64 CODEC(ZSTD(1)) COMMENT 'The part of that time in which energy was told',
    gpu_joules Nullable(Float64) CODEC(ZSTD(1)) COMMENT 'Energy of its GPU boards, from their own counters',
    estimated_joules Float64 CODEC(ZSTD(1)) COMMENT 'The part of gpu_joules that was told across a gap',
    overhead_joules Nullable(Float64) CODEC(ZSTD(1)) COMMENT 'Its share of what its trays drew besides GPU boards; NULL where a tray does not tell',
    told_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest message about the job that this rests on',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins'
)
ENGINE = ReplacingMergeTree(computed_at)
ORDER BY job
TTL toDateTime(start) + INTERVAL 3660 DAY DELETE
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Energy of each job that has ended; read it with FINAL';
