use async_trait::async_trait;

use super::StoreError;
use crate::function::Function;

/// Where registered functions are kept.
#[async_trait]
pub trait FunctionStore {
    /// Keeps a version of a function and makes it the latest of its name, with the moment of the commit as its times. One that is
    /// there already gets other defaults, and keeps the time of its creation.
    async fn deploy(&self, function: Function, content: Vec<u8>) -> Result<Function, StoreError>;

    /// Makes a version that is there the latest of its name. `None` if it is not there.
    async fn redeploy(&self, name: &str, version: &str) -> Result<Option<Function>, StoreError>;

    /// Forgets all versions of a function. Whether there were any.
    async fn undeploy(&self, name: &str) -> Result<bool, StoreError>;

    /// All versions of all functions: by name, of each the latest first.
    async fn functions(&self) -> Result<Vec<Function>, StoreError>;

    /// The content of a version of a function.
    async fn function_content(&self, name: &str, version: &str) -> Result<Option<Vec<u8>>, StoreError>;
}
