-- Pages of one state: few rows where most are issued, and without these a page of them reads the whole ledger of a key.
CREATE INDEX ledger_pages_reserved ON ledger (prefix_key, period, sequence) WHERE state = 'reserved';
CREATE INDEX ledger_pages_void ON ledger (prefix_key, period, sequence) WHERE state = 'void';
