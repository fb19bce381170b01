-- The consumer's tables, in the SQL that SQLite (3.35 or newer) and PostgreSQL share. Run once on an empty database.
-- Times are RFC 3339 texts in UTC: they sort as they stand.

CREATE TABLE layout (version INTEGER NOT NULL);
INSERT INTO layout VALUES (1);

-- One row a report, the whole of it in `payload`. Written once, never changed, but for the last three columns.
CREATE TABLE result (
    result_id         TEXT PRIMARY KEY,
    station           TEXT NOT NULL,    -- the topic root that it came from
    device_id         TEXT NOT NULL,
    boot_id           TEXT NOT NULL,
    sequence          BIGINT NOT NULL,  -- order is (boot_id, sequence), not arrival
    root_result_id    TEXT NOT NULL,    -- the first report of this part
    revision          BIGINT NOT NULL,  -- 0: the first
    supersedes        TEXT,             -- the report that this one corrects
    captured_at       TEXT NOT NULL,
    part_id           TEXT,
    product_id        TEXT NOT NULL,
    job_id            TEXT,
    lot               TEXT,
    recipe_id         TEXT NOT NULL,
    result_state      TEXT NOT NULL,    -- completed, aborted, failed
    reason_code       TEXT,             -- why aborted or failed
    result_evaluation TEXT NOT NULL,    -- ok, not_ok, not_decidable, undefined
    disposition       TEXT NOT NULL,    -- pass, reject, review
    is_simulated      BOOLEAN NOT NULL, -- a test part: in no view below
    payload           TEXT NOT NULL,    -- as received
    content           TEXT NOT NULL,    -- SHA-256 of the JSON in canonical form: tells a copy from a contradiction
    received_at       TEXT NOT NULL,
    received          BIGINT NOT NULL,  -- how often it came; above 1 is allowed, delivery is at least once
    acked_at          TEXT              -- when the broker had our ack to the station
);
CREATE INDEX result_order ON result (station, boot_id, sequence);
CREATE INDEX result_supersedes ON result (supersedes);
CREATE INDEX result_unacked ON result (station) WHERE acked_at IS NULL;

-- A second content under a result_id that is stored already. The first one stays; a person must look.
CREATE TABLE contradiction (
    result_id   TEXT NOT NULL,
    content     TEXT NOT NULL,
    station     TEXT NOT NULL,
    payload     TEXT NOT NULL,
    received_at TEXT NOT NULL,
    received    BIGINT NOT NULL,
    PRIMARY KEY (result_id, content)
);

-- Sequences that a station accounts for in one message, because it could not keep a report of each. The message
-- has a sequence of its own.
CREATE TABLE not_inspected (
    result_id      TEXT PRIMARY KEY,
    station        TEXT NOT NULL,
    boot_id        TEXT NOT NULL,   -- of the message
    sequence       BIGINT NOT NULL,
    missed_boot_id TEXT NOT NULL,   -- of the sequences that are missing
    first_sequence BIGINT NOT NULL,
    last_sequence  BIGINT NOT NULL,
    reason_code    TEXT NOT NULL,
    payload        TEXT NOT NULL,
    content        TEXT NOT NULL,
    received_at    TEXT NOT NULL,
    received       BIGINT NOT NULL,
    acked_at       TEXT
);

-- What is neither: kept as it came, with the reason. Never acknowledged to the station.
CREATE TABLE quarantine (
    content     TEXT PRIMARY KEY, -- SHA-256 of topic and payload
    topic       TEXT NOT NULL,
    payload     BYTEA NOT NULL,
    reason      TEXT NOT NULL,
    received_at TEXT NOT NULL,
    received    BIGINT NOT NULL
);

-- The plant's shifts, hours of UTC; a shift that spans midnight is two rows of one name.
CREATE TABLE shift (name TEXT NOT NULL, first_hour INTEGER PRIMARY KEY, end_hour INTEGER NOT NULL);
INSERT INTO shift VALUES ('night', 0, 6), ('early', 6, 14), ('late', 14, 22), ('night', 22, 24);

-- What counts today: real parts, each by its last revision, in whatever order the revisions came.
CREATE VIEW current_result AS
    SELECT * FROM result WHERE NOT is_simulated AND NOT EXISTS (
        SELECT 1 FROM result AS later
        WHERE later.supersedes = result.result_id AND later.station = result.station);

-- Yield by shift. "pass", "reject" and "review" are the last verdicts, first_pass the share of parts that the
-- station itself passed at once. A part with several views counts once a view.
CREATE VIEW shift_yield AS
    SELECT counted.*, 1.0 * first_passed / NULLIF(inspected, 0) AS first_pass_yield FROM (
        SELECT last.station, substr(last.captured_at, 1, 10) AS day, shift.name AS shift,
            COUNT(*) AS results,
            SUM(CASE WHEN last.result_state = 'aborted' THEN 0 ELSE 1 END) AS inspected,
            SUM(CASE WHEN last.result_state = 'aborted' THEN 1 ELSE 0 END) AS not_inspected,
            SUM(CASE WHEN last.disposition = 'pass' THEN 1 ELSE 0 END) AS passed,
            SUM(CASE WHEN last.disposition = 'reject' THEN 1 ELSE 0 END) AS rejected,
            SUM(CASE WHEN last.disposition = 'review' AND last.result_state <> 'aborted' THEN 1 ELSE 0 END)
                AS in_review,
            SUM(CASE WHEN root.disposition = 'pass' THEN 1 ELSE 0 END) AS first_passed
        FROM current_result AS last
        LEFT JOIN result AS root ON root.result_id = last.root_result_id
        JOIN shift ON CAST(substr(last.captured_at, 12, 2) AS INTEGER) >= shift.first_hour
            AND CAST(substr(last.captured_at, 12, 2) AS INTEGER) < shift.end_hour
        GROUP BY last.station, substr(last.captured_at, 1, 10), shift.name) AS counted;

-- Sequences of a boot that nothing accounts for, simulated parts included: they use the same numbers. What is
-- missing behind the last one that came cannot be seen here.
CREATE VIEW sequence_gap AS
    SELECT station, boot_id, COALESCE(covered_until, 0) + 1 AS first_missing, first_sequence - 1 AS last_missing
    FROM (
        SELECT station, boot_id, first_sequence, MAX(last_sequence) OVER (
            PARTITION BY station, boot_id ORDER BY first_sequence, last_sequence
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS covered_until
        FROM (
            SELECT station, boot_id, sequence AS first_sequence, sequence AS last_sequence FROM result
            UNION ALL
            SELECT station, boot_id, sequence, sequence FROM not_inspected
            UNION ALL
            SELECT station, missed_boot_id, first_sequence, last_sequence FROM not_inspected) AS spans) AS covered
    WHERE first_sequence > COALESCE(covered_until, 0) + 1;

-- One sequence of one boot under two parts: a station's outbox was replaced, or two stations share a topic.
CREATE VIEW sequence_clash AS
    SELECT station, boot_id, sequence, COUNT(DISTINCT root_result_id) AS parts FROM result
    GROUP BY station, boot_id, sequence HAVING COUNT(DISTINCT root_result_id) > 1;
