-- Rows of the ledger are found through their counter and its key: with either deleted, a whole period was out of sight of everybody who looks,
-- verification included, and no trigger of the ledger had refused it.

CREATE TRIGGER numgen_ledger_counters_stay
BEFORE DELETE OR TRUNCATE ON numgen_ledger_counters FOR EACH STATEMENT
EXECUTE FUNCTION numgen_ledger_refuse('counters of a ledger are never deleted');

CREATE TRIGGER numgen_ledger_keys_stay
BEFORE DELETE OR TRUNCATE ON numgen_ledger_keys FOR EACH STATEMENT
EXECUTE FUNCTION numgen_ledger_refuse('keys of a ledger are never deleted');
