//! `/workloads`: what can be run.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::ApiState;
use super::list::List;
use crate::job::{Bound, Form};
use crate::workload::{Description, Registry};

/// Something that can be run.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkloadInfo)]
pub(super) struct WorkloadView {
    /// The value of `type`.
    name: &'static str,
    /// One sentence.
    about: &'static str,
    /// What it mostly does; the tag that fits.
    bound: Bound,
    /// How it is written: as a future, or as a call that holds its thread.
    form: Form,
    /// The JSON Schema of the object `workload` in a submission.
    #[schema(value_type = Object)]
    schema: RefOr<Schema>,
    /// An object `workload` that works.
    example: Value,
}

impl From<&Description> for WorkloadView {
    fn from(description: &Description) -> Self {
        Self {
            name: description.name,
            about: description.about,
            bound: description.bound,
            form: description.form,
            schema: schema(description),
            example: description.example.clone(),
        }
    }
}

impl WorkloadView {
    /// All that are registered.
    pub(super) fn all(registry: &Registry) -> List<Self> {
        List::whole(registry.describe().map(Self::from))
    }
}

/// The JSON Schema of a workload object: that of its parameters, with `type`.
pub(super) fn schema(description: &Description) -> RefOr<Schema> {
    let mut schema = description.schema.clone();
    if let RefOr::T(Schema::Object(object)) = &mut schema {
        let name = ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .description(Some("The kind of workload"))
            .enum_values(Some([description.name]));
        object.properties.insert("type".into(), name.into());
        object.required.insert(0, "type".into());
        object.description.get_or_insert_with(|| description.about.into());
        object.example = Some(description.example.clone());
    }
    schema
}

/// List workloads
///
/// What this server can run, each with the JSON Schema of its parameters.
#[utoipa::path(
    get, path = "/workloads", tag = "service", operation_id = "listWorkloads",
    responses((status = 200, description = "All workloads, by name", body = List<WorkloadView>)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Json<List<WorkloadView>> {
    Json(WorkloadView::all(api.dispatcher.registry()))
}
