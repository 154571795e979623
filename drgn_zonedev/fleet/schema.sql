-- SPDX-License-Identifier: LGPL-2.1-or-later
--
-- The store of `zonedev survey`. PRAGMA user_version is the version of this schema; docs/fleet.md
-- describes what is in it. PFNs and counts are integers, addresses hexadecimal strings.

CREATE TABLE runs (
    id       INTEGER PRIMARY KEY,
    question TEXT NOT NULL,          -- what was asked of every dump, as JSON
    started  TEXT NOT NULL,          -- UTC, ISO 8601
    ended    TEXT                    -- NULL: interrupted, and the next run goes on with it
);

CREATE TABLE kernels (
    id       INTEGER PRIMARY KEY,
    release  TEXT NOT NULL,
    build_id TEXT NOT NULL,          -- hexadecimal; empty if the kernel does not say
    UNIQUE (release, build_id)
);

CREATE TABLE dumps (
    id          INTEGER PRIMARY KEY,
    location    BLOB NOT NULL UNIQUE, -- the bytes of the path
    path        TEXT NOT NULL,        -- the same, as it can be printed
    format      TEXT NOT NULL,
    bytes       INTEGER NOT NULL,
    quick_key   TEXT NOT NULL,        -- device, inode, size and mtime of what was read
    content     TEXT,                 -- SHA-256; NULL if it is too large
    kernel      INTEGER REFERENCES kernels (id),
    crash_time  INTEGER,              -- seconds since 1970
    question    TEXT NOT NULL,
    ending      TEXT NOT NULL,        -- judged, not judged, not opened, timeout, memory, ...
    reason      TEXT NOT NULL,        -- why it was not judged
    seconds     REAL NOT NULL,
    peak        INTEGER NOT NULL,     -- bytes of memory
    limits      TEXT NOT NULL,        -- seconds and bytes that it was allowed
    same_as     INTEGER REFERENCES dumps (id), -- whose report this is: every byte is the same
    page_size   INTEGER,
    first_run   INTEGER NOT NULL REFERENCES runs (id),
    checked_run INTEGER NOT NULL REFERENCES runs (id),
    seen_run    INTEGER NOT NULL REFERENCES runs (id)
);
CREATE INDEX dumps_by_content ON dumps (content);
CREATE INDEX dumps_by_kernel ON dumps (kernel);

CREATE TABLE reports (
    dump     INTEGER PRIMARY KEY REFERENCES dumps (id) ON DELETE CASCADE,
    document BLOB NOT NULL            -- what `check --format json` prints, compressed by zlib
);

CREATE TABLE pgmaps (
    dump        INTEGER NOT NULL REFERENCES dumps (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,     -- its place in the report
    address     TEXT NOT NULL,
    type        TEXT NOT NULL,
    pages       INTEGER NOT NULL,
    in_progress INTEGER NOT NULL,
    has_altmap  INTEGER NOT NULL,
    device      TEXT,
    device_kind TEXT,
    PRIMARY KEY (dump, number)
) WITHOUT ROWID;

CREATE TABLE ranges (
    dump      INTEGER NOT NULL REFERENCES dumps (id) ON DELETE CASCADE,
    number    INTEGER NOT NULL,
    start_pfn INTEGER NOT NULL,
    end_pfn   INTEGER NOT NULL,       -- the first that is not included
    page_case TEXT NOT NULL,
    memmap    TEXT NOT NULL,
    pgmap     TEXT,                   -- its address
    PRIMARY KEY (dump, number)
) WITHOUT ROWID;

CREATE TABLE findings (
    dump      INTEGER NOT NULL REFERENCES dumps (id) ON DELETE CASCADE,
    number    INTEGER NOT NULL,
    slug      TEXT NOT NULL,
    severity  TEXT NOT NULL,
    page_case TEXT NOT NULL,
    start_pfn INTEGER NOT NULL,
    end_pfn   INTEGER NOT NULL,
    pages     INTEGER NOT NULL,
    pgmap     TEXT,
    message   TEXT NOT NULL,
    first_run INTEGER NOT NULL REFERENCES runs (id),
    PRIMARY KEY (dump, number)
) WITHOUT ROWID;
CREATE INDEX findings_by_slug ON findings (slug);

CREATE TABLE known_bugs (
    dump    INTEGER NOT NULL,
    finding INTEGER NOT NULL,         -- its number
    bug     TEXT NOT NULL,
    PRIMARY KEY (dump, finding, bug),
    FOREIGN KEY (dump, finding) REFERENCES findings (dump, number) ON DELETE CASCADE
) WITHOUT ROWID;
