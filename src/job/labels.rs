use std::collections::BTreeMap;

/// What is said of a node, or what a job requires of one: values by name.
pub type Labels = BTreeMap<String, String>;

/// The most that a job may require.
pub const MAX_REQUIRED: usize = 4;
/// The longest name of a label, and the longest value.
const MAX_NAME: usize = 48;
const MAX_VALUE: usize = 64;

/// Whether a node with these labels may run a job that requires that.
pub fn meets(labels: &Labels, required: &Labels) -> bool {
    required.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// What is wrong with a label, if anything is.
pub fn wrong_label(name: &str, value: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
        return Some(format!("{name:?} is no name of a label: 1 to {MAX_NAME} letters, digits and . _ - : /"));
    }
    let length = value.chars().count();
    if !(1..=MAX_VALUE).contains(&length) || value.chars().any(char::is_control) {
        return Some(format!("the value of the label {name} must have 1 to {MAX_VALUE} characters, all of them visible"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_that_is_required_has_to_be_there() {
        let node = labels(&[("gpu", "a100"), ("zone", "b")]);
        assert!(meets(&node, &labels(&[])) && meets(&node, &labels(&[("gpu", "a100")])) && meets(&node, &node));
        assert!(!meets(&node, &labels(&[("gpu", "h100")])) && !meets(&node, &labels(&[("gpu", "a100"), ("disk", "ssd")])));
    }

    #[test]
    fn labels_are_short_and_visible() {
        assert_eq!(wrong_label("python:py3.13", "yes"), None);
        assert!(
            wrong_label("", "a").is_some() && wrong_label("a b", "a").is_some() && wrong_label(&"a".repeat(49), "a").is_some()
        );
        assert!(
            wrong_label("a", "").is_some() && wrong_label("a", "\n").is_some() && wrong_label("a", &"x".repeat(65)).is_some()
        );
    }
}
