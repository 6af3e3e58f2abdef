//! The OpenAPI document: what is not said at the operations themselves.

use std::fmt::Write as _;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Discriminator, OneOfBuilder};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Schema, ServerBuilder, Tag};

use super::events::EventView;
use super::problem::{self, Kind};
use super::webhooks::Message;
use super::{access, example, webhooks, workloads};
use crate::workload::Registry;

const ABOUT: &str = "\
Trine runs work three ways. Submit a job and say whether it is I/O-bound or CPU-bound; Trine runs it on the executor that suits it - \
an event loop, a thread pool or worker processes -, keeps the result, and measures what the job really did.

Times are RFC 3339 in UTC with microseconds; durations are integers in microseconds or milliseconds, as their names say. Lists answer \
`{\"items\": […], \"next_cursor\": …}`; pass `next_cursor` as `cursor` to get the next page. Unknown fields and unknown query \
parameters are refused, and so is an `Idempotency-Key` of a `POST` that would do the same again.

## Problems

Errors are Problem Details ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with a stable `type`:

| type | status | title |
|---|---|---|
";

/// The document before the operations are added.
pub(super) fn frame() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Trine")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(about()))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build()));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([ServerBuilder::new().url("/").description(Some("The server that this document comes from")).build()]))
        .tags(Some([
            tag("jobs", "Submit work, follow it, cancel it, run it again"),
            tag("events", "What happens to jobs, while it happens: server-sent events, and the lines that jobs wrote"),
            tag("artifacts", "The files that jobs left behind"),
            tag("results", "What came of it, and what was measured"),
            tag("comparisons", "One workload on all executors, with controls and a verdict"),
            tag("profiles", "What was learned of workloads by running them, and what speaks against how they are tagged or run"),
            tag("functions", "Users' own code, registered under a name"),
            tag("schedules", "Jobs that are submitted because it is time"),
            tag("webhooks", "What was told to whom when jobs had ended"),
            tag("keys", "Who may do what, and what administrators did"),
            tag("service", "What the server can run, and on what"),
            tag("health", "For whoever watches over the server"),
        ]))
        .build()
}

/// As it is sent: its parts would take a server four times the memory.
#[expect(clippy::expect_used, reason = "it has texts, numbers and maps with texts as keys, which JSON has as well")]
pub(super) fn written(document: &OpenApi) -> Vec<u8> {
    serde_json::to_vec(document).expect("a document is JSON")
}

/// Adds what the operations refer to or speak of: problems, the data of events, messages, and the workloads of this server.
pub(super) fn complete(document: &mut OpenApi, registry: &Registry) {
    let components = document.components.get_or_insert_with(Components::new);
    let mut schemas = Vec::new();
    add::<problem::Body>(&mut schemas);
    add::<EventView<'_>>(&mut schemas);
    add::<Message<'_>>(&mut schemas);
    components.schemas.extend(schemas);
    document.webhooks = Some(webhooks::described());
    components.responses.extend(Kind::ALL.iter().map(|kind| (kind.slug().into(), kind.describe().into())));
    add_workloads(components, registry);
    if let Some(list) = document.paths.paths.get_mut("/workloads").and_then(|item| item.get.as_mut()) {
        give_example(list, &example::workloads(registry));
    }
    document.paths.paths.values_mut().flat_map(access::methods).for_each(|(_, operation)| may_fail(operation));
    access::describe(document);
}

/// Adds a schema that no operation refers to, and those that it refers to.
fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// `Workload` is any of those that are registered; its `type` tells which.
fn add_workloads(components: &mut Components, registry: &Registry) {
    let mut any = OneOfBuilder::new().description(Some("What to run: its `type`, and the parameters of that type"));
    let mut discriminator = Discriminator::new("type");
    for workload in registry.describe() {
        let name = component_name(workload.name);
        let reference = Ref::from_schema_name(&name);
        discriminator.mapping.insert(workload.name.into(), reference.ref_location.clone());
        any = any.item(reference);
        components.schemas.insert(name, workloads::schema(workload));
    }
    let any = RefOr::T(Schema::OneOf(any.discriminator(Some(discriminator)).build()));
    components.schemas.insert("Workload".into(), any);
}

/// The answer that this operation gives on this server.
fn give_example(operation: &mut Operation, example: &Value) {
    let ok = operation.responses.responses.get_mut("200");
    if let Some(RefOr::T(response)) = ok {
        for content in response.content.values_mut() {
            if let RefOr::T(content) = content {
                content.example = Some(example.clone());
            }
        }
    }
}

/// Every operation can fail in a way that nobody foresaw, and refuses what has no business here.
fn may_fail(operation: &mut Operation) {
    operation.responses.responses.extend([Kind::Forbidden, Kind::UriTooLong, Kind::Internal].map(Kind::reference));
}

/// `primes` is described as `PrimesWorkload`.
fn component_name(workload: &str) -> String {
    let mut letters = workload.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain("Workload".chars()).collect()
}

fn about() -> String {
    Kind::ALL.iter().fold(ABOUT.to_owned(), |mut text, kind| {
        // Writing to memory does not fail.
        let _ = writeln!(text, "| `/problems/{}` | {} | {} |", kind.slug(), kind.status().as_u16(), kind.title());
        text
    })
}

fn tag(name: &str, description: &str) -> Tag {
    TagBuilder::new().name(name).description(Some(description)).build()
}
