//! The dashboards are what their sources say, and fit to be provisioned anywhere.

use std::{collections::BTreeSet, fs};

use numgen::telemetry::catalog::FAMILIES;
use serde_json::Value;

use super::{drawing, files, path, queries, read};

/// Set by `make dashboards`: what differs is written instead of reported.
const WRITE: &str = "NUMGEN_WRITE_DASHBOARDS";

/// What Grafana itself replaces in a query.
const BUILT_IN: [&str; 2] = ["__rate_interval", "__range"];

/// Every dashboard, by the path of its file.
#[track_caller]
pub(super) fn all() -> Vec<(String, Value)> {
    let parse = |file: String| {
        let dashboard = serde_json::from_str(&read(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        (file, dashboard)
    };
    files("grafana/dashboards", "json").into_iter().map(parse).collect()
}

/// The panels of a dashboard, without the heads of rows.
pub(super) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row")
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The names of the variables in a query: `$name` and `${name}`.
fn variables(query: &str) -> impl Iterator<Item = &str> {
    query.split('$').skip(1).map(|rest| {
        let rest = rest.trim_start_matches('{');
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn dashboards_are_what_their_sources_say() {
    let sources = files("grafana/source", "toml");
    for source in &sources {
        let target = source.replace("/source/", "/dashboards/").replace(".toml", ".json");
        let mut drawn = serde_json::to_string_pretty(&drawing::draw(&read(source))).expect("JSON");
        drawn.push('\n');
        if std::env::var_os(WRITE).is_some() {
            fs::write(path(&target), &drawn).expect("a dashboard");
        }
        assert!(read(&target) == drawn, "{target} is not what {source} says: run  make dashboards");
    }
    assert_eq!(sources.len(), all().len(), "a dashboard without a source");
}

#[test]
fn names_and_numbers_are_unique() {
    let (mut uids, mut titles) = (BTreeSet::new(), BTreeSet::new());
    for (file, dashboard) in all() {
        assert!(uids.insert(text(&dashboard["uid"]).to_owned()), "{file}: uid");
        assert!(titles.insert(text(&dashboard["title"]).to_owned()), "{file}: title");
        assert_eq!(dashboard["id"], Value::Null, "{file}: Grafana gives it an id");
        assert!(dashboard["schemaVersion"].as_u64() >= Some(39), "{file}: Grafana 11");
        let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&dashboard["panels"]) {
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{file}: {}", panel["id"]);
            assert!(names.insert(text(&panel["title"])), "{file}: {}", panel["title"]);
        }
        assert!(ids.len() > 5, "{file}");
    }
}

#[test]
fn panels_are_described_and_measured() {
    for (file, dashboard) in all() {
        assert!(text(&dashboard["description"]).ends_with('.'), "{file}");
        for panel in panels(&dashboard) {
            let title = format!("{file}: {}", panel["title"]);
            assert!(text(&panel["description"]).ends_with('.'), "{title}: a description");
            let field = &panel["fieldConfig"]["defaults"];
            assert!(!text(&field["unit"]).is_empty(), "{title}: a unit");
            let steps = list(&field["thresholds"]["steps"]);
            assert_eq!(steps.first().map(|step| &step["value"]), Some(&Value::Null), "{title}: thresholds");
            let limits: Vec<f64> = steps.iter().filter_map(|step| step["value"].as_f64()).collect();
            assert!(limits.is_sorted() && limits.len() + 1 == steps.len(), "{title}: {limits:?}");
            // A state that has no colour tells nothing.
            assert!(panel["type"] != "state-timeline" || !limits.is_empty(), "{title}: thresholds");
        }
        let limited = panels(&dashboard)
            .filter(|panel| list(&panel["fieldConfig"]["defaults"]["thresholds"]["steps"]).len() > 1);
        assert!(limited.count() * 2 > panels(&dashboard).count(), "{file}: most panels say what is too much");
    }
}

#[test]
fn panels_do_not_overlap() {
    for (file, dashboard) in all() {
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard["panels"]) {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|at| panel["gridPos"][at].as_u64().expect("a place"));
            assert!(x + w <= 24 && w > 0 && h > 0, "{file}: {}", panel["title"]);
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{file}: {} is on another", panel["title"]);
            }
        }
    }
}

#[test]
fn nothing_names_a_host_or_a_data_source() {
    for (file, dashboard) in all() {
        let source = &list(&dashboard["templating"]["list"])[0];
        assert_eq!((text(&source["name"]), text(&source["type"])), ("datasource", "datasource"), "{file}");
        let whole = dashboard.to_string();
        for host in ["://", "localhost", "127.0.0.1", "0.0.0.0", ":9090", ":9464", ".local", ".com", ".svc"] {
            assert!(!whole.contains(host), "{file} has {host}");
        }
        let mut seen = 0;
        let mut asked: Vec<&Value> = panels(&dashboard).collect();
        asked.extend(panels(&dashboard).flat_map(|panel| list(&panel["targets"])));
        let annotations = list(&dashboard["annotations"]["list"]);
        asked.extend(annotations.iter().filter(|annotation| annotation["builtIn"] != 1));
        asked.extend(list(&dashboard["templating"]["list"]).iter().filter(|one| one["type"] == "query"));
        for asked in asked {
            assert_eq!(text(&asked["datasource"]["uid"]), "${datasource}", "{file}: {asked}");
            seen += 1;
        }
        assert!(seen > 20, "{file}");
    }
    // The address of Prometheus is the deployment's.
    for file in files("grafana/provisioning/datasources", "yaml") {
        let urls: Vec<String> = read(&file)
            .lines()
            .filter_map(|line| line.trim().strip_prefix("url:").map(|url| url.trim().to_owned()))
            .collect();
        assert_eq!(urls, ["${PROMETHEUS_URL}"], "{file}");
    }
}

#[test]
fn queries_read_what_there_is_and_everything_that_there_is() {
    let recorded = super::alerts::recorded();
    let mut read = BTreeSet::new();
    for (file, dashboard) in all() {
        let own = list(&dashboard["templating"]["list"]);
        let own: BTreeSet<&str> = own.iter().map(|variable| text(&variable["name"])).collect();
        for name in ["datasource", "datacenter", "node", "instance"] {
            assert!(own.contains(name), "{file}: variable {name}");
        }
        for panel in panels(&dashboard) {
            let targets = list(&panel["targets"]);
            assert!(!targets.is_empty(), "{file}: {}", panel["title"]);
            let names: BTreeSet<&str> = targets.iter().map(|target| text(&target["refId"])).collect();
            assert_eq!(names.len(), targets.len(), "{file}: {}", panel["title"]);
            for target in targets {
                let query = text(&target["expr"]);
                read.extend(queries::check(query, &recorded));
                for name in variables(query) {
                    assert!(own.contains(name) || BUILT_IN.contains(&name), "{file}: ${name} in {query}");
                }
            }
        }
        for annotation in list(&dashboard["annotations"]["list"]) {
            read.extend(queries::check(text(&annotation["expr"]), &recorded));
        }
    }
    let unseen: Vec<_> =
        FAMILIES.iter().map(|family| family.name).filter(|name| !read.contains(name)).collect();
    assert!(unseen.is_empty(), "on no dashboard: {unseen:?}");
}
