//! Alerts, their cases for promtool and the runbook belong together.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use super::{files, path, prometheus, queries, read};

const RULES: &str = "prometheus/rules.yaml";
const ALERTS: &str = "prometheus/alerts.yaml";
const RUNBOOK: &str = "docs/runbook.md";

/// The names of all recording rules.
#[track_caller]
pub(super) fn recorded() -> BTreeSet<String> {
    entries(&read(RULES), "record").into_keys().collect()
}

/// The rules of a file: what stands behind `- kind: NAME`, up to the next rule or group.
fn entries(file: &str, kind: &str) -> BTreeMap<String, String> {
    let mark = format!("      - {kind}: ");
    let blocks = file.split(mark.as_str()).skip(1);
    let named = blocks.filter_map(|block| block.split_once('\n'));
    let alone = |block: &str| block.split("\n  - name:").next().unwrap_or_default().to_owned();
    named.map(|(name, block)| (name.trim().to_owned(), alone(block))).collect()
}

/// The text behind `key:` on a line of its own.
fn value<'a>(block: &'a str, key: &str) -> Option<&'a str> {
    let line = block.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "))?;
    Some(line.trim().trim_matches('"'))
}

/// The sections of a page, by heading.
fn sections(page: &str) -> BTreeMap<&str, &str> {
    let blocks = page.split("\n### ").skip(1);
    blocks.filter_map(|block| block.split_once('\n')).map(|(head, body)| (head.trim(), body)).collect()
}

#[track_caller]
fn promtool(arguments: &[&str]) {
    let files = arguments.iter().map(|name| if name.contains('/') { path(name) } else { name.into() });
    let output = Command::new(prometheus::program("promtool")).args(files).output().expect("promtool");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
}

#[test]
fn rules_are_rules() {
    promtool(&["check", "rules", RULES, ALERTS]);
    promtool(&["check", "config", "prometheus/prometheus.yaml"]);
}

#[test]
fn alerts_fire_and_keep_quiet() {
    let cases = files("prometheus/tests", "yaml");
    promtool(&[&["test", "rules"], cases.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
}

#[test]
fn every_alert_has_a_case_for_either() {
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for file in files("prometheus/tests", "yaml") {
        let text = read(&file);
        let cases = text.split("alertname: ").skip(1);
        for (name, rest) in cases.filter_map(|case| case.split_once([',', '\n'])) {
            let is_quiet = rest.trim_start().starts_with("exp_alerts: []");
            let cases = if is_quiet { &mut quiet } else { &mut firing };
            cases.insert(name.to_owned());
        }
    }
    let alerts: BTreeSet<String> = entries(&read(ALERTS), "alert").into_keys().collect();
    assert!(alerts.len() > 30, "{alerts:?}");
    assert_eq!(firing, alerts, "firing");
    assert_eq!(quiet, alerts, "not firing");
}

#[test]
fn every_alert_says_what_and_where_to_read_on() {
    for (name, block) in entries(&read(ALERTS), "alert") {
        let severity = value(&block, "labels").unwrap_or_default();
        assert!(["{severity: critical}", "{severity: warning}"].contains(&severity), "{name}: {severity}");
        for key in ["summary", "description"] {
            assert!(value(&block, key).is_some_and(|text| text.len() > 15), "{name}: {key}");
        }
        let url = format!("{RUNBOOK}#{}", name.to_ascii_lowercase());
        assert_eq!(value(&block, "runbook_url"), Some(url.as_str()), "{name}");
    }
}

#[test]
fn every_alert_is_in_the_runbook_and_nothing_else_is() {
    let page = read(RUNBOOK);
    let sections = sections(&page);
    let of_alerts: BTreeSet<String> =
        sections.keys().filter(|head| head.starts_with("Numgen")).map(|&head| head.to_owned()).collect();
    let alerts: BTreeSet<String> = entries(&read(ALERTS), "alert").into_keys().collect();
    assert_eq!(of_alerts, alerts);
    for (head, body) in sections.iter().filter(|(head, _)| head.starts_with("Numgen")) {
        for part in ["**Means**", "**Look**", "**Do**", "**Over**"] {
            assert!(body.contains(part), "{head}: {part}");
        }
    }
}

#[test]
fn references_inside_the_runbook_lead_somewhere() {
    let page = read(RUNBOOK);
    let headings = page.lines().filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### ")));
    let is_kept = |c: &char| c.is_alphanumeric() || [' ', '-'].contains(c);
    let anchor =
        |heading: &str| heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-");
    let anchors: BTreeSet<String> = headings.map(anchor).collect();
    let mut references = 0;
    for target in page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(anchors.contains(target), "#{target}");
        references += 1;
    }
    assert!(references > 20, "{references}");
}

/// A component that can be other than `ok` has its section.
#[test]
fn every_component_of_readyz_is_in_the_runbook() {
    let page = read(RUNBOOK);
    let sections = sections(&page);
    let health = read("src/app/health.rs");
    let named = health.split("Finding::degraded(\"").skip(1).filter_map(|rest| rest.split('"').next());
    // The store that nodes share goes by its own name.
    let components: BTreeSet<&str> = named.chain(["redis", "postgres"]).collect();
    assert!(components.len() >= 7, "{components:?}");
    for component in components {
        assert!(sections.contains_key(format!("readyz: {component}").as_str()), "{component}");
    }
}

#[test]
fn rules_read_what_there_is() {
    let recorded = recorded();
    let mut read_by_rules = 0;
    for (file, kind) in [(RULES, "record"), (ALERTS, "alert")] {
        for (name, block) in entries(&read(file), kind) {
            let begin = block.find("expr: ").unwrap_or_else(|| panic!("{name}: expr")) + "expr: ".len();
            let end =
                block[begin..].find("\n        for:").or_else(|| block[begin..].find("\n        labels:"));
            let query = &block[begin..begin + end.unwrap_or(block.len() - begin)];
            let without_comments: Vec<&str> =
                query.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
            read_by_rules += queries::check(&without_comments.join("\n"), &recorded).len();
        }
    }
    assert!(read_by_rules > 50, "{read_by_rules}");
}
