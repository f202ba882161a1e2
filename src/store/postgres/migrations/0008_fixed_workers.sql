-- Whether the last holding of a slot was by an operator's word (NUMGEN_WORKER_ID): its holder goes on without this database, so that the slot
-- is not leased until the holder has given it up.
ALTER TABLE numgen_worker_slots ADD COLUMN fixed boolean NOT NULL DEFAULT false;
