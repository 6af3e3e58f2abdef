//! `trine workloads`: what can be run.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Page, parse};
use super::asked::Asked;
use super::error::CliError;
use super::print;
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
    if asked.json {
        return page.items.iter().try_for_each(|item| print::json(item));
    }
    let rows = page.items.iter().map(|item| parse(item)).collect::<Result<Vec<Row>, _>>()?;
    let columns = ["workload", "bound", "form", "about"].map(|name| (name, false));
    print::line(table(&columns, rows.into_iter().map(|Row { name, bound, form, about }| vec![name, bound, form, about])))
}
