//! What a start says, and what the very first one does for a newcomer.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use super::{App, BuildError};
use crate::{
    auth::{self, Grant, Scopes},
    config::Profile,
    json::Object,
    prefix_key::PrefixKey,
    rule::RuleDraft,
    store::Author,
};

const DEMO_KEY: &str = "DEMO";
const DEMO_RULE: &[u8] = br#"{"format":"DEMO-{SEQ:4}"}"#;
const DEMO_TTL: Duration = Duration::from_secs(3600);

impl App {
    /// Prints the profile and the addresses; to a person at a terminal, on the first start, also a command to paste.
    pub(super) async fn welcome(&self) -> Result<(), BuildError> {
        let scheme = if self.base.config.listen.tls().is_some() { "https" } else { "http" };
        let api = self.address().map(|address| format!("{scheme}://{address}")).unwrap_or_default();
        let admin = self.admin_address().map(|address| format!("http://{address}")).unwrap_or_default();
        let profile = self.base.config.profile();
        let mut lines = format!(
            "numgen {} - profile {profile} ({}{})\n  API    {api}  (documentation: {api}/docs)\n  admin  {admin}  (/livez /readyz /metrics)\n",
            env!("CARGO_PKG_VERSION"),
            match profile {
                Profile::Embedded => "SQLite in ",
                Profile::Redis => "Redis; local files in ",
                Profile::Postgres => "PostgreSQL; local files in ",
                Profile::Full => "Redis and PostgreSQL; local files in ",
            },
            self.base.data_dir.path().display(),
        );
        if std::io::stdout().is_terminal()
            && self.base.data_dir.is_new()
            && let Some(token) = self.demonstrate().await?
        {
            lines.push_str(&format!(
                "\nIssue your first number:\n\n  curl -H \"Authorization: Bearer {token}\" {api}/numbers/{DEMO_KEY}\n\n"
            ));
        }
        // Nobody may be reading: that is no reason not to serve.
        let mut stdout = std::io::stdout().lock();
        let _unread = stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush());
        tracing::info!(%profile, node = self.base.node.as_str(), api, admin, "serving");
        Ok(())
    }

    /// Registers the demonstration rule; answers a token for it, if there is a secret to sign with.
    async fn demonstrate(&self) -> Result<Option<String>, BuildError> {
        let Some(secret) = &self.secret else { return Ok(None) };
        let demo = |error: Box<dyn std::error::Error + Send + Sync>| BuildError::Demo(error);
        let key = PrefixKey::parse(DEMO_KEY).map_err(|error| demo(error.into()))?;
        let mut object = Object::parse(DEMO_RULE).map_err(|error| demo(error.into()))?;
        let draft = RuleDraft::from_json(&mut object);
        object.finish().map_err(|error| demo(error.into()))?;
        let registered = self.registry.register(&key, &draft, &|_| true, &Author::program()).await;
        registered.map_err(|error| demo(error.into()))?;
        let grant = Grant {
            subject: "demo",
            scopes: Scopes::from_claim("numbers:issue prefixes:read"),
            ttl: DEMO_TTL,
            prefixes: None,
            issuer: self.base.config.jwt.issuer.as_deref(),
            audience: self.base.config.jwt.audience.as_deref(),
        };
        let token = auth::mint(secret, &grant, &*self.base.clock).map_err(|error| demo(error.into()))?;
        // The one place that shows a token: to the person who started the service, in its own terminal.
        Ok(Some(token.reveal().clone()))
    }
}
