//! The settings as flags, straight from `config::settings()`: declared there, and nowhere else.

use std::{marker::PhantomData, path::PathBuf, sync::LazyLock};

use clap::{Arg, ArgMatches, Args, FromArgMatches, value_parser};

use crate::{
    config::{Flags, Setting, settings},
    secret::Secret,
};

/// Which settings a command takes.
pub(super) trait Selection {
    /// Whether it takes this one.
    fn takes(setting: &Setting) -> bool;
}

/// All that the service reads.
#[derive(Debug)]
pub(super) struct ForService;

/// What a token is signed with.
#[derive(Debug)]
pub(super) struct ForToken;

/// Where the service is, and what a token for it is signed with.
#[derive(Debug)]
pub(super) struct ForRemote;

impl Selection for ForService {
    fn takes(setting: &Setting) -> bool {
        setting.section != "Commands"
    }
}

impl Selection for ForToken {
    fn takes(setting: &Setting) -> bool {
        setting.key == "data_dir" || setting.section == "Tokens"
    }
}

impl Selection for ForRemote {
    fn takes(setting: &Setting) -> bool {
        setting.section == "Commands" || ForToken::takes(setting)
    }
}

/// Settings that a short `-h` shows; `--help` shows them all.
const SHORT_HELP: [&str; 4] = ["listen", "data_dir", "url", "token"];

/// The settings of a selection that were given as flags.
#[derive(Debug)]
pub(super) struct SettingFlags<S> {
    pub(super) flags: Flags,
    selection: PhantomData<S>,
}

/// One way to give a setting on the command line.
struct Spelling {
    /// The flag without its dashes.
    name: String,
    /// What help shows for its value: the last word of the setting's name, `MS`, `URL`, `DIR`.
    value_name: String,
    setting: &'static Setting,
    /// The flag takes the name of a file that holds the value.
    from_file: bool,
}

/// Every spelling; made once, since clap wants names that live as long as the program.
fn spellings() -> &'static [Spelling] {
    static SPELLINGS: LazyLock<Vec<Spelling>> = LazyLock::new(|| {
        let spelled = |setting: &'static Setting| {
            setting.spellings().map(move |(key, _, flag)| Spelling {
                name: flag.trim_start_matches('-').to_owned(),
                value_name: key.rsplit('_').next().unwrap_or_default().to_ascii_uppercase(),
                setting,
                from_file: key != setting.key,
            })
        };
        settings().flat_map(spelled).collect()
    });
    &SPELLINGS
}

fn selected<S: Selection>() -> impl Iterator<Item = &'static Spelling> {
    spellings().iter().filter(|spelling| S::takes(spelling.setting))
}

impl<S: Selection> Args for SettingFlags<S> {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file [default: numgen.toml, if there is one]");
        selected::<S>().fold(command.arg(config), |command, spelling| command.arg(spelling.argument()))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl Spelling {
    fn argument(&'static self) -> Arg {
        let setting = self.setting;
        Arg::new(self.name.as_str())
            .long(self.name.as_str())
            .value_name(self.value_name.as_str())
            .help(self.help())
            .help_heading(setting.section)
            .hide_short_help(self.from_file || !SHORT_HELP.contains(&setting.key.as_str()))
            // `--worker-id -1` is a wrong value, which the configuration explains better than "unexpected argument".
            .allow_negative_numbers(true)
    }

    fn help(&self) -> String {
        let setting = self.setting;
        if self.from_file {
            return format!("File that holds the value of {} [env: {}_FILE]", setting.flag, setting.env);
        }
        let absent = match (setting.default, setting.unset) {
            (Some(""), _) | (None, None) => String::new(),
            (Some(default), _) => format!(" [default: {default}]"),
            (None, Some(unset)) => format!(" [without it: {unset}]"),
        };
        format!("{} [env: {}]{absent}", setting.help.trim_end_matches('.'), setting.env)
    }
}

impl<S: Selection> FromArgMatches for SettingFlags<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |spelling: &Spelling| {
            let value = matches.get_one::<String>(&spelling.name)?;
            Some((format!("--{}", spelling.name), Secret::new(value.clone())))
        };
        let given = selected::<S>().filter_map(given).collect();
        let config = matches.get_one::<PathBuf>("config").cloned();
        Ok(Self { flags: Flags { config, given }, selection: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
