//! The name under which this node appears in temporary numbers, segments and logs.

use std::fmt;

use super::{
    parse::Parser,
    section::{Unset, section},
};

/// A node name: 1 to 64 of `A-Z a-z 0-9 . _ -`, so that it can stand inside a temporary number, between `~`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// The longest name, in characters.
    pub const MAX_LEN: usize = 64;

    /// The name, if `text` is one.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        ((1..=Self::MAX_LEN).contains(&text.len()) && text.chars().all(allowed))
            .then(|| Self(text.to_owned()))
    }

    /// A name that begins with the host's and ends in `suffix`: other characters become `-`.
    pub(super) fn of_host(host: &str, suffix: &str) -> Option<Self> {
        let kept = Self::MAX_LEN.saturating_sub(suffix.len() + 1);
        let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' };
        let host: String = host.chars().take(kept).map(allowed).collect();
        Self::parse(&if host.is_empty() { suffix.to_owned() } else { format!("{host}-{suffix}") })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

section! {
    /// What this node is called.
    Node, "Node";
    /// Name of this node, different for each.
    name: Option<NodeName> = "NUMGEN_NODE_NAME", Unset("host name with a random suffix, kept in the data directory"), node_name();
}

fn node_name() -> Parser<NodeName> {
    Parser::new("name of 1 to 64 characters A-Z a-z 0-9 . _ -", |text| NodeName::parse(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::NodeName;

    #[test]
    fn host_names_become_node_names() {
        for (host, name) in [
            ("web1", "web1-ab12"),
            ("büro~1", "b-ro-1-ab12"),
            ("", "ab12"),
            (&"x".repeat(300), &format!("{}-ab12", "x".repeat(59))),
        ] {
            assert_eq!(NodeName::of_host(host, "ab12").unwrap().as_str(), name);
        }
        for wrong in ["", "a~b", "a b", &"x".repeat(65)] {
            assert_eq!(NodeName::parse(wrong), None, "{wrong}");
        }
    }
}
