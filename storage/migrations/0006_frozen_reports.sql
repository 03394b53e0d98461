-- Frozen reports: signed, chained, and kept for good. Nothing in this table is ever changed or expires.

CREATE TABLE IF NOT EXISTS frozen_reports
(
    sequence UInt64 COMMENT 'Place in the chain, from 1; one report has each',
    report LowCardinality(String) COMMENT 'Which report, such as sustainability',
    site String COMMENT 'Name of the site, as the report says it',
    period String COMMENT 'Day, month or year, such as 2026-10',
    restatement UInt32 COMMENT '1 for the first freezing of a period; a correction is one more',
    approver String COMMENT 'Who answers for it, as they said',
    frozen_at DateTime64(3, 'UTC') COMMENT 'When it was frozen',
    previous FixedString(64) COMMENT 'Hash of the report with the sequence before it; zeros for the first',
    hash FixedString(64) COMMENT 'SHA-256 of the record in its canonical form, in hexadecimal',
    signature String COMMENT 'Ed25519 over the hash, in base64',
    public_key String COMMENT 'The key that signed it, in base64',
    record String CODEC(ZSTD(3)) COMMENT 'The record: document, figures, inputs, digests of the files, changes; canonical JSON'
)
ENGINE = MergeTree
ORDER BY (sequence, hash)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Frozen reports; storage/frozen.py writes and reads them'
