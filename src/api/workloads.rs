//! `/workloads`: what can be run.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::ApiState;
use super::json::Json;
use super::list::List;
use crate::command::{Command, Commands};
use crate::job::{Bound, Form, Runtime};
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
    /// Of `command` alone: the programs that the operator offers, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    commands: Option<BTreeMap<String, CommandView>>,
}

/// A program that the operator offers.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandInfo)]
struct CommandView {
    /// What it is good for.
    about: String,
    /// The JSON Schema of its `parameters`.
    #[schema(value_type = Object)]
    parameters: Value,
    /// The longest standard input that it takes, in bytes.
    stdin_bytes: usize,
    /// What is kept of its standard output, and of its standard error, in bytes.
    output_bytes: usize,
    /// How long it may run, in milliseconds, whatever the job allows.
    deadline_ms: u64,
    /// Whether it can reach the network.
    network: bool,
}

impl From<&Command> for CommandView {
    fn from(command: &Command) -> Self {
        Self {
            about: command.about.clone(),
            parameters: command.schema(),
            stdin_bytes: command.limits.stdin_bytes,
            output_bytes: command.limits.output_bytes,
            deadline_ms: command.limits.deadline_ms,
            network: command.network,
        }
    }
}

impl WorkloadView {
    /// All that are registered.
    pub(super) fn all(registry: &Registry) -> List<Self> {
        List::whole(registry.describe().map(|description| Self::new(description, registry.environment().commands())))
    }

    fn new(description: &Description, commands: &Commands) -> Self {
        let commands = || commands.0.iter().map(|(name, command)| (name.clone(), CommandView::from(&**command))).collect();
        Self {
            name: description.name,
            about: description.about,
            bound: description.bound,
            form: description.form,
            schema: schema(description),
            example: description.example.clone(),
            commands: (description.runtime == Runtime::Command).then(commands),
        }
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
/// What this server can run, each with the JSON Schema of its parameters; and the commands that its operator offers.
#[utoipa::path(
    get, path = "/workloads", tag = "service", operation_id = "listWorkloads",
    responses((status = 200, description = "All workloads, by name", body = List<WorkloadView>)),
)]
pub(super) async fn list(State(api): State<ApiState>) -> Json<List<WorkloadView>> {
    Json(WorkloadView::all(api.dispatcher.registry()))
}
