-- The topology: every source's own word about every resource, and what follows from them (docs/adr/0006-topology.md).

CREATE TABLE IF NOT EXISTS inventory_words
(
    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'What is spoken of',
    source UInt64 CODEC(ZSTD(1)) COMMENT 'Who says so',
    valid_from DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Since when it is so',
    told_by LowCardinality(String) COMMENT 'Kind of source that says so; empty where it does not tell',
    kind LowCardinality(String) COMMENT 'Kind of resource',
    identity String CODEC(ZSTD(1)) COMMENT 'Stable identity from which the id is computed',
    name String CODEC(ZSTD(1)) COMMENT 'What people call it',
    parent UInt64 CODEC(ZSTD(1)) COMMENT 'What it is part of; 0 where nothing is said of that',
    serves Array(UInt64) CODEC(ZSTD(1)) COMMENT 'What it feeds or cools, besides the tree',
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Facts that do not change every second',
    told_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When it was last stored: sources repeat what still holds'
)
ENGINE = ReplacingMergeTree(told_at)
ORDER BY (resource, source, valid_from)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'What each source says of each resource; read it with FINAL';

CREATE MATERIALIZED VIEW IF NOT EXISTS inventory_to_words TO inventory_words AS
SELECT
    resource,
    source,
    valid_from,
    told.attributes['told_by'] AS told_by,
    kind,
    identity,
    name,
    parent,
    serves,
    mapSort(mapFilter((key, value) -> key != 'told_by', told.attributes)) AS attributes,
    now64(3, 'UTC') AS told_at
FROM inventory AS told;

-- What was told before this migration; when, nobody noted.
INSERT INTO inventory_words
SELECT
    resource,
    source,
    valid_from,
    told.attributes['told_by'] AS told_by,
    kind,
    identity,
    name,
    parent,
    serves,
    mapSort(mapFilter((key, value) -> key != 'told_by', told.attributes)) AS attributes,
    valid_from AS told_at
FROM inventory AS told FINAL;

CREATE TABLE IF NOT EXISTS resource_versions
(
    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Identity of the resource; what it is also called is resolved to it',
    valid_from DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Since when; the first version counts for all time before it too',
    valid_to DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Until when, itself excluded; 2299-12-31 while it holds',
    known_from DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Since when any source speaks of the resource',
    kind LowCardinality(String) COMMENT 'Kind of resource',
    identity String CODEC(ZSTD(1)) COMMENT 'Stable identity from which the id is computed',
    name String CODEC(ZSTD(1)) COMMENT 'What people called it then',
    parent UInt64 CODEC(ZSTD(1)) COMMENT 'What it was part of, 0 for nothing',
    serves Array(UInt64) CODEC(ZSTD(1)) COMMENT 'What it fed or cooled, besides the tree',
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)) COMMENT 'Facts that do not change every second',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins',
    is_deleted UInt8 CODEC(ZSTD(1)) COMMENT '1 where a computation took the version back'
)
ENGINE = ReplacingMergeTree(computed_at, is_deleted)
ORDER BY (resource, valid_from)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'What holds of each resource and when, by the best-ranked source; read the view resources';

CREATE TABLE IF NOT EXISTS place_versions
(
    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Identity of the resource as readings carry it',
    valid_from DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Since when; the first place counts for all time before it too',
    valid_to DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Until when, itself excluded; 2299-12-31 while it holds',
    known_from DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Since when any source speaks of the resource',
    same_as UInt64 CODEC(ZSTD(1)) COMMENT 'The resource that this one is: itself, or what it is an alias of',
    kind LowCardinality(String) COMMENT 'Kind of resource',
    identity String CODEC(ZSTD(1)) COMMENT 'Stable identity from which the id is computed',
    name String CODEC(ZSTD(1)) COMMENT 'What people call it today',
    parent UInt64 CODEC(ZSTD(1)) COMMENT 'What it was part of, 0 for nothing',
    tray UInt64 CODEC(ZSTD(1)) COMMENT 'Tray that it was, or was in; 0 for none',
    tray_name String CODEC(ZSTD(1)) COMMENT 'Name of the tray today',
    rack UInt64 CODEC(ZSTD(1)) COMMENT 'Rack that it was, or was in; 0 for none',
    rack_name LowCardinality(String) COMMENT 'Name of the rack today',
    row UInt64 CODEC(ZSTD(1)) COMMENT 'Row that it was, or was in; 0 for none',
    row_name LowCardinality(String) COMMENT 'Name of the row today',
    hall UInt64 CODEC(ZSTD(1)) COMMENT 'Hall that it was, or was in; 0 for none',
    hall_name LowCardinality(String) COMMENT 'Name of the hall today',
    site UInt64 CODEC(ZSTD(1)) COMMENT 'Site that it was, or was in; 0 for none',
    site_name LowCardinality(String) COMMENT 'Name of the site today',
    path Array(UInt64) CODEC(ZSTD(1)) COMMENT 'The resource and all that it was part of, upwards',
    trouble LowCardinality(String) COMMENT 'Why the path does not end at a site; empty where it does',
    trouble_at UInt64 CODEC(ZSTD(1)) COMMENT 'The resource of the path that has the trouble, 0 for none',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins',
    is_deleted UInt8 CODEC(ZSTD(1)) COMMENT '1 where a computation took the version back'
)
ENGINE = ReplacingMergeTree(computed_at, is_deleted)
ORDER BY (resource, valid_from)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Where each resource was and when; read the view places';

CREATE TABLE IF NOT EXISTS conflict_versions
(
    resource UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'What the sources disagree about',
    valid_from DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'Since when they do',
    rival_parent UInt64 CODEC(ZSTD(1)) COMMENT 'What it is part of by the word that does not count',
    rival_told_by LowCardinality(String) COMMENT 'Kind of source whose word does not count',
    rival_source UInt64 CODEC(ZSTD(1)) COMMENT 'Source whose word does not count',
    valid_to DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When they agreed again; 2299-12-31 while they do not',
    kind LowCardinality(String) COMMENT 'Kind of resource',
    name String CODEC(ZSTD(1)) COMMENT 'What people call it today',
    parent UInt64 CODEC(ZSTD(1)) COMMENT 'What it is part of by the word that counts',
    parent_name String CODEC(ZSTD(1)) COMMENT 'Name of that today',
    rack_name String CODEC(ZSTD(1)) COMMENT 'Rack that follows from the word that counts',
    told_by LowCardinality(String) COMMENT 'Kind of source whose word counts',
    source UInt64 CODEC(ZSTD(1)) COMMENT 'Source whose word counts',
    rival_name String CODEC(ZSTD(1)) COMMENT 'Name of rival_parent today',
    rival_rack_name String CODEC(ZSTD(1)) COMMENT 'Rack that would follow from the other word',
    computed_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'The latest computation wins',
    is_deleted UInt8 CODEC(ZSTD(1)) COMMENT '1 where a computation took the conflict back'
)
ENGINE = ReplacingMergeTree(computed_at, is_deleted)
ORDER BY (resource, valid_from, rival_parent, rival_told_by, rival_source)
SETTINGS non_replicated_deduplication_window = 50000
COMMENT 'Where sources disagree about what a resource is part of; read the view topology_conflicts';

CREATE VIEW IF NOT EXISTS resources AS
SELECT resource, valid_from, valid_to, known_from, kind, identity, name, parent, serves, attributes
FROM resource_versions FINAL;

CREATE VIEW IF NOT EXISTS places AS
SELECT
    resource, valid_from, valid_to, known_from, same_as, kind, identity, name, parent, tray, tray_name, rack, rack_name,
    row, row_name, hall, hall_name, site, site_name, path, trouble, trouble_at
FROM place_versions FINAL;

CREATE VIEW IF NOT EXISTS feeds AS
SELECT resource, arrayJoin(serves) AS served, kind, name, valid_from, valid_to
FROM resource_versions FINAL;

CREATE VIEW IF NOT EXISTS topology_conflicts AS
SELECT
    resource, kind, name, valid_from, valid_to, parent, parent_name, rack_name, told_by, source, rival_parent,
    rival_name, rival_rack_name, rival_told_by, rival_source
FROM conflict_versions FINAL;

CREATE VIEW IF NOT EXISTS last_words AS
SELECT resource, min(valid_from) AS first_valid_from, max(told_at) AS last_told_at, uniqExact(source) AS sources
FROM inventory_words
GROUP BY resource;
