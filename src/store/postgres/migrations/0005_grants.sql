-- Who may issue which values of a continuous counter, where several Redis share this database (profile full). Values are numeric(20): all
-- of an unsigned 64-bit integer; times are in milliseconds since 1970-01-01T00:00:00Z.

-- Of each prefix key the lowest scheme of counters that may still be granted something, and since when there are grants.
CREATE TABLE numgen_line_keys (
    prefix_key text COLLATE "C" PRIMARY KEY,
    scheme     numeric(20) NOT NULL,
    since_ms   bigint NOT NULL
);

-- One row for each counter: nothing above granted_to was granted; NULL before the first grant. grants counts them.
CREATE TABLE numgen_lines (
    prefix_key text COLLATE "C" NOT NULL,
    period     text COLLATE "C" NOT NULL,
    granted_to numeric(20),
    grants     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (prefix_key, period)
) WITH (fillfactor = 50);

-- What was granted to the Redis of a data centre, in one generation of its memory. Each grant follows another of the same Redis (0: it is the
-- first): whoever asks for that one again finds it here. closed: another generation has followed; values from remainder_from on were
-- not known to be issued then, and are nobody's.
CREATE TABLE numgen_grants (
    prefix_key     text COLLATE "C" NOT NULL,
    period         text COLLATE "C" NOT NULL,
    id             bigint NOT NULL,
    datacenter     integer NOT NULL,
    generation     numeric(20) NOT NULL,
    follows        bigint NOT NULL,
    first          numeric(20) NOT NULL,
    last           numeric(20) NOT NULL CHECK (first <= last),
    state          text NOT NULL CHECK (state IN ('open', 'used', 'closed')),
    remainder_from numeric(20),
    since_ms       bigint NOT NULL,
    PRIMARY KEY (prefix_key, period, id),
    UNIQUE (prefix_key, period, datacenter, generation, follows),
    FOREIGN KEY (prefix_key, period) REFERENCES numgen_lines
);

CREATE INDEX numgen_grants_open ON numgen_grants (prefix_key, period) WHERE state = 'open';

-- What nodes drew for once while they could not reach their Redis; the request is a random name of theirs.
CREATE TABLE numgen_draws (
    request    bytea PRIMARY KEY CHECK (length(request) = 16),
    prefix_key text COLLATE "C" NOT NULL,
    period     text COLLATE "C" NOT NULL,
    first      numeric(20) NOT NULL,
    last       numeric(20) NOT NULL CHECK (first <= last),
    since_ms   bigint NOT NULL,
    FOREIGN KEY (prefix_key, period) REFERENCES numgen_lines
);

CREATE INDEX numgen_draws_counter ON numgen_draws (prefix_key, period);

-- What of that was handed back: nobody has it, and nobody gets it.
CREATE TABLE numgen_draws_returned (
    prefix_key text COLLATE "C" NOT NULL,
    period     text COLLATE "C" NOT NULL,
    first      numeric(20) NOT NULL,
    last       numeric(20) NOT NULL CHECK (first <= last),
    since_ms   bigint NOT NULL,
    PRIMARY KEY (prefix_key, period, first),
    FOREIGN KEY (prefix_key, period) REFERENCES numgen_lines
);

-- The generations of each memory of a Redis (in a cluster one for each hash slot); over once another has followed.
CREATE TABLE numgen_redis_generations (
    datacenter integer NOT NULL,
    marker     text COLLATE "C" NOT NULL,
    generation numeric(20) NOT NULL,
    is_over    boolean NOT NULL,
    since_ms   bigint NOT NULL,
    PRIMARY KEY (datacenter, marker, generation)
);

-- To which Redis a data centre ID belongs, and until when it is held for it.
CREATE TABLE numgen_datacenters (
    datacenter integer PRIMARY KEY,
    redis      text NOT NULL,
    name       text NOT NULL,
    expires_ms bigint NOT NULL
);

-- What is confirmed of the worker slots that a Redis hands out: nobody issues above mark. owner is the present holding, NULL once it was
-- given up.
CREATE TABLE numgen_worker_marks (
    datacenter integer NOT NULL,
    slot       integer NOT NULL CHECK (slot >= 0),
    owner      bytea CHECK (length(owner) = 16),
    start      bigint NOT NULL,
    mark       bigint NOT NULL,
    PRIMARY KEY (datacenter, slot)
);
