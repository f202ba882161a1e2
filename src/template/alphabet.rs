//! The characters of fixed text.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// Whether fixed text can have it.
pub(super) fn is_literal(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_alphanumeric() || " -_./:#+@()".contains(character);
    }
    let letter_mark_or_digit = match character.general_category_group() {
        GeneralCategoryGroup::Letter | GeneralCategoryGroup::Mark => true,
        GeneralCategoryGroup::Number => character.general_category() == GeneralCategory::DecimalNumber,
        GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol
        | GeneralCategoryGroup::Separator
        | GeneralCategoryGroup::Other => false,
    };
    // Bidirectional controls are format characters (`Other`), and default-ignorable too.
    letter_mark_or_digit && !is_default_ignorable(character)
}

/// Whether it combines with the character before it.
pub(super) fn is_mark(character: char) -> bool {
    !character.is_ascii() && character.general_category_group() == GeneralCategoryGroup::Mark
}

/// The Unicode property `Default_Ignorable_Code_Point` (DerivedCoreProperties.txt): nothing is drawn for these.
pub(super) const fn is_default_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFF8}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

/// The character itself with its number, or its number alone where a reader would not see it.
pub(super) fn named(character: char) -> String {
    let number = format!("U+{:04X}", u32::from(character));
    let visible = match character.general_category_group() {
        GeneralCategoryGroup::Letter
        | GeneralCategoryGroup::Number
        | GeneralCategoryGroup::Punctuation
        | GeneralCategoryGroup::Symbol => !is_default_ignorable(character),
        GeneralCategoryGroup::Mark | GeneralCategoryGroup::Separator | GeneralCategoryGroup::Other => false,
    };
    match character {
        ' '..='~' => format!("{character:?}"),
        _ if visible => format!("'{character}' ({number})"),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_go_by_their_number() {
        for (character, expected) in [
            ('<', "'<'"),
            ('\'', "'\\''"),
            ('é', "'é' (U+00E9)"),
            ('€', "'€' (U+20AC)"),
            ('\0', "U+0000"),
            ('\n', "U+000A"),
            ('\u{301}', "U+0301"),
            ('\u{200B}', "U+200B"),
            ('\u{202E}', "U+202E"),
            ('\u{3164}', "U+3164"),
            ('\u{3000}', "U+3000"),
            ('\u{E0041}', "U+E0041"),
        ] {
            assert_eq!(named(character), expected);
        }
    }

    #[test]
    fn letters_marks_and_digits_of_any_script() {
        for character in "aZ0 -_./:#+@()éЖ票한٣\u{93F}".chars() {
            assert!(is_literal(character), "{}", named(character));
        }
        let refused = "'\"<>;\\~{}$%&*=?!|`^,\0\n\u{7F}\u{85}€Ⅷ½①。　\u{AD}\u{200D}\u{2066}\u{202E}\u{FEFF}\u{3164}\u{FFA0}";
        for character in refused.chars().chain("\u{E000}\u{FE0F}\u{E0100}\u{10FFFF}\u{2028}".chars()) {
            assert!(!is_literal(character), "{}", named(character));
        }
    }
}
