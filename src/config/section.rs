//! How a setting is declared, and what can be asked about it.

use super::parse::Parser;

/// One setting: all that help, README and error messages say about it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The title of its section.
    pub section: &'static str,
    /// Its environment variable, `NUMGEN_...`.
    pub env: &'static str,
    /// Its flag, `--...`.
    pub flag: String,
    /// Its key in `numgen.toml`; also its name.
    pub key: String,
    /// Its default as it would be written, `None` if there is none.
    pub default: Option<&'static str>,
    /// What it means that nothing is given, where there is no default.
    pub unset: Option<&'static str>,
    /// What a value looks like, with unit and bounds: "whole number from 1 to 1000".
    pub expects: String,
    /// One line.
    pub help: &'static str,
    /// Whether its value is a secret: never shown, and also accepted from a file (`..._FILE`, `...-file`, `..._file`).
    pub secret: bool,
}

/// What a secret's name ends in when the value stands in a file.
pub(super) const FILE_SUFFIX: &str = "_file";

impl Setting {
    pub(super) fn new<T>(
        section: &'static str,
        env: &'static str,
        fallback: &dyn Describe,
        help: &'static str,
        parser: &Parser<T>,
    ) -> Self {
        let key = key_of(env);
        let (default, unset) = fallback.describe();
        Self {
            section,
            env,
            flag: format!("--{}", key.replace('_', "-")),
            key,
            default,
            unset,
            expects: parser.expects.clone(),
            help: help.trim(),
            secret: parser.secret,
        }
    }

    /// The names under which its value, or for a secret the file with its value, may be given: (key, variable, flag).
    pub fn spellings(&self) -> impl Iterator<Item = (String, String, String)> {
        let plain = (self.key.clone(), self.env.to_owned(), self.flag.clone());
        let from_file = self.secret.then(|| {
            (
                format!("{}{FILE_SUFFIX}", self.key),
                format!("{}_FILE", self.env),
                format!("{}-file", self.flag),
            )
        });
        std::iter::once(plain).chain(from_file)
    }
}

/// `NUMGEN_DATA_DIR` -> `data_dir`; names of others (`OTEL_...`) keep their beginning.
pub(super) fn key_of(env: &str) -> String {
    env.strip_prefix("NUMGEN_").unwrap_or(env).to_ascii_lowercase()
}

/// What a field becomes when nothing is given.
pub(super) trait Fallback<T>: Describe {
    /// The type of the field.
    type Field;

    /// The field from a given value.
    fn given(value: T) -> Self::Field;

    /// The field when nothing is given; `Err` is a mistake in the declaration, which a test finds.
    fn absent(&self, parser: &Parser<T>) -> Result<Self::Field, String>;
}

/// (default, what it means that there is none)
pub(super) trait Describe {
    fn describe(&self) -> (Option<&'static str>, Option<&'static str>);
}

/// There is a default, written as a user would write it.
#[derive(Clone, Copy)]
pub(super) struct Default(pub(super) &'static str);

/// There is none; the text says what happens then.
#[derive(Clone, Copy)]
pub(super) struct Unset(pub(super) &'static str);

impl Describe for Default {
    fn describe(&self) -> (Option<&'static str>, Option<&'static str>) {
        (Some(self.0), None)
    }
}

impl Describe for Unset {
    fn describe(&self) -> (Option<&'static str>, Option<&'static str>) {
        (None, Some(self.0))
    }
}

impl<T> Fallback<T> for Default {
    type Field = T;

    fn given(value: T) -> T {
        value
    }

    fn absent(&self, parser: &Parser<T>) -> Result<T, String> {
        parser.parse(self.0).map_err(|_| format!("the default {:?} is not {}", self.0, parser.expects))
    }
}

impl<T> Fallback<T> for Unset {
    type Field = Option<T>;

    fn given(value: T) -> Option<T> {
        Some(value)
    }

    fn absent(&self, _parser: &Parser<T>) -> Result<Option<T>, String> {
        Ok(None)
    }
}

/// Declares a section: the struct, its list of settings and how it is read. One line per setting:
/// `field: Type = "NUMGEN_NAME", Default("...") or Unset("..."), parser();` under its help.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $title:literal;
        $(
            #[doc = $help:literal]
            $field:ident: $type:ty = $env:literal, $fallback:expr, $parser:expr;
        )+
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $name {
            $(
                #[doc = $help]
                pub $field: $type,
            )+
        }

        impl $name {
            /// Appends the settings of this section.
            pub(super) fn declare(all: &mut Vec<$crate::config::section::Setting>) {
                $(all.push($crate::config::section::Setting::new($title, $env, &$fallback, $help, &$parser));)+
            }

            /// Reads every field; `None` when one of them added to `mistakes`.
            pub(super) fn read(
                values: &$crate::config::values::Values,
                mistakes: &mut Vec<$crate::config::error::Mistake>,
            ) -> Option<Self> {
                $(let $field = values.read($env, &$fallback, &$parser, mistakes);)+
                Some(Self { $($field: $field?,)+ })
            }
        }
    };
}
pub(super) use section;
