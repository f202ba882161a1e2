-- Nodes that have said, since strict numbers were suspended, what they remember; each at the server and timeline (place) where it was heard.
-- Before this step a person could resume before a node that lived had been in touch, and what it remembered was issued again.
CREATE TABLE numgen_ledger_heard (
    node  text PRIMARY KEY,
    place text NOT NULL
);
