use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use cap_tempfile::TempFile;
use clap::Args;
use indicatif::HumanBytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::{Page, parse};
use super::client::{Client, Server};
use super::error::CliError;
use super::print;
use super::table::table;
use crate::job::JobId;

/// `trine artifacts`
#[derive(Args, Debug)]
pub(super) struct ShowArtifacts {
    #[command(flatten)]
    server: Server,
    /// Id of the job
    id: JobId,
    /// The names of those to save [default: all]
    #[arg(requires = "save")]
    names: Vec<String>,
    /// Save them in this folder instead of showing what there is
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Of this attempt [default: the latest one]
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// One JSON object a line, as the API has it
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Query {
    attempt: Option<u32>,
}

#[derive(Deserialize)]
struct Artifact {
    name: String,
    bytes: u64,
    kept_at: String,
    href: String,
}

impl ShowArtifacts {
    pub(super) async fn run(self) -> Result<(), CliError> {
        let client = self.server.client()?;
        let (path, query) = (format!("/jobs/{}/artifacts", self.id), Query { attempt: self.attempt });
        let page: Page<Box<RawValue>> = client.get(&path, &query).await?;
        let read = |json: Box<RawValue>| Ok((parse(&json)?, json));
        let mut artifacts = page.items.into_iter().map(read).collect::<Result<Vec<(Artifact, _)>, CliError>>()?;
        if let Some(folder) = &self.save {
            let folder = opened(folder).map_err(unwritable)?;
            if !self.names.is_empty() {
                artifacts.retain(|(artifact, _)| self.names.contains(&artifact.name));
            }
            for (Artifact { name, href, .. }, _) in &artifacts {
                if !href.starts_with('/') {
                    return Err(CliError::NotTrine(format!("{href:?} is no path")));
                }
                // Of the attempt that was listed, though the next one may have ended since.
                let content = client.stream(href, &(), None).await?;
                save(&client, &folder, Path::new(name), content).await?;
            }
            if let Some(missing) = self.names.iter().find(|name| artifacts.iter().all(|(artifact, _)| artifact.name != **name)) {
                return Err(CliError::NotThere(format!("the job has left no {missing:?}")));
            }
        }
        if self.json {
            return artifacts.iter().try_for_each(|(_, json)| print::json(json));
        }
        let row = |(Artifact { name, bytes, kept_at, .. }, _): &(Artifact, _)| {
            vec![name.clone(), HumanBytes(*bytes).to_string(), kept_at.clone()]
        };
        print::line(table(&[("name", false), ("length", true), ("kept", false)], artifacts.iter().map(row)))
    }
}

fn opened(folder: &Path) -> io::Result<Dir> {
    std::fs::create_dir_all(folder)?;
    Dir::open_ambient_dir(folder, ambient_authority())
}

/// Writes a file under its name, which leads nowhere out of the folder. It is there when it is whole.
async fn save(client: &Client, folder: &Dir, name: &Path, content: Option<reqwest::Response>) -> Result<(), CliError> {
    let above = name.parent().filter(|above| *above != Path::new(""));
    let folder = match above {
        None => folder.try_clone(),
        Some(above) => folder.create_dir_all(above).and_then(|()| folder.open_dir(above)),
    };
    let folder = folder.map_err(unwritable)?;
    let mut file = TempFile::new(&folder).map_err(unwritable)?;
    if let Some(mut content) = content {
        while let Some(chunk) = content.chunk().await.map_err(|error| client.unreachable(&error))? {
            file.write_all(&chunk).map_err(unwritable)?;
        }
    }
    file.replace(name.file_name().unwrap_or(name.as_os_str())).map_err(unwritable)
}

fn unwritable(error: io::Error) -> CliError {
    CliError::Prepare("save what the job has left", error)
}
