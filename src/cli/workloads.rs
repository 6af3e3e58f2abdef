//! `trine workloads`: what can be run.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Page, show};
use super::asked::Asked;
use super::error::CliError;
use super::table::table;

/// What people are shown of a workload.
#[derive(Deserialize)]
struct Row {
    name: String,
    bound: String,
    form: String,
    about: String,
}

pub(super) async fn run(asked: &Asked) -> Result<(), CliError> {
    let page: Page<Box<RawValue>> = asked.server.client()?.get("/workloads", &()).await?;
    let columns = ["workload", "bound", "form", "about"].map(|name| (name, false));
    let row = |Row { name, bound, form, about }| vec![name, bound, form, about];
    show(&page.items, asked.json, |rows| table(&columns, rows.into_iter().map(row)))
}
