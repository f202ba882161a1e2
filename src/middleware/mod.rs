//! What every request passes on its way to a handler: one tower middleware per module.
//!
//! Each is generic over the service inside, refuses with a typed error of its own and knows nothing of statuses: `stack`
//! says in which order they stand, and maps errors to problem documents.

pub mod authenticate;
pub mod catch_panic;
pub mod head_limits;
pub mod observe;
pub mod overload;
pub mod peer;
pub mod rate_limit;
pub mod redact;
pub mod request_id;
pub mod rescue;

use std::net::IpAddr;

/// The address that a request comes from: the server puts it into the extensions of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddress(pub IpAddr);
