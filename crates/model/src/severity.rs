//! The words people use for how bad something is, as OpenTelemetry's severity numbers.

/// The number of a word such as `warn`, in any case; `None` for words nobody uses for it.
///
/// ```
/// use tidegate_model::severity_of;
///
/// assert_eq!(severity_of("WARNING"), Some(13));
/// assert_eq!(severity_of("loud"), None);
/// ```
pub fn severity_of(word: &str) -> Option<u8> {
    // The longest word has 13 letters; what is longer is none, and is not looked at.
    const LETTERS_MAX: usize = 13;
    let mut lower = [0; LETTERS_MAX];
    let letters = lower.get_mut(..word.len())?;
    letters.copy_from_slice(word.as_bytes());
    letters.make_ascii_lowercase();
    let number = match &*letters {
        b"trace" => 1,
        b"debug" => 5,
        b"info" | b"information" | b"informational" => 9,
        b"notice" => 10,
        b"warn" | b"warning" => 13,
        b"error" | b"err" => 17,
        b"fatal" | b"critical" | b"crit" | b"alert" | b"emergency" | b"emerg" | b"panic" => 21,
        _ => return None,
    };
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_its_number_in_any_case() {
        for (number, words) in [
            (1, "trace Trace TRACE"),
            (5, "debug DEBUG"),
            (9, "info INFO Information informational"),
            (10, "notice"),
            (13, "warn Warn WARNING"),
            (17, "err ERROR Error"),
            (21, "fatal critical CRIT alert emergency EMERG panic"),
        ] {
            for word in words.split(' ') {
                assert_eq!(severity_of(word), Some(number), "{word}");
            }
        }
    }

    #[test]
    fn other_words_have_none() {
        for word in ["", " warn", "warn ", "warnings", "w", "informationally", "wärn", "13"] {
            assert_eq!(severity_of(word), None, "{word:?}");
        }
    }
}
