//! Names of fields: two spellings, and what was meant by a third.

/// Whether `given` is the snake_case `name` itself or its camelCase form; without an allocation.
pub(super) fn is_spelling_of(given: &str, name: &str) -> bool {
    // Every field of a body is compared with every name that is asked for, and nearly all pairs differ in what is looked at first.
    let may_be = given.len() < name.len() && given.as_bytes().first() == name.as_bytes().first();
    given == name || (may_be && given.chars().eq(camel_case(name)))
}

fn camel_case(name: &str) -> impl Iterator<Item = char> {
    let mut upper = false;
    name.chars().filter_map(move |c| {
        if c == '_' {
            upper = true;
            return None;
        }
        Some(if std::mem::take(&mut upper) { c.to_ascii_uppercase() } else { c })
    })
}

/// `prefixKey` and `Prefix-Key` as `prefix_key`: spelling apart, what was meant.
pub(super) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars().take(64) {
        let separator = matches!(c, '-' | ' ' | '.' | '_');
        if (separator || (after_lower && c.is_ascii_uppercase())) && !snake.is_empty() {
            snake.push('_');
        }
        if !separator {
            snake.push(c.to_ascii_lowercase());
        }
        after_lower = c.is_ascii_lowercase();
    }
    snake
}

/// The candidate that differs from `text` in at most a third of its letters.
pub(super) fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    candidates
        .map(|candidate| (strsim::osa_distance(&text, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
