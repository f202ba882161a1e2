//! The configuration, read again while the service runs.

use super::{
    Config, Flags, Setting, Source, Values, Warning,
    error::{ConfigError, Origin},
    settings,
};

/// Settings that take effect when they are read again; all others need a restart. A change of a certificate or a key is one of the
/// files' content, or of their names.
const RELOADED: [&str; 9] = [
    "NUMGEN_JWT_SECRET",
    "NUMGEN_JWT_PUBLIC_KEY_FILE",
    "NUMGEN_TLS_CERT_FILE",
    "NUMGEN_TLS_KEY_FILE",
    "NUMGEN_RATE_LIMIT_NUMBERS",
    "NUMGEN_RATE_LIMIT_ISSUED",
    "NUMGEN_RATE_LIMIT_MANAGEMENT",
    "NUMGEN_RATE_LIMIT_ADDRESS",
    "NUMGEN_LOG",
];

impl Setting {
    /// Whether a change of it takes effect without a restart.
    pub fn is_reloaded(&self) -> bool {
        RELOADED.contains(&self.env)
    }
}

/// Reads the configuration again, from where it was read at the start.
#[derive(Clone, Debug)]
pub struct Reloader<S> {
    flags: Flags,
    source: S,
    at_start: Values,
    said: Vec<Warning>,
}

/// What a new reading came to.
#[derive(Clone, Debug)]
pub struct Reread {
    /// All of it; only what [`Setting::is_reloaded`] may be put in force.
    pub config: Config,
    /// Settings that are other than at the start and need a restart: each with where its value comes from now.
    pub needs_restart: Vec<(&'static Setting, Origin)>,
    /// What was odd and has not been said yet.
    pub warnings: Vec<Warning>,
}

impl<S: Source> Reloader<S> {
    /// The first reading.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load(flags: &Flags, source: S) -> Result<(Self, Config, Vec<Warning>), ConfigError> {
        let at_start = Values::gather(flags, &source)?;
        let config = Config::read(&at_start)?;
        let said = config.warnings(&at_start);
        let reloader = Self { flags: flags.clone(), source, at_start, said: said.clone() };
        Ok((reloader, config, said))
    }

    /// The same in other surroundings.
    #[cfg(test)]
    pub(super) fn now_in(self, source: S) -> Self {
        Self { source, ..self }
    }

    /// Another reading. It changes nothing.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn reread(&mut self) -> Result<Reread, ConfigError> {
        let values = Values::gather(&self.flags, &self.source)?;
        let config = Config::read(&values)?;
        let mut warnings = config.warnings(&values);
        warnings.retain(|warning| !self.said.contains(warning));
        self.said.extend(warnings.iter().cloned());
        let differs = |setting: &&Setting| values.differ_in(&self.at_start, setting);
        let needs_restart = settings().filter(|setting| !setting.is_reloaded()).filter(differs);
        let needs_restart = needs_restart.map(|setting| (setting, values.origin(setting.env))).collect();
        Ok(Reread { config, needs_restart, warnings })
    }
}
