//! The floors of the house, enforced: a file imports only from lower floors.
//!
//! One crate has no compiler wall between its modules, so this test reads the sources. The floors are those of the
//! table at the top of `src/lib.rs`; there is no second list that could disagree with it. Comments and literals do not
//! count. Files inside one folder may import each other, and [`VOCABULARY`] may be used by its own floor.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Modules of plain words that their neighbours may speak. They import nothing from their own floor, so no cycle can arise.
const VOCABULARY: [&str; 2] = ["counter", "language"];

/// Top-level module -> floor.
type Floors = BTreeMap<String, u8>;

#[test]
fn no_file_imports_upward_or_sideways() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = floors(&fs::read_to_string(src.join("lib.rs")).expect("src/lib.rs"));
    let mut found = Vec::new();
    for path in rust_files(&src) {
        let text = fs::read_to_string(&path).expect("a source file");
        let relative = path.strip_prefix(&src).expect("below src").to_path_buf();
        found.extend(violations(&relative, &text, &floors));
    }
    assert!(found.is_empty(), "the floors of src/lib.rs do not hold:\n{}", found.join("\n"));
}

#[test]
fn every_top_level_module_has_a_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let text = fs::read_to_string(src.join("lib.rs")).expect("src/lib.rs");
    let floors = floors(&text);
    let tokens = tokens(&text);
    let declared: Vec<&str> = tokens
        .windows(3)
        .filter(|w| w[0].text == "mod" && w[2].text == ";")
        .map(|w| w[1].text.as_str())
        .collect();
    assert!(declared.len() > 8, "lib.rs declares its modules: {declared:?}");
    for module in &declared {
        assert!(floors.contains_key(*module), "`{module}` has no floor in the table of src/lib.rs");
    }
}

/// The test itself is tested: planted violations are found, harmless look-alikes are not.
#[test]
fn a_planted_violation_is_found() {
    let table = "//! | F4 | `rules`, `generate` |\n//! | F3 | `store` |\n//! | F0 | `clock`, `language`, `secret` |\n";
    let floors = floors(table);
    let complaints = |file: &str, text: &str| violations(Path::new(file), text, &floors).len();

    assert_eq!(complaints("store/mod.rs", "use crate::rules::Rules;"), 1, "upward");
    assert_eq!(complaints("rules/mod.rs", "use crate::generate::Engine;"), 1, "sideways");
    assert_eq!(
        complaints("store/a.rs", "use crate::{clock::Clock, rules::{A, B}, generate};"),
        2,
        "in a group"
    );
    assert_eq!(complaints("store/a.rs", "fn f() { crate::rules::go() }"), 1, "inline");
    assert_eq!(complaints("store/sqlite/a.rs", "use super::super::super::rules::X;"), 1, "by way of super");
    assert_eq!(
        complaints("store/a.rs", "mod tests { use super::super::super::rules::X; }"),
        1,
        "in a module"
    );
    assert_eq!(complaints("store/a.rs", "use crate::cellar::X;"), 1, "no floor");
    assert_eq!(complaints("store/a.rs", "use crate::*;"), 1, "everything");
    assert_eq!(complaints("secret.rs", "use crate::clock::Clock;"), 1, "sideways on the ground");

    assert_eq!(
        complaints("store/a.rs", "use crate::clock::Clock; use crate::store::b;"),
        0,
        "down, and home"
    );
    assert_eq!(complaints("secret.rs", "use crate::language::Language;"), 0, "vocabulary");
    assert_eq!(
        complaints("store/a.rs", "// crate::rules\n/* crate::rules /* crate::rules */ */"),
        0,
        "comments"
    );
    assert_eq!(complaints("store/a.rs", r###"const A: &str = r#"crate::rules"#; const B: char = '"';"###), 0);
    assert_eq!(complaints("store/a.rs", "fn f<'a>(x: &'a str) { \"\\\"crate::rules\" }"), 0, "strings");
    assert_eq!(complaints("store/a.rs", r###"const A: &[u8] = br#"" crate::rules"#;"###), 0, "bytes");
    assert_eq!(complaints("store/a.rs", "mod tests { use super::super::sqlite; }"), 0, "its own folder");
}

/// Reads the table of floors: lines such as ``//! | F3 | `store`: ..; `worker`: .. |``.
fn floors(lib: &str) -> Floors {
    let mut floors = Floors::new();
    for line in lib.lines() {
        let Some(row) = line.strip_prefix("//! | F") else { continue };
        let (floor, rooms) = row.split_once('|').expect("a row of the table");
        let floor = floor.trim().parse().expect("the number of a floor");
        // Backticked names are at the odd places between backticks.
        for name in rooms.split('`').skip(1).step_by(2) {
            assert_eq!(floors.insert(name.to_owned(), floor), None, "`{name}` stands on two floors");
        }
    }
    floors
}

/// What is wrong in one file, as lines for a person.
fn violations(relative: &Path, text: &str, floors: &Floors) -> Vec<String> {
    let module = module_path(relative);
    let Some(home) = module.first() else {
        return Vec::new(); // lib.rs and main.rs stand above every floor
    };
    let Some(&floor) = floors.get(home) else {
        return vec![format!("{}: `{home}` has no floor", relative.display())];
    };
    let mut found = Vec::new();
    for (line, target) in imports(text, module.len()) {
        let complaint = match floors.get(&target) {
            _ if target == *home => continue,
            Some(&other) if other < floor => continue,
            Some(&other) if other == floor && VOCABULARY.contains(&target.as_str()) => continue,
            Some(&other) => format!("imports `{target}` of F{other}"),
            None => format!("imports `{target}`, which has no floor"),
        };
        found.push(format!("{}:{line}: `{home}` of F{floor} {complaint}", relative.display()));
    }
    found
}

/// `store/sqlite/mod.rs` -> `[store, sqlite]`.
fn module_path(relative: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// The top-level modules that a text names, with their lines: `crate::x`, `crate::{x, y::z}`, and as many `super::` as
/// climb to the root. `depth` is the number of modules that the file itself is nested in.
fn imports(text: &str, depth: usize) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let mut found = Vec::new();
    // One entry for each open brace: whether it is the body of an inline module, which `super` climbs out of.
    let mut braces: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            "{" => braces.push(usize::from(at >= 2 && is(at - 2, "mod"))),
            "}" => drop(braces.pop()),
            "crate" if is(at + 1, "::") => found.extend(roots(&tokens, at + 2)),
            "super" if at == 0 || !is(at - 1, "::") => {
                let mut climbed = 0;
                while is(at, "super") && is(at + 1, "::") {
                    climbed += 1;
                    at += 2;
                }
                if climbed == depth + braces.iter().sum::<usize>() {
                    found.extend(roots(&tokens, at));
                }
                if climbed > 0 {
                    continue; // `at` stands on the name behind the last `super::`, or on a brace that must be counted
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The names directly below the root at `at`: one, or those of a group.
fn roots(tokens: &[Token], at: usize) -> Vec<(usize, String)> {
    let Some(first) = tokens.get(at) else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.line, first.text.clone())];
    }
    let mut names = Vec::new();
    let (mut nesting, mut expect_name) = (0, false);
    for token in &tokens[at..] {
        match token.text.as_str() {
            "{" => {
                nesting += 1;
                expect_name = nesting == 1;
            }
            "}" => {
                nesting -= 1;
                if nesting == 0 {
                    break;
                }
            }
            "," => expect_name = nesting == 1,
            name if expect_name => {
                names.push((token.line, name.to_owned()));
                expect_name = false;
            }
            _ => {}
        }
    }
    names
}

struct Token {
    text: String,
    line: usize,
}

/// Words, `::` and single characters of punctuation; comments, strings and characters left out.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = skip(&chars, at).unwrap_or_else(|| {
            let word = |c: &char| c.is_alphanumeric() || *c == '_';
            let length = match chars[at] {
                c if word(&c) => chars[at..].iter().take_while(|c| word(c)).count(),
                ':' if chars.get(at + 1) == Some(&':') => 2,
                _ => 1,
            };
            tokens.push(Token { text: chars[at..at + length].iter().collect(), line });
            at + length
        });
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    tokens
}

/// Where the blank, comment, string, character or lifetime that begins at `at` ends; `None` where a token begins.
fn skip(chars: &[char], at: usize) -> Option<usize> {
    let get = |at: usize| chars.get(at).copied().unwrap_or('\0');
    let starts = |at: usize, text: &str| text.chars().enumerate().all(|(i, c)| get(at + i) == c);
    let find = |from: usize, end: &str| (from..chars.len()).find(|&i| starts(i, end)).unwrap_or(chars.len());
    match get(at) {
        c if c.is_whitespace() => Some(at + 1),
        '/' if get(at + 1) == '/' => Some(find(at, "\n")),
        '/' if get(at + 1) == '*' => {
            let (mut nesting, mut i) = (1, at + 2);
            while nesting > 0 && i < chars.len() {
                match (get(i), get(i + 1)) {
                    ('/', '*') => (nesting, i) = (nesting + 1, i + 2),
                    ('*', '/') => (nesting, i) = (nesting - 1, i + 2),
                    _ => i += 1,
                }
            }
            Some(i.min(chars.len()))
        }
        'b' if starts(at + 1, "r\"") || starts(at + 1, "r#") => skip(chars, at + 1),
        'r' if get(at + 1) == '"' || starts(at + 1, "#\"") || starts(at + 1, "##") => {
            let hashes = (at + 1..).take_while(|&i| get(i) == '#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            Some((find(at + 2 + hashes, &close) + close.len()).min(chars.len()))
        }
        '"' => {
            let mut i = at + 1;
            while i < chars.len() && get(i) != '"' {
                i += if get(i) == '\\' { 2 } else { 1 };
            }
            Some((i + 1).min(chars.len()))
        }
        '\'' if get(at + 1) == '\\' => Some((find(at + 3, "'") + 1).min(chars.len())),
        '\'' if get(at + 2) == '\'' => Some(at + 3),
        '\'' => Some(at + 1), // a lifetime
        _ => None,
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
