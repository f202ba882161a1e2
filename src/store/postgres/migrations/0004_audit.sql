-- Who changed what, when, from where. details is JSON: what changed, never what a rule says. Whoever writes here holds the advisory lock of
-- numgen_audit_lock() to the commit, so that entries become visible in the order of their positions, and a reader who goes on from the
-- last one that it saw misses none.
CREATE TABLE numgen_audit (
    position   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ms      bigint NOT NULL,
    prefix_key text COLLATE "C" NOT NULL,
    action     text NOT NULL,
    subject    text NOT NULL,
    address    text,
    request_id text,
    details    text NOT NULL
);

CREATE INDEX numgen_audit_of_key ON numgen_audit (prefix_key, position);

-- The number is "audit" in ASCII.
CREATE FUNCTION numgen_audit_lock() RETURNS void LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(x'6175646974'::bigint)
$$;

CREATE FUNCTION numgen_audit_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the audit trail are final';
END
$$;

CREATE TRIGGER numgen_audit_entries_stay
BEFORE UPDATE OR DELETE OR TRUNCATE ON numgen_audit
FOR EACH STATEMENT EXECUTE FUNCTION numgen_audit_is_final();
