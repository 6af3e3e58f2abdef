use super::KeyId;
use crate::clock::Timestamp;

/// Something that an administrator is about to do.
#[derive(Clone, Debug)]
pub struct NewAct {
    /// The key that it is done with; `None` where no key was asked for.
    pub key: Option<KeyId>,
    /// The operation, as the OpenAPI document calls it.
    pub operation: String,
    /// The path that it was asked for.
    pub target: String,
}

/// Something that an administrator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Later ones have greater ids.
    pub id: i64,
    /// When it was begun.
    pub at: Timestamp,
    /// The key that it was done with; `None` where no key was asked for.
    pub key: Option<KeyId>,
    /// The operation, as the OpenAPI document calls it.
    pub operation: String,
    /// The path that it was asked for.
    pub target: String,
    /// The status of the answer; `None` if the server ended before there was one.
    pub status: Option<u16>,
}
