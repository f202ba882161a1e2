//! What a token may do.

use std::fmt;

use crate::language::{Language, Localized};

/// One permission, as it stands in the `scope` claim (RFC 8693, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Read rules, preview formats, decode numbers.
    PrefixesRead,
    /// Register, change and delete rules.
    PrefixesWrite,
    /// Issue numbers; confirm and void strict ones.
    NumbersIssue,
    /// Read counters, move them up, give up what nodes hold.
    SequencesWrite,
    /// Read the strict ledger and its certificates.
    LedgerRead,
    /// List temporary numbers.
    ConflictsRead,
    /// Resolve temporary numbers.
    ConflictsWrite,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 8] = [
        Self::PrefixesRead,
        Self::PrefixesWrite,
        Self::NumbersIssue,
        Self::SequencesWrite,
        Self::LedgerRead,
        Self::ConflictsRead,
        Self::ConflictsWrite,
        Self::Admin,
    ];

    /// The word for it in a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PrefixesRead => "prefixes:read",
            Self::PrefixesWrite => "prefixes:write",
            Self::NumbersIssue => "numbers:issue",
            Self::SequencesWrite => "sequences:write",
            Self::LedgerRead => "ledger:read",
            Self::ConflictsRead => "conflicts:read",
            Self::ConflictsWrite => "conflicts:write",
            Self::Admin => "admin",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes in one byte.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Scopes(u8);

/// A word that is no scope; the message lists those that are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is not a scope; there are {}", Scopes::all())]
pub struct UnknownScope {
    word: String,
}

impl Scopes {
    /// No permission at all.
    pub const NONE: Self = Self(0);

    /// Every scope, `admin` included.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Reads the `scope` claim of a token, whose words only U+0020 separates (RFC 6749, section 3.3). Words of other services are
    /// passed over: they grant nothing here.
    pub fn from_claim(claim: &str) -> Self {
        claim.split(' ').filter_map(Scope::from_word).collect()
    }

    /// Reads what a person typed, where an unknown word is a mistake.
    ///
    /// # Errors
    ///
    /// `UnknownScope` with the first word that is none.
    pub fn parse(text: &str) -> Result<Self, UnknownScope> {
        let known = |word: &str| Scope::from_word(word).ok_or_else(|| UnknownScope { word: word.to_owned() });
        text.split_ascii_whitespace().map(known).collect()
    }

    /// Whether `scope` is granted, by itself or through `admin`.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// As the claim writes it: separated by spaces.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

impl Localized for UnknownScope {
    fn localized(&self, language: Language) -> String {
        match language {
            Language::English => self.to_string(),
            Language::Chinese => format!("{:?} 不是有效的权限范围，可用的有 {}", self.word, Scopes::all()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_implies_every_scope_and_others_only_themselves() {
        for scope in Scope::ALL {
            assert!(Scopes::from_claim("admin").contains(scope));
            assert!(!Scopes::NONE.contains(scope));
            let alone = Scopes::from_claim(scope.as_str());
            for other in Scope::ALL {
                assert_eq!(alone.contains(other), scope == other || scope == Scope::Admin, "{scope} {other}");
            }
        }
    }

    #[test]
    fn a_claim_may_hold_words_of_other_services() {
        let scopes = Scopes::from_claim(" openid  numbers:issue NUMBERS:ISSUE ledger:read:all ");
        assert_eq!(scopes, [Scope::NumbersIssue].into_iter().collect());
        assert_eq!(scopes.to_string(), "numbers:issue");
    }

    #[test]
    fn only_spaces_separate_the_words_of_a_claim() {
        for claim in ["prefixes:read\tadmin", "admin\n", "numbers:issue\radmin", "\u{c}admin", "\u{a0}admin"]
        {
            assert_eq!(Scopes::from_claim(claim), Scopes::NONE, "{claim:?}");
        }
    }

    #[test]
    fn a_person_is_told_which_word_is_wrong() {
        let error = Scopes::parse("numbers:issue number:issue").unwrap_err();
        assert!(error.to_string().starts_with("\"number:issue\" is not a scope; there are prefixes:read "));
        assert!(error.localized(Language::Chinese).contains("number:issue"));
        assert_eq!(Scopes::parse(&Scopes::all().to_string()), Ok(Scopes::all()));
    }
}
