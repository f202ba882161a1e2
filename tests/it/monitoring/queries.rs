//! Queries as text: which metrics they read, and by which labels.

use std::collections::BTreeSet;

use numgen::telemetry::catalog::{FAMILIES, Family, Kind};

/// What a target of Prometheus adds to every metric, what a histogram adds, and what the data centre is joined by.
const EVERYWHERE: [&str; 2] = ["job", "instance"];

/// One metric in a query, with the labels that it is selected by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selector<'a> {
    pub(super) metric: &'a str,
    pub(super) labels: Vec<&'a str>,
}

/// Every metric of numgen, of its process and of its recording rules in a query.
pub(super) fn selectors(query: &str) -> Vec<Selector<'_>> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(begin) = rest.find(is_part) {
        rest = &rest[begin..];
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        let mut labels = Vec::new();
        if let Some(inside) = after.strip_prefix('{') {
            let close = closing(inside);
            labels = label_names(&inside[..close]);
            rest = &inside[close..];
        }
        if word.starts_with("numgen_") || word.starts_with("process_") || word.contains(':') {
            found.push(Selector { metric: word, labels });
        }
    }
    found
}

/// Where the braces end; those inside quotes do not count.
fn closing(inside: &str) -> usize {
    let mut quoted = false;
    let end = inside.find(|c| {
        quoted ^= c == '"';
        c == '}' && !quoted
    });
    end.expect("a closing brace")
}

fn label_names(matchers: &str) -> Vec<&str> {
    // Every second piece between quotes is a value.
    let names = matchers.split('"').step_by(2);
    let names =
        names.map(|piece| piece.trim_start_matches([',', ' ']).trim_end_matches(['=', '~', '!', ' ']));
    names.filter(|name| !name.is_empty()).collect()
}

/// The metric of the service that a name in a query belongs to.
pub(super) fn family(metric: &str) -> Option<&'static Family> {
    let parts = ["_bucket", "_sum", "_count"];
    let histogram = parts.iter().find_map(|part| metric.strip_suffix(part));
    FAMILIES.iter().find(|family| {
        family.name == metric && family.kind != Kind::Histogram
            || family.kind == Kind::Histogram && histogram == Some(family.name)
    })
}

/// Fails unless a query reads what there is; `recorded` are the recording rules. Answers the families that it reads.
#[track_caller]
pub(super) fn check(query: &str, recorded: &BTreeSet<String>) -> BTreeSet<&'static str> {
    let mut read = BTreeSet::new();
    for Selector { metric, labels } in selectors(query) {
        if metric.contains(':') {
            assert!(recorded.contains(metric), "no recording rule {metric} for {query}");
            continue;
        }
        let family = family(metric).unwrap_or_else(|| panic!("no metric {metric} for {query}"));
        for label in labels {
            let is_bound = label == "le" && metric.ends_with("_bucket");
            let is_known = family.labels.contains(&label) || EVERYWHERE.contains(&label) || is_bound;
            assert!(is_known, "{metric} has no label {label}: {query}");
        }
        read.insert(family.name);
    }
    read
}

#[test]
fn selectors_are_found_with_their_labels() {
    let query = r#"sum by (le) (rate(numgen_a_bucket{x=~"}\d{2}", y!="a"}[5m])) / on (job) b:c:d{z="1"} > process_e * time()"#;
    let found = selectors(query);
    let named: Vec<_> = found.iter().map(|selector| (selector.metric, selector.labels.as_slice())).collect();
    let expected: [(&str, &[&str]); 3] =
        [("numgen_a_bucket", &["x", "y"]), ("b:c:d", &["z"]), ("process_e", &[])];
    assert_eq!(named, expected);
}
