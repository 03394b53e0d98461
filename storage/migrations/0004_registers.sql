-- Registers: what no sensor tells. Every import is a version; nothing in these two tables is ever changed or expires.

CREATE TABLE IF NOT EXISTS register_versions
(
    version UUID COMMENT 'Id of the import; its rows carry it',
    kind LowCardinality(String) COMMENT 'Kind of register, as in kvandal import KIND',
    imported_at DateTime64(3, 'UTC') COMMENT 'When it was imported; a report sees what was imported up to its cut-off',
    valid_from DateTime64(3, 'UTC') COMMENT 'Since when it holds; 1970-01-01 for always',
    imported_by String COMMENT 'Who answers for it, as they said',
    file_name String COMMENT 'Name of the CSV, without its folder',
    file_sha256 FixedString(64) COMMENT 'SHA-256 of the CSV, in hexadecimal',
    evidence_name String COMMENT 'Name of the file that proves it, without its folder',
    evidence_sha256 FixedString(64) COMMENT 'SHA-256 of the evidence, in hexadecimal',
    schema_version UInt16 COMMENT 'Version of the JSON Schema by which the rows were checked',
    row_count UInt32 COMMENT 'Rows of the version'
)
ENGINE = MergeTree
ORDER BY (kind, imported_at, version)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Every import of a register; written after its rows, so what is not here does not count';

CREATE TABLE IF NOT EXISTS register_rows
(
    kind LowCardinality(String) COMMENT 'Kind of register',
    version UUID CODEC(ZSTD(1)) COMMENT 'The import that the row came with',
    line UInt32 CODEC(Delta, ZSTD(1)) COMMENT 'Line of the CSV at which the row begins',
    row_key UUID CODEC(ZSTD(1)) COMMENT 'What tells rows apart: of equal ones the row of the version that counts holds',
    begins_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Begin of what the row is about; 1970-01-01 where it has none',
    ends_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'End of what the row is about, itself excluded; 2299-12-31 where it has none',
    withdrawn UInt8 CODEC(ZSTD(1)) COMMENT '1 where the row takes back what an earlier version said',
    text String CODEC(ZSTD(3)) COMMENT 'The row as a JSON object that its kind''s JSON Schema admits'
)
ENGINE = MergeTree
ORDER BY (kind, version, line)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'The rows of all imports; storage/registers.py reads what holds at a report''s cut-off';
