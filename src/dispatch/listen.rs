//! What the store says unasked, and who acts on it.

use std::sync::Arc;

use super::Shared;
use crate::store::Revocation;
use crate::workload::StopReason;

/// Takes over what other servers change of the functions.
pub(super) async fn follow_functions(shared: Arc<Shared>) {
    shared.draining.run_until_cancelled(shared.functions.follow()).await;
}

/// Tells those who wait for jobs of the ends that the store brought about by itself.
pub(super) async fn tell_of_unasked(shared: Arc<Shared>) {
    let listening = async {
        loop {
            shared.store.ended_unasked().await.into_iter().for_each(|id| shared.waiters.ended(id, None));
        }
    };
    shared.draining.run_until_cancelled(listening).await;
}

/// Tells other nodes when this one claims nothing more because it is about to end.
pub(super) async fn tell_of_leaving(shared: Arc<Shared>) {
    shared.draining.cancelled().await;
    // Where that can't be told, it is seen as it was until it is gone.
    let _ = shared.store.leave().await;
}

/// Stops attempts that this node was not asked to stop, as long as any may run. What they still say is refused if the lease has ended.
pub(super) async fn stop_revoked(shared: Arc<Shared>) {
    let listening = async {
        loop {
            for (lease, why) in shared.store.revoked().await {
                let reason = match why {
                    Revocation::Cancelled => StopReason::Cancelled,
                    Revocation::Lost => StopReason::HandBack,
                };
                shared.running.stop(lease, reason);
                // If the attempt was settled just before, nobody will take that note away any more.
                if !shared.store.may_run_here(lease) {
                    shared.running.end(lease);
                }
            }
        }
    };
    shared.giving_up.run_until_cancelled(listening).await;
}
