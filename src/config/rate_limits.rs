//! Who may ask how often. Each limit allows a burst of one second; 0 means none.

use std::num::NonZeroU32;

use super::{
    parse::{Parser, whole},
    section::{Default, section},
};

/// So many a second; `None` means no limit.
pub type RateLimit = Option<NonZeroU32>;

section! {
    /// Limits per second.
    RateLimits, "Rate limits";
    /// Number requests per second and subject; a batch is one request.
    numbers: RateLimit = "NUMGEN_RATE_LIMIT_NUMBERS", Default("1000000"), per_second();
    /// Numbers per second and subject.
    issued: RateLimit = "NUMGEN_RATE_LIMIT_ISSUED", Default("0"), per_second();
    /// Other requests per second and subject.
    management: RateLimit = "NUMGEN_RATE_LIMIT_MANAGEMENT", Default("100"), per_second();
    /// Unauthenticated or refused requests per second and address.
    address: RateLimit = "NUMGEN_RATE_LIMIT_ADDRESS", Default("20000"), per_second();
}

fn per_second() -> Parser<RateLimit> {
    let number = whole(0_u32..=1_000_000_000);
    Parser::explaining(format!("{} (0: no limit)", number.expects), move |text| {
        number.parse(text).map(NonZeroU32::new)
    })
}
