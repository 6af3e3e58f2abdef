//! JSON Pointers (RFC 6901): places in a JSON text.

/// A name as a part of a pointer, which the RFC calls a reference token.
pub(crate) fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The name that a part of a pointer stands for.
pub(super) fn name(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Whether this is a pointer.
pub(crate) fn is_pointer(text: &str) -> bool {
    let mut escapes = text.split('~').skip(1);
    (text.is_empty() || text.starts_with('/')) && escapes.all(|after| after.starts_with(['0', '1']))
}

/// Whether what one pointer names is part of what the other names, or the same.
pub(super) fn is_in(pointer: &str, whole: &str) -> bool {
    pointer.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_everything_is_a_pointer() {
        assert!(["a", "/~", "/a~2", "#/a"].iter().all(|text| !is_pointer(text)));
    }
}
