//! What was given, by flags, environment and file, before anybody asks what it means.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use super::{
    error::{ConfigError, Mistake, Origin, Warning},
    names::nearest,
    parse::Parser,
    section::{FILE_SUFFIX, Fallback, Setting, key_of},
    settings,
    source::Source,
    worker::{ORDINAL, ordinal_of},
};
use crate::{scrub::scrub, secret::Secret};

/// The file that is read when no other is named.
const DEFAULT_FILE: &str = "numgen.toml";

/// How much of a wrong value an error repeats, in characters.
const SHOWN_CHARACTERS: usize = 100;

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Value by flag, with its dashes; a later one replaces an earlier one.
    pub given: Vec<(String, Secret<String>)>,
}

/// One value and where it came from.
#[derive(Clone, Debug)]
struct Given {
    text: Secret<String>,
    origin: Origin,
}

/// All values that were given, the strongest of each setting. `Debug` shows none of them.
#[derive(Clone, Debug, Default)]
pub struct Values {
    given: HashMap<String, Given>,
    warnings: Vec<Warning>,
}

/// The values of one level: flags, environment or file.
type Level = BTreeMap<String, Given>;

impl Values {
    /// Collects what was given; flags win, then the environment, then the file.
    ///
    /// # Errors
    ///
    /// Unknown keys of the file, unreadable files, secrets that are given twice: all of them at once.
    pub fn gather(flags: &Flags, source: &impl Source) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let mut values = Self::default();
        let levels = [
            file_level(flags.config.as_deref(), source, &mut mistakes),
            values.variable_level(source, &mut mistakes),
            flag_level(flags),
        ];
        for level in levels {
            for setting in settings() {
                if let Some(given) = strongest(setting, &level, source, &mut mistakes) {
                    let given = numbered(setting, given, source, &mut mistakes);
                    values.given.insert(setting.key.clone(), given);
                }
            }
        }
        if mistakes.is_empty() { Ok(values) } else { Err(ConfigError { mistakes }) }
    }

    /// What was odd; to be logged.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Where the value of a setting came from.
    pub fn origin(&self, variable: &str) -> Origin {
        self.given
            .get(&key_of(variable))
            .map_or_else(|| Origin::Default { variable: variable.to_owned() }, |given| given.origin.clone())
    }

    /// Whether a setting has another value than in `other`; one that is not given has its default.
    pub(super) fn differ_in(&self, other: &Self, setting: &Setting) -> bool {
        let text = |values: &Self| {
            let given = values.given.get(&setting.key).map(|given| given.text.clone());
            given.or_else(|| setting.default.map(|default| Secret::new(default.to_owned())))
        };
        text(self) != text(other)
    }

    /// Whether anything was given for a setting.
    pub fn is_given(&self, variable: &str) -> bool {
        self.given.contains_key(&key_of(variable))
    }

    /// The field of a setting; `None` after adding to `mistakes`.
    pub(super) fn read<T, F: Fallback<T>>(
        &self,
        variable: &str,
        fallback: &F,
        parser: &Parser<T>,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<F::Field> {
        let Some(given) = self.given.get(&key_of(variable)) else {
            return match fallback.absent(parser) {
                Ok(field) => Some(field),
                Err(problem) => {
                    mistakes.push(Mistake::Unfitting { origin: self.origin(variable), problem });
                    None
                }
            };
        };
        let text = given.text.reveal();
        match parser.parse(text) {
            Ok(value) => Some(F::given(value)),
            Err(fault) => {
                let shown = if parser.secret { "the value".to_owned() } else { show(text) };
                let (origin, expects) = (given.origin.clone(), parser.expects.clone());
                mistakes.push(Mistake::Invalid { origin, shown, expects, detail: fault.0 });
                None
            }
        }
    }

    fn variable_level(&mut self, source: &impl Source, mistakes: &mut Vec<Mistake>) -> Level {
        let known: HashMap<String, (String, bool)> = settings()
            .flat_map(|setting| setting.spellings().map(|(key, env, _)| (env, (key, setting.secret))))
            .collect();
        let mut level = Level::new();
        for (name, value) in source.variables() {
            let Ok(name) = name.into_string() else { continue };
            let Some((key, secret)) = known.get(&name) else {
                if name.starts_with("NUMGEN_") {
                    let nearest = nearest_of(&name, known.keys().map(String::as_str));
                    self.warnings.push(Warning::UnknownVariable { name, nearest });
                }
                continue;
            };
            let origin = Origin::Variable(name);
            match value.into_string() {
                // An empty variable is how a compose file passes on one that is not set. For a secret that would
                // silently choose another source of keys.
                Ok(text) if text.is_empty() && !secret => {}
                Ok(text) => {
                    level.insert(key.clone(), Given { text: Secret::new(text), origin });
                }
                Err(_not_utf8) => mistakes.push(Mistake::NotText { origin }),
            }
        }
        level
    }
}

/// A worker ID that is the ordinal of the host, as a number.
fn numbered(setting: &Setting, given: Given, source: &impl Source, mistakes: &mut Vec<Mistake>) -> Given {
    if setting.env != "NUMGEN_WORKER_ID" || given.text.reveal().trim() != ORDINAL {
        return given;
    }
    let host = source.host_name().unwrap_or_default();
    let Some(ordinal) = ordinal_of(&host) else {
        let problem = format!("the host name {host:?} does not end in a number, as in numgen-0");
        mistakes.push(Mistake::Unfitting { origin: given.origin.clone(), problem });
        return given;
    };
    Given { text: Secret::new(ordinal.to_string()), ..given }
}

fn nearest_of<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // Sorted, so that equally near names always answer the same.
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    nearest(name, known.into_iter()).unwrap_or_default().to_owned()
}

/// A value for an error message: in quotes, without credentials, and only then cut, since a cut could take away the `@`
/// by which credentials are known.
fn show(text: &str) -> String {
    let clean = scrub(text);
    let mut cut: String = clean.chars().take(SHOWN_CHARACTERS).collect();
    if cut.len() < clean.len() {
        cut.push_str("...");
    }
    format!("{cut:?}")
}

fn flag_level(flags: &Flags) -> Level {
    flags
        .given
        .iter()
        .map(|(flag, text)| {
            let key = flag.trim_start_matches('-').replace('-', "_");
            (key, Given { text: text.clone(), origin: Origin::Flag(flag.clone()) })
        })
        .collect()
}

fn file_level(named: Option<&Path>, source: &impl Source, mistakes: &mut Vec<Mistake>) -> Level {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let content = match source.read_file(path) {
        Ok(content) => content,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Level::new(),
        Err(source) => {
            let named_by = match named {
                Some(_) => Origin::Flag("--config".to_owned()),
                None => Origin::Default { variable: "--config".to_owned() },
            };
            mistakes.push(Mistake::Unreadable { named_by, file: path.to_owned(), source });
            return Level::new();
        }
    };
    let file = path.to_owned();
    let text = match String::from_utf8(content) {
        Ok(text) => text,
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let (line, column) = position(good);
            mistakes.push(Mistake::Syntax { file, line, column, problem: "not UTF-8 text".to_owned() });
            return Level::new();
        }
    };
    match text.parse::<toml::Table>() {
        Ok(table) => table_level(table, &file, mistakes),
        Err(error) => {
            // The parser's own Display repeats the line, which may hold a secret.
            let start = error.span().map_or(0, |span| span.start.min(text.len()));
            let (line, column) = position(&text.as_bytes()[..start]);
            mistakes.push(Mistake::Syntax { file, line, column, problem: error.message().to_owned() });
            Level::new()
        }
    }
}

/// Line and column, from 1, of what comes behind `before`.
fn position(before: &[u8]) -> (usize, usize) {
    let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&b| b != b'\n').count() + 1;
    (line, column)
}

fn table_level(table: toml::Table, file: &Path, mistakes: &mut Vec<Mistake>) -> Level {
    let known: Vec<String> = settings().flat_map(Setting::spellings).map(|(key, _, _)| key).collect();
    let mut level = Level::new();
    for (key, value) in table {
        if !known.contains(&key) {
            let nearest = nearest_of(&key, known.iter().map(String::as_str));
            mistakes.push(Mistake::UnknownKey { key, file: file.to_owned(), nearest });
            continue;
        }
        match as_text(&value) {
            Some(text) => {
                let origin = Origin::Key { key: key.clone(), file: file.to_owned() };
                level.insert(key, Given { text: Secret::new(text), origin });
            }
            None => {
                let found = value.type_str();
                mistakes.push(Mistake::WrongType { key, file: file.to_owned(), found });
            }
        }
    }
    level
}

/// The text that a variable would hold for this value.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Datetime(moment) => Some(moment.to_string()),
        toml::Value::Array(items) => {
            let texts: Option<Vec<_>> = items.iter().map(as_text).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Table(_) => None,
    }
}

/// The value of `setting` on this level, read from its file if that is what was given.
fn strongest(
    setting: &Setting,
    level: &Level,
    source: &impl Source,
    mistakes: &mut Vec<Mistake>,
) -> Option<Given> {
    let direct = level.get(&setting.key);
    let named = setting.secret.then(|| level.get(&format!("{}{FILE_SUFFIX}", setting.key))).flatten();
    let given = match (direct, named) {
        (Some(direct), Some(named)) => {
            let (direct, file) = (direct.origin.clone(), named.origin.clone());
            mistakes.push(Mistake::GivenTwice { direct, file });
            return None;
        }
        (Some(direct), None) => direct.clone(),
        (None, Some(named)) => from_file(named, source, mistakes)?,
        (None, None) => return None,
    };
    if setting.secret && given.text.reveal().is_empty() {
        mistakes.push(Mistake::EmptySecret { origin: given.origin });
        return None;
    }
    Some(given)
}

fn from_file(named: &Given, source: &impl Source, mistakes: &mut Vec<Mistake>) -> Option<Given> {
    let origin = named.origin.clone();
    let file = PathBuf::from(named.text.reveal());
    match source.read_file(&file).map(String::from_utf8) {
        Ok(Ok(text)) => {
            // Editors and `echo` end a file with a newline that is not part of the secret.
            let text = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text);
            Some(Given { text: Secret::new(text.to_owned()), origin })
        }
        Ok(Err(_not_utf8)) => {
            mistakes.push(Mistake::NotText { origin });
            None
        }
        Err(source) => {
            mistakes.push(Mistake::Unreadable { named_by: origin, file, source });
            None
        }
    }
}
