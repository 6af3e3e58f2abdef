//! What clients send, read as the handlers read it.
#![allow(clippy::missing_panics_doc, reason = "a panic is what is looked for")]

use std::sync::LazyLock;

use super::audit::AuditQuery;
use super::comparisons::PageQuery;
use super::events::EventsQuery;
use super::list::{Cursor, ListQuery};
use super::logs::LogsQuery;
use super::query::Query;
use super::submission;
use crate::clock::Timestamp;
use crate::command::Commands;
use crate::dispatch::Catalogue;
use crate::outbound::OutboundSettings;
use crate::workload::{Environment, PythonRules, Registry, WorkloadSettings};

/// A submission, down to the parameters of its workload.
pub fn job(data: &[u8]) {
    static REGISTRY: LazyLock<Option<Registry>> = LazyLock::new(|| {
        let settings = WorkloadSettings {
            outbound: OutboundSettings::default(),
            http_max_bytes: 1 << 20,
            workspace: std::env::temp_dir().join("trine-fuzz"),
            python: PythonRules::default(),
            commands: Commands::default(),
        };
        Environment::open(&settings).ok().map(Registry::native)
    });
    let Ok(submission) = submission::parse(data, &Catalogue::default(), Timestamp::now()) else { return };
    assert!(submission.tags.len() <= 16 && (-100..=100).contains(&submission.priority));
    if let Some(registry) = REGISTRY.as_ref() {
        let _ = registry.prepare(&submission.workload);
    }
}

/// The query of a list: its filters and its cursor.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Query::<ListQuery>::parse(text);
    let _ = Query::<PageQuery>::parse(text);
    let _ = Query::<AuditQuery>::parse(text);
    let _ = Query::<LogsQuery>::parse(text);
    let _ = Query::<EventsQuery>::parse(text);
    if let Ok(cursor) = Cursor::try_from(text.to_owned()) {
        assert_eq!(String::from(cursor), text, "a page has one cursor");
    }
}
