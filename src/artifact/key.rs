//! The keys of artifacts, which are paths below a folder as well.

use jiff::civil::Date;
use object_store::path::{Path, PathPart};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::job::JobId;

/// The longest part of a name, in bytes: it fits into the name of a file though each of them may take three.
pub(super) const LONGEST_PART: usize = 80;
/// The longest name in a key: S3 has room for 1,024 bytes in all.
const LONGEST_NAME: usize = 800;
/// What stands in a key otherwise than in the name. A colon, for one, means a drive to some.
const OTHERWISE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b' ');

/// The key of a file below a folder; `None` if there can be none.
pub(super) fn of_name<'a>(folder: &Path, parts: impl IntoIterator<Item = &'a str>) -> Option<Path> {
    let (mut key, before) = (folder.clone(), folder.as_ref().len());
    for part in parts {
        if part.is_empty() || part.len() > LONGEST_PART {
            return None;
        }
        let part = utf8_percent_encode(part, OTHERWISE).to_string();
        key = key.join(PathPart::parse(&part).ok()?);
    }
    (key.as_ref().len() - before <= LONGEST_NAME).then_some(key)
}

/// The name of a file with this key below a folder.
pub(super) fn name(folder: &Path, key: &Path) -> Option<String> {
    let parts = key.prefix_match(folder)?.map(|part| percent_decode_str(part.as_ref()).decode_utf8_lossy().into_owned());
    Some(parts.collect::<Vec<_>>().join("/"))
}

/// When a job got its id, in milliseconds.
pub(super) fn millis(job: JobId) -> i64 {
    job.as_bytes()[..6].iter().fold(0, |millis, &byte| millis << 8 | i64::from(byte))
}

/// The day of that.
pub(super) fn day(job: JobId) -> Date {
    let moment = jiff::Timestamp::from_millisecond(millis(job)).unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("report.csv", Some("a/report.csv"))]
    #[case("d/x y", Some("a/d/x y"))]
    #[case("C:", Some("a/C%3A"))]
    #[case("ü%", Some("a/%C3%BC%25"))]
    #[case("b#1", Some("a/b%231"))]
    #[case("...", Some("a/..."))]
    #[case("", None)]
    #[case("..", None)]
    #[case("d/./x", None)]
    #[case("d//x", None)]
    #[case("/x", None)]
    fn a_key_is_a_name_again(#[case] text: &str, #[case] expected: Option<&str>) {
        let folder = Path::from("a");
        let key = of_name(&folder, text.split('/'));
        assert_eq!(key.as_ref().map(AsRef::as_ref), expected);
        assert_eq!(key.map(|key| name(&folder, &key).unwrap()).as_deref(), expected.map(|_| text));
    }

    #[test]
    fn names_are_not_too_long_for_any_storage() {
        let part = "x".repeat(LONGEST_PART);
        assert!(of_name(&Path::default(), [&*part]).is_some() && of_name(&Path::default(), [&*format!("{part}x")]).is_none());
        assert!(of_name(&Path::default(), vec![&*part; 9]).is_some() && of_name(&Path::default(), vec![&*part; 10]).is_none());
    }

    #[test]
    fn a_job_belongs_to_the_day_of_its_id() {
        let id = "01997d3e-8c00-7000-8000-000000000000".parse().unwrap();
        assert_eq!(day(id).to_string(), "2025-09-24");
    }
}
