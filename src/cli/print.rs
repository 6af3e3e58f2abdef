//! The way out: standard output for what was asked for, standard error for the rest. What others have written may hold what a terminal
//! obeys, so people are shown pictures of it.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write, stderr, stdout};

use serde_json::value::RawValue;

use super::error::CliError;

/// Prints a line of output for people.
pub(super) fn line(text: impl Display) -> Result<(), CliError> {
    write(&plain(&text.to_string()))
}

/// Prints a line as it was written, for whatever reads it; where that is a terminal, as people see it.
pub(super) fn raw(text: &str) -> Result<(), CliError> {
    if stdout().is_terminal() { line(text) } else { write(text) }
}

/// Prints JSON on one line. The server keeps a workload as it was sent; line breaks in it stand between values, never within.
pub(super) fn json(json: &RawValue) -> Result<(), CliError> {
    write(&json.get().replace(['\n', '\r'], " "))
}

/// Says something beside the output. Where nobody can be told, nobody is.
pub(super) fn aside(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{}", plain(&text.to_string()));
}

/// Unlike `println!` it does not panic when nobody reads it.
fn write(text: &str) -> Result<(), CliError> {
    writeln!(stdout().lock(), "{text}").map_err(CliError::Output)
}

/// Text without anything that a terminal obeys but line breaks and tabs.
fn plain(text: &str) -> String {
    text.chars().map(|char| if matches!(char, '\n' | '\t') { char } else { pictured(char) }).collect()
}

/// The same on one line, for text that must not look like lines of ours.
pub(super) fn on_one_line(text: &str) -> String {
    text.chars().map(pictured).collect()
}

/// What stands for a character that moves, colours or renames something, or that turns text round.
fn pictured(char: char) -> char {
    match char {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(char)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '␡',
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        char => char,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_a_picture() {
        assert_eq!(plain("\x1b]0;mine\x07\ra\u{9b}2J\x7f\u{202e}b\u{2066}"), "␛]0;mine␇␍a�2J␡�b�");
        assert_eq!(plain("one\n\ttwo – Straße 日本"), "one\n\ttwo – Straße 日本");
        assert_eq!(on_one_line("one\n\ttwo"), "one␊␉two");
    }
}
