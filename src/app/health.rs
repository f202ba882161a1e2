//! How the service stands, for `/readyz` and `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

use crate::{
    api::{Component, Health, Readiness},
    auth::Verifier,
    rule::{Mode, OnOutage, Rule},
    rules::{Following, Footing, Registry},
    store::{Home, Reachable, Suspension},
    worker::{Standing, Worker},
};

use super::gauges::Gauges;

/// More refused rules than this are counted, not named.
const REFUSALS_SHOWN: usize = 10;

/// Looks at the parts whose state changes while the service runs.
pub(super) struct Status {
    draining: AtomicBool,
    /// It was ready once.
    has_begun: AtomicBool,
    parts: Parts,
}

/// Where to look.
pub(super) struct Parts {
    pub(super) worker: Worker,
    pub(super) rules: Arc<Registry>,
    /// Where rules are kept elsewhere.
    pub(super) following: Option<Arc<Following>>,
    /// The store that nodes share, by its name, where there is one.
    pub(super) elsewhere: Option<(&'static str, watch::Receiver<Reachable>)>,
    /// Where there is a PostgreSQL behind it: whether that can be asked, and whose the data centre ID is.
    pub(super) postgres: Option<watch::Receiver<Reachable>>,
    /// Where strict ledgers may have to be suspended.
    pub(super) suspension: Option<watch::Receiver<Option<Suspension>>>,
    pub(super) home: Option<watch::Receiver<Home>>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) gauges: Gauges,
}

/// What was found, and what it means for the whole.
struct Finding {
    component: Component,
    severity: Severity,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Well,
    Degraded,
}

impl Finding {
    fn well(name: &'static str) -> Self {
        Self { component: Component { name, state: "ok".to_owned() }, severity: Severity::Well }
    }

    fn degraded(name: &'static str, state: impl Into<String>) -> Self {
        Self { component: Component { name, state: state.into() }, severity: Severity::Degraded }
    }

    fn is_degraded(&self) -> bool {
        self.severity == Severity::Degraded
    }
}

impl Status {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { draining: AtomicBool::new(false), has_begun: AtomicBool::new(false), parts })
    }

    /// From now on traffic should go elsewhere.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    fn footing(&self) -> Footing {
        self.parts.following.as_ref().map_or(Footing::Register, |following| following.footing())
    }

    fn rules(&self) -> Finding {
        let mut said = match self.footing() {
            Footing::Nothing => vec!["not loaded yet".to_owned()],
            Footing::Copy(saved_at) => vec![format!("local copy from {}", saved_at.to_rfc3339())],
            Footing::Register => Vec::new(),
        };
        let refused = self.parts.rules.refusals();
        if !refused.is_empty() {
            let shown = refused.iter().take(REFUSALS_SHOWN).map(|(name, why)| format!("{name}: {why}"));
            let more = refused.len().saturating_sub(REFUSALS_SHOWN);
            let more = (more > 0).then(|| format!("{more} more"));
            said.push(format!("refused {}", shown.chain(more).collect::<Vec<_>>().join("; ")));
        }
        if said.is_empty() { Finding::well("rules") } else { Finding::degraded("rules", said.join("; ")) }
    }

    /// The store that numbers rest on.
    fn store(&self, window: bool) -> Finding {
        match &self.parts.elsewhere {
            Some((name, reachable)) => match &*reachable.borrow() {
                // The window is renewed there all the while: what is said to that is said to everything that writes.
                Reachable::Yes => {
                    if let Standing::Unwilling(why) = self.parts.worker.standing() {
                        Finding::degraded(name, format!("refuses: {why}"))
                    } else {
                        Finding::well(name)
                    }
                }
                Reachable::No { reason, .. } => Finding::degraded(name, format!("away: {reason}")),
            },
            // The window is renewed through the store twice a second: a window that has run out means that it does not answer.
            None if window => Finding::well("store"),
            None => Finding::degraded("store", "does not answer"),
        }
    }

    fn worker(&self, window: bool) -> Finding {
        let standing = self.parts.worker.standing();
        match (window, standing == Standing::Held) {
            (true, true) => Finding::well("worker"),
            (false, true) => Finding::degraded("worker", "the window has run out"),
            (true, false) => Finding::degraded("worker", format!("not renewed: {standing}")),
            (false, false) => Finding::degraded("worker", format!("no window: {standing}")),
        }
    }

    /// The store that forgets nothing, behind the one that numbers rest on.
    fn postgres(&self) -> Option<Finding> {
        let reachable = self.parts.postgres.as_ref()?.borrow();
        Some(match &*reachable {
            Reachable::Yes => Finding::well("postgres"),
            Reachable::No { reason, .. } => Finding::degraded("postgres", format!("away: {reason}")),
        })
    }

    /// The strict ledger, where it is not as it should be.
    fn ledger(&self) -> Option<Finding> {
        let suspension = self.parts.suspension.as_ref()?.borrow();
        suspension.as_ref().map(|why| Finding::degraded("ledger", why.to_string()))
    }

    fn home(&self) -> Option<Finding> {
        let home = self.parts.home.as_ref()?.borrow();
        Some(match &*home {
            Home::Own => Finding::well("datacenter"),
            home @ (Home::Unknown | Home::Foreign(_)) => Finding::degraded("datacenter", home.to_string()),
        })
    }

    fn jwks(&self) -> Option<Finding> {
        let jwks = self.parts.verifier.jwks_status()?;
        Some(match (&jwks.failure, jwks.fetched_at) {
            (Some(failure), _) => Finding::degraded("jwks", failure.clone()),
            (None, None) => Finding::degraded("jwks", "not fetched yet"),
            (None, Some(_)) => Finding::well("jwks"),
        })
    }
}

impl Health for Status {
    fn readiness(&self) -> Readiness {
        let window = !self.parts.worker.ids().window_left().is_zero();
        let store = self.store(window);
        let worker = self.worker(window);
        let (postgres, ledger) = (self.postgres(), self.ledger());
        let is_away = [Some(&store), postgres.as_ref()].into_iter().flatten().any(Finding::is_degraded);
        // Who has just begun has to wait for its first window, unless there is nobody to give it one.
        let may_do_without =
            self.parts.elsewhere.is_some() && (is_away || self.has_begun.load(Ordering::Acquire));
        let keeps_ledgers = ledger.is_none() && !postgres.as_ref().unwrap_or(&store).is_degraded();
        let goes_on = |rule: &Rule| match rule.mode {
            Mode::Snowflake => false,
            // With what the node holds or was granted, or with temporary numbers.
            Mode::Continuous => !store.is_degraded() || rule.on_outage != OnOutage::Fail,
            Mode::Strict => keeps_ledgers,
        };
        let issues = window || (may_do_without && self.parts.rules.has(goes_on));
        let ready = issues && self.footing() != Footing::Nothing;
        if ready {
            self.has_begun.store(true, Ordering::Release);
        }
        let findings = [self.rules(), store, worker].into_iter().chain(postgres).chain(ledger);
        let findings: Vec<_> = findings.chain(self.home()).chain(self.jwks()).collect();
        let worst = findings.iter().map(|finding| finding.severity).max();
        let draining = self.draining.load(Ordering::Acquire);
        let status = match (draining, ready, worst) {
            (true, _, _) => "draining",
            (false, false, _) => "unready",
            (false, true, Some(Severity::Degraded)) => "degraded",
            (false, true, Some(Severity::Well) | None) => "ready",
        };
        let components = findings.into_iter().map(|finding| finding.component).collect();
        Readiness { ready: ready && !draining, status, components }
    }

    fn metrics(&self) -> String {
        self.parts.gauges.measure(&self.readiness());
        self.parts.gauges.metrics.render()
    }
}
