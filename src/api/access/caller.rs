use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;

use super::Holder;
use crate::auth::Scope;
use crate::job::Owner;

/// For whom a request is: the owner of what it makes, finds and changes. `None` for those who may do everything: administrators, and
/// everybody where no keys are asked for. What these make is nobody's, and for them alone.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::api) struct Caller(pub(in crate::api) Option<Owner>);

impl Caller {
    /// Who makes the request with these extensions.
    pub(in crate::api) fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or_default()
    }

    /// Whether something is there for this caller, by whose it is.
    pub(in crate::api) fn sees(self, owner: Option<Owner>) -> bool {
        self.0.is_none() || self.0 == owner
    }
}

impl From<&Holder> for Caller {
    fn from(holder: &Holder) -> Self {
        Self((!holder.scopes.allow(Scope::Admin)).then_some(holder.owner))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}
