//! Redis Cluster: which node owns which slot, and a line to each of them.
//!
//! Invariants: the map comes from the nodes that are connected, and among them from the one that has seen the latest election,
//! so that a node that was cut off with an old map is not believed; a call goes to the owner in the map or to where a node
//! sends it (`MOVED`, `ASK`: it was not executed there).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    failure::Refusal,
    line::Line,
    link::{Access, Link},
    place::Place,
    slots::SLOTS,
};
use crate::config::Address;

/// How often the map is looked at while all is well, and how often while something is not.
const REFRESH: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(250);

/// The least time between two questions for the map, whoever asks for it.
const PAUSE: Duration = Duration::from_millis(50);

/// The owner of every slot.
pub(super) struct Map {
    /// Index of the owner by slot; [`NOBODY`] where there is none.
    owners: Vec<u16>,
    masters: Vec<Arc<Line>>,
    addresses: Vec<Address>,
    /// Why there is no map yet.
    refusal: Option<Arc<Refusal>>,
}

const NOBODY: u16 = u16::MAX;

/// A cluster, followed in the background until it is dropped.
pub(super) struct Cluster {
    inner: Arc<Inner>,
    map: watch::Receiver<Arc<Map>>,
    _stop: DropGuard,
}

struct Inner {
    access: Arc<Access>,
    seeds: Vec<Address>,
    lines: Mutex<HashMap<Address, Arc<Line>>>,
    stale: Notify,
}

/// What one node thinks of the cluster.
struct View {
    /// Whether all is well, and the latest election that it has seen.
    rank: (bool, u64),
    /// First slot, last slot, master.
    ranges: Vec<(u16, u16, Address)>,
}

impl View {
    fn is_well(&self) -> bool {
        self.rank.0
    }
}

impl Cluster {
    pub(super) fn start(access: Arc<Access>, seeds: Vec<Address>) -> Self {
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            access: Arc::clone(&access),
            seeds,
            lines: Mutex::default(),
            stale: Notify::new(),
        });
        let (sender, map) = watch::channel(Arc::new(Map::unknown(Refusal::New)));
        let (keeper, stopped, lifecycle) = (Arc::clone(&inner), stop.clone(), access.lifecycle.clone());
        access.lifecycle.spawn_on(&access.runtime, async move {
            tokio::select! {
                () = keeper.keep(&sender) => {}
                () = stopped.cancelled() => {}
                () = lifecycle.draining() => {}
            }
        });
        Self { inner, map, _stop: stop.drop_guard() }
    }

    /// The map, now and later.
    pub(super) fn map(&self) -> watch::Receiver<Arc<Map>> {
        self.map.clone()
    }

    /// Waits for a link to the owner of a slot, whoever that comes to be.
    pub(super) async fn ready(&self, slot: u16) -> Arc<Link> {
        let mut map = self.map.clone();
        loop {
            let owner = map.borrow_and_update().owner(slot).map(Arc::clone);
            let ready = async {
                match owner {
                    Ok(line) => line.ready().await,
                    Err(_nobody) => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                link = ready => return link,
                changed = map.changed() => if changed.is_err() { std::future::pending::<()>().await },
            }
        }
    }

    /// The link to the owner of a slot, or why there is none.
    pub(super) fn link(&self, slot: u16) -> Result<Arc<Link>, Arc<Refusal>> {
        self.map.borrow().owner(slot)?.link()
    }

    /// The line to a node that another one named.
    pub(super) fn line_to(&self, address: &Address) -> Arc<Line> {
        self.inner.line_to(address)
    }

    /// The map is not what it was: looks at it soon.
    pub(super) fn is_stale(&self) {
        self.inner.stale.notify_one();
    }
}

impl Inner {
    async fn keep(&self, sender: &watch::Sender<Arc<Map>>) {
        let mut refreshed = tokio::time::Instant::now();
        let mut due = true;
        loop {
            if due || refreshed.elapsed() >= REFRESH {
                refreshed = tokio::time::Instant::now();
                let before = Arc::clone(&sender.borrow());
                match self.learn(&before).await {
                    Ok(view) => {
                        if let Some(map) = self.map_of(&view, &before) {
                            tracing::info!(masters = map.addresses.len(), "Redis Cluster has a new map");
                            sender.send_replace(Arc::new(map));
                        }
                    }
                    Err(refusal) if before.masters.is_empty() => {
                        sender.send_replace(Arc::new(Map::unknown(refusal)));
                    }
                    Err(refusal) => tracing::debug!(error = %refusal, "no node of the cluster answers"),
                }
            }
            tokio::time::sleep(PAUSE).await;
            due = tokio::select! {
                () = self.stale.notified() => true,
                () = tokio::time::sleep(LOOK) => sender.borrow().trouble().is_some(),
            };
        }
    }

    /// The best view among the nodes that are connected; where none is, that of the first one that can be reached.
    async fn learn(&self, map: &Map) -> Result<View, Refusal> {
        let links: Vec<_> = map.masters.iter().filter_map(|line| line.link().ok()).collect();
        let views = join_all(links.iter().map(|link| view_of(link))).await;
        if let Some(best) = views.into_iter().flatten().max_by_key(|view| view.rank) {
            return Ok(best);
        }
        let known: Vec<_> = self.seeds.iter().chain(&map.addresses).cloned().collect();
        first_view(&self.access, &known).await
    }

    /// The map of a view, unless it is the one that there is. Lines to nodes that own nothing any more are closed.
    fn map_of(&self, view: &View, before: &Map) -> Option<Map> {
        let mut map = Map { owners: vec![NOBODY; SLOTS], masters: vec![], addresses: vec![], refusal: None };
        for (first, last, address) in &view.ranges {
            let known = map.addresses.iter().position(|known| known == address);
            let index = known.unwrap_or_else(|| {
                map.addresses.push(address.clone());
                map.addresses.len() - 1
            });
            let range = usize::from(*first)..=usize::from(*last).min(SLOTS - 1);
            if let (Some(owners), Ok(index)) = (map.owners.get_mut(range), u16::try_from(index)) {
                owners.fill(index);
            }
        }
        if map.addresses == before.addresses && map.owners == before.owners {
            return None;
        }
        map.masters = map.addresses.iter().map(|address| self.line_to(address)).collect();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|address, _| map.addresses.contains(address));
        Some(map)
    }

    fn line_to(&self, address: &Address) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Arc::new(Line::start(Arc::clone(&self.access), Place::Node(address.clone())));
        Arc::clone(lines.entry(address.clone()).or_insert_with(start))
    }
}

impl Map {
    fn unknown(refusal: Refusal) -> Self {
        let refusal = Some(Arc::new(refusal));
        Self { owners: vec![NOBODY; SLOTS], masters: vec![], addresses: vec![], refusal }
    }

    fn owner(&self, slot: u16) -> Result<&Arc<Line>, Arc<Refusal>> {
        let owner =
            self.owners.get(usize::from(slot)).and_then(|&index| self.masters.get(usize::from(index)));
        owner.ok_or_else(|| self.refusal.clone().unwrap_or_else(|| Arc::new(Refusal::Unowned { slot })))
    }

    /// What is not as it should be: a master that is away, or a slot without one.
    pub(super) fn trouble(&self) -> Option<Arc<Refusal>> {
        let unowned = || self.owners.iter().position(|&owner| owner == NOBODY);
        let away = || self.masters.iter().find_map(|line| line.link().err());
        // Slots are below 16384.
        let unowned =
            || unowned().map(|slot| Arc::new(Refusal::Unowned { slot: u16::try_from(slot).unwrap_or(0) }));
        self.refusal.clone().or_else(away).or_else(unowned)
    }

    /// Each connected master, and its place in the map.
    pub(super) fn links(&self) -> Vec<(usize, Arc<Link>)> {
        let link = |(index, line): (usize, &Arc<Line>)| Some((index, line.link().ok()?));
        self.masters.iter().enumerate().filter_map(link).collect()
    }

    /// The slots of a master, by its place.
    pub(super) fn slots(&self, place: usize) -> Vec<u16> {
        let owned = |(slot, owner): (u16, &u16)| (usize::from(*owner) == place).then_some(slot);
        (0_u16..).zip(&self.owners).filter_map(owned).collect()
    }
}

/// The masters, by the first seed that can be reached.
pub(super) async fn masters(access: &Access, seeds: &[Address]) -> Result<Vec<Address>, Refusal> {
    let mut masters: Vec<_> =
        first_view(access, seeds).await?.ranges.into_iter().map(|(_, _, master)| master).collect();
    masters.sort_unstable();
    masters.dedup();
    Ok(masters)
}

/// The master of a slot, by the first seed that can be reached.
pub(super) async fn owner(access: &Access, seeds: &[Address], slot: u16) -> Result<Address, Refusal> {
    let ranges = first_view(access, seeds).await?.ranges;
    let owner = ranges.into_iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
    owner.map(|(_, _, master)| master).ok_or(Refusal::Unowned { slot })
}

/// The first view by which the cluster is well; where there is none, the first by which there is a cluster at all. A node that was taken out of
/// one may still answer, and knows of no other.
async fn first_view(access: &Access, nodes: &[Address]) -> Result<View, Refusal> {
    let (mut doubtful, mut refusal) = (None, Refusal::New);
    for address in nodes {
        let asked = async {
            let link = access.open(address).await?;
            if !link.info().is_cluster_node() {
                return Err(Refusal::NoCluster { address: address.clone() });
            }
            view_of(&link).await
        };
        match asked.await {
            Ok(view) if view.is_well() => return Ok(view),
            Ok(view) => doubtful = doubtful.or(Some(view)),
            Err(why) => refusal = why,
        }
    }
    doubtful.ok_or(refusal)
}

/// Fails where a node is a member of no cluster that was made: it hears nothing of what is said in another.
pub(super) async fn require_slots(link: &Link) -> Result<(), Refusal> {
    view_of(link).await.map(|_view| ())
}

async fn view_of(link: &Link) -> Result<View, Refusal> {
    let mut questions = [redis::cmd("CLUSTER"), redis::cmd("CLUSTER")];
    questions[0].arg("INFO");
    questions[1].arg("SLOTS");
    let info = link.send_soon(&questions[0]).await?;
    let slots = link.send_soon(&questions[1]).await?;
    let info = super::info::Info::parse(&redis::from_redis_value::<String>(info).unwrap_or_default());
    let epoch = info.get("cluster_current_epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
    let ranges = ranges(slots, link.address());
    if ranges.is_empty() {
        return Err(Refusal::Slotless { address: link.address().clone() });
    }
    Ok(View { rank: (info.get("cluster_state") == Some("ok"), epoch), ranges })
}

/// The reply to `CLUSTER SLOTS`: first slot, last slot, master, replicas. A node that does not know its own name leaves it
/// out; it is the one that was asked.
fn ranges(reply: Value, asked: &Address) -> Vec<(u16, u16, Address)> {
    let rows: Vec<Vec<Value>> = redis::from_redis_value(reply).unwrap_or_default();
    let range = |row: Vec<Value>| {
        let mut row = row.into_iter();
        let first = redis::from_redis_value(row.next()?).ok()?;
        let last = redis::from_redis_value(row.next()?).ok()?;
        let node: Vec<Value> = redis::from_redis_value(row.next()?).ok()?;
        let mut node = node.into_iter();
        let host: Option<String> = redis::from_redis_value(node.next()?).ok()?;
        let port = redis::from_redis_value(node.next()?).ok()?;
        let host = host.filter(|host| !host.is_empty() && host != "?").unwrap_or_else(|| asked.host.clone());
        Some((first, last, Address { host, port }))
    };
    rows.into_iter().filter_map(range).collect()
}

/// Where a node sends a call that it does not serve, and on what terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirection {
    /// The slot has moved there for good.
    Moved(Address),
    /// This one call goes there, announced by `ASKING`.
    Ask(Address),
}

impl Redirection {
    /// What an error of the node at `asked` says.
    pub(super) fn of(error: &RedisError, asked: &Address) -> Option<Self> {
        let (node, _slot) = error.redirect_node()?;
        let (host, port) = node.rsplit_once(':')?;
        let host = if host.is_empty() { &asked.host } else { host };
        let address = Address { host: host.to_owned(), port: port.parse().ok()? };
        match error.code()? {
            "MOVED" => Some(Self::Moved(address)),
            "ASK" => Some(Self::Ask(address)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn slots_are_read_whatever_a_node_calls_itself() {
        let row =
            |first, last, node| Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(node)]);
        let reply = Value::Array(vec![
            row(0, 5460, vec![text("10.0.0.1"), Value::Int(7000), text("id")]),
            row(5461, 5461, vec![Value::Nil, Value::Int(7001), text("id")]),
            row(5462, 16383, vec![text(""), Value::Int(7002), text("id"), Value::Array(vec![])]),
            Value::Array(vec![Value::Int(1)]),
        ]);
        let expected = vec![
            (0, 5460, at("10.0.0.1", 7000)),
            (5461, 5461, at("seed", 7001)),
            (5462, 16383, at("seed", 7002)),
        ];
        assert_eq!(ranges(reply, &at("seed", 1)), expected);
        assert_eq!(ranges(Value::Nil, &at("seed", 1)), vec![]);
    }

    #[test]
    fn redirections_are_told_from_other_errors() {
        let of = |line: &str| {
            let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
            Redirection::of(&value.extract_error().unwrap_err(), &at("asked", 1))
        };
        assert_eq!(of("MOVED 3999 10.0.0.1:6381"), Some(Redirection::Moved(at("10.0.0.1", 6381))));
        assert_eq!(of("ASK 3999 ::1:6381"), Some(Redirection::Ask(at("::1", 6381))));
        assert_eq!(of("MOVED 3999 :6381"), Some(Redirection::Moved(at("asked", 6381))));
        assert_eq!(of("ERR MOVED 3999 10.0.0.1:6381"), None);
        assert_eq!(of("CLUSTERDOWN The cluster is down"), None);
    }
}
