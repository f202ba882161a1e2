//! The integration tests: one binary, so that the crate is linked once.
//!
//! Everything here sees the service from outside: its sources as text, or the built binary as a process that is
//! spoken to over real sockets, killed and started again.

mod harness;

mod audit;
mod check;
mod clock;
mod contract;
mod cors;
mod counter_script;
mod crash;
mod faults;
mod grants;
mod import;
mod key_sets;
mod layering;
mod ledger_postgres;
mod limits;
mod metrics;
mod modes;
mod monitoring;
mod nodes;
mod observe;
mod openapi;
mod overload;
mod owasp_api_top10;
mod postgres;
mod postgres_counters;
mod postgres_nodes;
mod postgres_restored;
mod postgres_standby;
mod postgres_tls;
mod problems;
mod process;
mod readme;
mod redaction;
mod redis_client;
mod redis_keys;
mod reload;
mod replication;
mod rules;
mod smuggling;
mod tenants;
mod traces;
mod verify;
mod windows;
mod wire;
