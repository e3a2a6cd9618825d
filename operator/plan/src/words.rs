//! Why a process ended, as its own output tells.

/// Characters shown as the reason of a crash.
const SHOWN: usize = 300;

/// The last error in the output of a program of ours, with its causes; else the last line.
pub fn last_words(output: &str) -> Option<String> {
    let words = words(output)?;
    Some(words.chars().filter(|character| !character.is_control()).take(SHOWN).collect())
}

fn words(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let Some(at) = lines.iter().rposition(|line| line.starts_with("Error: ")) else {
        return lines.last().map(|line| (*line).to_owned());
    };
    let error = lines[at].trim_start_matches("Error: ").to_owned();
    // As `main` prints an error: causes under their own heading, then perhaps a backtrace.
    let causes = lines[at + 1..].iter().skip_while(|line| **line == "Caused by:");
    let heading = lines.get(at + 1) == Some(&"Caused by:");
    let causes = causes.take_while(|line| heading && **line != "Stack backtrace:");
    Some(causes.fold(error, |told, cause| {
        // Of several each has a number.
        let cause = cause.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(": ");
        // Most errors end with their cause already.
        if told.ends_with(cause) { told } else { format!("{told}: {cause}") }
    }))
}

#[cfg(test)]
mod tests {
    use super::last_words;

    #[test]
    fn the_error_of_a_log_is_found_before_its_backtrace_with_its_causes() {
        let log = "INFO loading\nError: cannot load\n\nCaused by:\n    no such file\n\nStack backtrace:\n   0: main\n";
        assert_eq!(last_words(log).unwrap(), "cannot load: no such file");
        assert_eq!(last_words("Error: bad magic\n\nStack backtrace:\n 0: main\n").unwrap(), "bad magic");
        let twice = "Error: cannot open m: no such file\n\nCaused by:\n    no such file\n";
        assert_eq!(last_words(twice).unwrap(), "cannot open m: no such file");
        let several = "Error: a\n\nCaused by:\n    0: b: c\n    1: c\n";
        assert_eq!(last_words(several).unwrap(), "a: b: c");
        assert_eq!(last_words("one\ntwo\n\n").unwrap(), "two");
        assert_eq!(last_words("\n"), None);
    }
}
