//! Counts and times HTTP requests.

use std::{cell::Cell, fmt, sync::OnceLock, time::Duration};

use http::{Method, StatusCode};
use metrics::Counter;

use super::{
    catalog,
    labels::OTHER,
    metrics::{Durations, Metrics},
};
use crate::rule::Mode;

/// Methods with a label value of their own, and where each finds its counters.
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", OTHER];

/// Status codes from 100 to 599 have a label value of their own.
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;

thread_local! {
    /// The mode of the numbers that are in the answer which this thread is handing up the stack.
    static ISSUED: Cell<Option<Mode>> = const { Cell::new(None) };
}

/// Says that the answer which is being made holds numbers of this mode. From here to [`HttpMetrics::record`] the answer goes up the
/// stack in one piece, on one thread: a word beside it is cheaper than one inside, which would have to be allocated.
pub fn note_issue(mode: Mode) {
    ISSUED.set(Some(mode));
}

/// The request counters and timers of every route, found by index. A counter is registered when it first counts, since
/// most combinations never occur; from then on counting one request is two loads and an addition.
pub struct HttpMetrics {
    metrics: Metrics,
    routes: Vec<RouteMetrics>,
    by_mode: [Durations; Mode::ALL.len()],
}

struct RouteMetrics {
    label: &'static str,
    duration: Durations,
    by_method: [OnceLock<Box<[OnceLock<Counter>]>>; METHODS.len()],
}

impl HttpMetrics {
    /// Metrics for these routes, by label; [`Self::record`] names them by position.
    pub fn new(metrics: &Metrics, routes: &[&'static str]) -> Self {
        let routes = routes
            .iter()
            .map(|&label| RouteMetrics {
                label,
                duration: metrics.durations(&catalog::HTTP_DURATION, &[("route", label)]),
                by_method: std::array::from_fn(|_| OnceLock::new()),
            })
            .collect();
        let by_mode =
            Mode::ALL.map(|mode| metrics.durations(&catalog::ISSUE_DURATION, &[("mode", mode.as_str())]));
        Self { metrics: metrics.clone(), routes, by_mode }
    }

    /// Counts and times one answered request of the route at position `route`; an unknown position counts nothing.
    pub fn record(&self, route: usize, method: &Method, status: StatusCode, duration: Duration) {
        let issued = ISSUED.take();
        let Some(route) = self.routes.get(route) else { return };
        if let Some(mode) = issued {
            // In the order of `ALL`, which is that of the variants.
            self.by_mode[mode as usize].record(duration);
        }
        route.duration.record(duration);
        let method = METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1);
        let by_status =
            route.by_method[method].get_or_init(|| (0..STATUSES).map(|_| OnceLock::new()).collect());
        // `StatusCode` reaches to 999; nobody answers that.
        let index = usize::from(status.as_u16().saturating_sub(FIRST_STATUS));
        let Some(slot) = by_status.get(index) else { return };
        slot.get_or_init(|| self.counter(route.label, METHODS[method], status)).increment(1);
    }

    fn counter(&self, route: &'static str, method: &'static str, status: StatusCode) -> Counter {
        let labels = [("route", route), ("method", method), ("status", status.as_str())];
        self.metrics.counter(&catalog::HTTP_REQUESTS, &labels)
    }
}

impl fmt::Debug for HttpMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpMetrics").field("routes", &self.routes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_method_and_status() {
        let metrics = Metrics::new();
        let http = HttpMetrics::new(&metrics, &["/numbers", "/prefix-configs/{prefixKey}"]);
        let millisecond = Duration::from_millis(1);
        http.record(0, &Method::GET, StatusCode::OK, millisecond);
        http.record(0, &Method::GET, StatusCode::OK, millisecond);
        http.record(1, &Method::POST, StatusCode::CONFLICT, millisecond);
        http.record(1, &Method::from_bytes(b"BREW").unwrap(), StatusCode::NOT_FOUND, millisecond);
        http.record(9, &Method::GET, StatusCode::OK, millisecond);
        let text = metrics.render();
        for line in [
            r#"numgen_http_requests_total{route="/numbers",method="GET",status="200"} 2"#,
            r#"numgen_http_requests_total{route="/prefix-configs/{prefixKey}",method="POST",status="409"} 1"#,
            r#"numgen_http_requests_total{route="/prefix-configs/{prefixKey}",method="other",status="404"} 1"#,
            r#"numgen_http_request_duration_seconds_bucket{route="/numbers",le="0.0005"} 0"#,
            r#"numgen_http_request_duration_seconds_bucket{route="/numbers",le="0.001"} 2"#,
            r#"numgen_http_request_duration_seconds_count{route="/prefix-configs/{prefixKey}"} 2"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }
}
