//! numgen issues unique numbers over HTTP: `ORD-2026-000123`.
//!
//! The house, from the ground up; a file imports only from lower floors (`tests/it/layering.rs` sees to it):
//!
//! | floor | rooms |
//! | --- | --- |
//! | F7 | `app` wires every part once; `cli` holds the other commands |
//! | F6 | `stack`: the public and the admin stack of middleware, and the table that turns errors into problems |
//! | F5 | `api`: routes and handlers, one file per resource |
//! | F4 | `middleware`: one tower layer each; `generate`: the engine, one file per mode; `rules`: the register of rules; `worker`: keeps a worker window |
//! | F3 | `store`: traits and implementations; `auth`: tokens |
//! | F2 | `config`, `telemetry`, `client`, `server` |
//! | F1 | `template`, `snowflake`, `rule`, `counter`, `problem`, `body` |
//! | F0 | `calendar`, `clock`, `json`, `language`, `lifecycle`, `prefix_key`, `scrub`, `secret` |

pub mod api;
pub mod app;
pub mod auth;
pub mod body;
pub mod calendar;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod counter;
pub mod generate;
pub mod json;
pub mod language;
pub mod lifecycle;
pub mod middleware;
pub mod prefix_key;
pub mod problem;
pub mod rule;
pub mod rules;
pub mod scrub;
pub mod secret;
pub mod server;
pub mod snowflake;
pub mod stack;
pub mod store;
pub mod telemetry;
pub mod template;
pub mod worker;
