//! The languages in which a caller may read what went wrong.

use http::{HeaderMap, header};

/// A language that every user-facing message exists in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Language {
    /// English, unless Chinese is preferred.
    #[default]
    English,
    /// Chinese, simplified.
    Chinese,
}

/// A message for people. `Display` of an error is the English one, and what logs show.
pub trait Localized {
    /// The message in `language`: one sentence, no final full stop, never a secret.
    fn localized(&self, language: Language) -> String;
}

impl Language {
    /// The language that the sender of `headers` reads.
    pub fn of(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::ACCEPT_LANGUAGE);
        Self::negotiate(lines.iter().filter_map(|line| line.to_str().ok()))
    }

    /// Picks by the lines of an `Accept-Language` field (RFC 9110, section 12.5.4), which are one list (section 5.3): Chinese if
    /// a `zh` range has a higher weight than every `en` range and `*`, or the same weight and stands before them.
    fn negotiate<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut best: Option<(f32, Self)> = None;
        for item in lines.into_iter().flat_map(|line| line.split(',')) {
            let (range, parameters) = item.split_once(';').unwrap_or((item, ""));
            let primary = range.trim().split('-').next().unwrap_or_default();
            let language = if primary.eq_ignore_ascii_case("zh") {
                Self::Chinese
            } else if primary.eq_ignore_ascii_case("en") || primary == "*" {
                Self::English
            } else {
                continue;
            };
            let weight = parameters.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('='));
            let weight = weight.map_or(1.0, |q| {
                q.trim().parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0)
            });
            if weight > 0.0 && best.is_none_or(|(heaviest, _)| weight > heaviest) {
                best = Some((weight, language));
            }
        }
        best.map_or(Self::English, |(_, language)| language)
    }

    /// The tag for `Content-Language`.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Language::{self, Chinese, English};

    #[test]
    fn chinese_only_where_it_is_preferred() {
        for (header, expected) in [
            ("", English),
            ("zh", Chinese),
            ("zh-CN,zh;q=0.9,en;q=0.8", Chinese),
            ("en-GB,zh;q=0.9", English),
            ("de, zh-TW;q=0.5, en;q=0.4", Chinese),
            ("zh;q=0, en;q=0.1", English),
            ("zh;q=0.3, *;q=0.5", English),
            ("fr", English),
            ("zh;q=nonsense", English),
            ("ZH-hans", Chinese),
            ("en;q=0.1,zh;Q=0", English),
            ("zh;Q=0.2,en;q=0.1", Chinese),
        ] {
            assert_eq!(Language::negotiate([header]), expected, "{header}");
        }
    }
}
