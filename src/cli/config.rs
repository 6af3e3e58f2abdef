use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::error::CliError;
use super::serve::{UNKNOWN_VARIABLES, unknown_variables};
use super::{print, table};
use crate::config::{Config, Permission, Settings, Source, Sources};

/// `trine config`
#[derive(Args, Debug)]
pub(super) struct ShowConfig {
    #[command(flatten)]
    settings: Settings,
    /// One JSON object, in which no value is cut: for each setting its value, its source and, unless that is `default`, where `from`
    #[arg(long)]
    json: bool,
}

/// A setting in force.
#[derive(Serialize)]
struct Setting<'a> {
    value: &'a Value,
    #[serde(flatten)]
    source: &'a Source,
}

impl ShowConfig {
    pub(super) fn run(self, sources: &Sources) -> Result<(), CliError> {
        let config = self.settings.in_force();
        // What depends on other settings is shown as it is in force.
        let config = Config {
            database: Some(config.database()),
            workspace: Some(config.workspace()),
            artifacts: Some(config.artifacts()),
            python_pickles: Some(if config.takes_pickles() { Permission::Allow } else { Permission::Deny }),
            ..config
        };
        let values = serde_json::to_value(&config).map_err(CliError::Json)?;
        let settings: Vec<(String, Setting<'_>)> = Config::names()
            .into_iter()
            .map(|name| {
                let setting = Setting { value: &values[&name], source: sources.get(&name).unwrap_or(&Source::Default) };
                (name, setting)
            })
            .collect();
        if let Some(names) = unknown_variables() {
            print::aside(format_args!("{UNKNOWN_VARIABLES}: {names}"));
        }
        if self.json {
            let settings: BTreeMap<_, _> = settings.into_iter().collect();
            return print::raw(&serde_json::to_string_pretty(&settings).map_err(CliError::Json)?);
        }
        let rows = settings
            .iter()
            .map(|(name, setting)| vec![name.clone(), table::shortened(&text(setting.value)), setting.source.to_string()]);
        print::line(table::table(&[("setting", false), ("value", false), ("from", false)], rows))
    }
}

/// A value as it is written behind its flag.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
