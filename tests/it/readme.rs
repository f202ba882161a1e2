//! What README says is what there is: its table of settings, its floors, its links.

use std::{fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_table_of_settings_is_that_of_the_code() {
    let readme = read("README.md");
    let (_, rest) =
        readme.split_once("<!-- settings: kept true by tests/it/readme.rs -->\n").expect("where it begins");
    let (table, _) = rest.split_once("<!-- end of settings -->").expect("where it ends");
    let expected = numgen::config::markdown_table();
    assert!(table.trim() == expected.trim(), "the table should read:\n\n{expected}");
}

#[test]
fn the_table_of_metrics_is_that_of_the_code() {
    let page = read("docs/metrics.md");
    let (_, rest) =
        page.split_once("<!-- metrics: kept true by tests/it/readme.rs -->\n").expect("where it begins");
    let (table, _) = rest.split_once("<!-- end of metrics -->").expect("where it ends");
    let expected = numgen::telemetry::catalog::markdown_table();
    assert!(table.trim() == expected.trim(), "the table should read:\n\n{expected}");
}

/// Every module that stands on a floor in `src/lib.rs` stands on the same floor in README.
#[test]
fn the_floors_are_those_of_the_code() {
    let readme = read("README.md");
    let rows = read("src/lib.rs");
    let rows: Vec<&str> = rows
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.starts_with("| F"))
        .collect();
    assert!(rows.len() >= 8, "{rows:?}");
    for row in rows {
        let floor = &row[..4];
        let described = readme
            .lines()
            .find(|line| line.starts_with(floor))
            .unwrap_or_else(|| panic!("{floor} in README"));
        for module in row.split('`').skip(1).step_by(2) {
            assert!(described.contains(&format!("`{module}`")), "{module} on {floor} of README");
        }
    }
}

#[test]
fn every_table_of_the_database_is_explained() {
    let page = read("docs/postgresql.md");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres/migrations");
    let mut tables = 0;
    for step in fs::read_dir(folder).expect("migrations") {
        let step = fs::read_to_string(step.expect("a step").path()).expect("text");
        for table in step.split("CREATE TABLE ").skip(1).filter_map(|rest| rest.split_whitespace().next()) {
            assert!(page.contains(&format!("\n| `{table}` |")), "docs/postgresql.md lacks {table}");
            tables += 1;
        }
    }
    assert!(tables > 20, "{tables}");
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec!["README.md".to_owned(), "SECURITY.md".to_owned()];
    pages.extend(
        fs::read_dir(root.join("docs"))
            .expect("docs")
            .map(|entry| format!("docs/{}", entry.expect("a page").file_name().display())),
    );
    let mut links = 0;
    for page in pages {
        let folder = root.join(&page).parent().expect("a folder").to_path_buf();
        for target in read(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !target.contains("://") && !target.starts_with('#') {
                let file = target.split('#').next().unwrap_or_default();
                assert!(folder.join(file).exists(), "{page} links to {target}");
                links += 1;
            }
        }
    }
    assert!(links > 2);
}
