//! "Did you mean": the known name that is nearest to an unknown one.

/// The candidate with the fewest edits (optimal string alignment) to `name`, compared without case and with `-` as `_`;
/// one that goes on where `name` stops (`jwt`, `jwt_issuer`) comes before all others. The first of equals.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let beginning = format!("{name}_");
    candidates.min_by_key(|candidate| {
        let candidate = plain(candidate);
        (!candidate.starts_with(&beginning), strsim::osa_distance(&name, &candidate))
    })
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_the_nearest() {
        let known = ["listen", "data_dir", "jwt_secret"];
        for (typo, meant) in [
            ("lisen", "listen"),
            ("Data-Dir", "data_dir"),
            ("jwt_sercet", "jwt_secret"),
            ("jwt", "jwt_secret"),
        ] {
            assert_eq!(nearest(typo, known.into_iter()), Some(meant));
        }
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}
