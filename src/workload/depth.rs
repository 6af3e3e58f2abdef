//! How deeply JSON is nested. What is not read where it arrives, but kept as it is and handed on, has to be bounded there all the same:
//! whoever reads it later may do so with a stack of its own.

use memchr::memchr2;

use super::Invalid;

/// Arrays and objects within each other, at most. Far more than people write, and less than the JSON readers of this world take.
const MAX_DEPTH: usize = 100;

/// Refuses what is nested too deeply. The text need not be JSON; then it is refused elsewhere.
///
/// # Errors
/// It is.
pub fn check(text: &[u8]) -> Result<(), Invalid> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Invalid::new("", format!("is nested more than {MAX_DEPTH} deep")));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => at = end_of_string(text, at),
            _ => {}
        }
    }
    Ok(())
}

/// The place behind the string that begins at `at`.
fn end_of_string(text: &[u8], mut at: usize) -> usize {
    while let Some(found) = text.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if text[at - 1] == b'"' {
            return at;
        }
        // Whatever is escaped, it does not end the string.
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", true)]
    #[case("{\"a\": [[1], {\"b\": []}]}", true)]
    #[case(&"[".repeat(MAX_DEPTH), true)]
    #[case(&"[".repeat(MAX_DEPTH + 1), false)]
    #[case(&"{\"a\":[".repeat(MAX_DEPTH), false)]
    #[case(&"[],".repeat(1000), true)]
    #[case(&format!("\"{}\"", "[".repeat(1000)), true)]
    #[case(&format!("\"\\\"{}\"", "[".repeat(1000)), true)]
    #[case(&format!("\"\\\\\"{}", "[".repeat(1000)), false)]
    #[case(&format!("\"{}", "[".repeat(1000)), true)]
    #[case("\"\\", true)]
    #[case("]]]]", true)]
    fn depth_is_counted_outside_of_strings(#[case] text: &str, #[case] good: bool) {
        assert_eq!(check(text.as_bytes()).is_ok(), good);
    }
}
