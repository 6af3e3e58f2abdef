//! Who may do what: API keys, what each of them may do, and a record of what administrators did.

mod act;
mod key;
mod quota;
mod rule;
mod scope;
mod secret;

pub use act::{Act, NewAct};
pub use key::{Key, KeyId, KeyState, wrong_name};
pub use quota::{Quota, QuotaPart};
pub use rule::KeyRule;
pub use scope::{Scope, Scopes};
pub use secret::{Presented, Secret, SecretHash};
