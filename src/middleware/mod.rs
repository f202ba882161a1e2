//! What every request passes on its way to a handler: one tower middleware per module.
//!
//! Each is generic over the service inside, refuses with a typed error of its own and knows nothing of statuses: `stack`
//! says in which order they stand, and maps errors to problem documents.

pub mod authenticate;
pub mod catch_panic;
pub mod context;
pub mod cors;
pub mod head_limits;
pub mod observe;
pub mod overload;
mod peer;
pub mod rate_limit;
pub mod redact;
mod request_id;
pub mod rescue;
