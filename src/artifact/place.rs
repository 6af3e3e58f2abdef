//! Where artifacts are kept, as it is written in a setting.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use object_store::path::Path;
use serde::{Serialize, Serializer};

/// A folder, or a part of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactPlace {
    /// In this folder; made if it is not there.
    Folder(PathBuf),
    /// In a storage that speaks S3's protocol.
    S3 {
        /// The bucket.
        bucket: String,
        /// What the keys begin with.
        prefix: Path,
    },
}

/// The text names no place.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("artifacts are kept in a folder or a bucket: write a path, or s3://BUCKET/PREFIX")]
pub struct BadPlace;

impl FromStr for ArtifactPlace {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        let Some(rest) = text.strip_prefix("s3://") else {
            // Another storage would be taken for a strange folder.
            return if text.is_empty() || text.contains("://") { Err(BadPlace) } else { Ok(Self::Folder(text.into())) };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.is_empty() || !bucket.chars().all(plain) {
            return Err(BadPlace);
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: Path::parse(prefix).map_err(|_| BadPlace)? })
    }
}

impl fmt::Display for ArtifactPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Serialize for ArtifactPlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/srv/artifacts", Some("/srv/artifacts"))]
    #[case("artifacts", Some("artifacts"))]
    #[case("s3://bucket", Some("s3://bucket/"))]
    #[case("s3://bucket/trine/prod/", Some("s3://bucket/trine/prod"))]
    #[case("", None)]
    #[case("s3://", None)]
    #[case("s3://a b/x", None)]
    #[case("s3://bucket/x//y", None)]
    #[case("gs://bucket/x", None)]
    fn a_place_is_a_path_or_a_bucket(#[case] text: &str, #[case] shown: Option<&str>) {
        assert_eq!(text.parse::<ArtifactPlace>().ok().map(|place| place.to_string()).as_deref(), shown);
    }
}
