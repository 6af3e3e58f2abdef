use std::fs;
use std::io;
use std::path::Path;

use image::RgbImage;

use crate::cli::error::CliError;
use crate::workload::sha256;

/// The folder of all files of the demo, within the workspace.
pub(super) const FOLDER: &str = "demo";

/// Width and height of each image.
pub(super) const IMAGE_SIZE: (u32, u32) = (1200, 900);

/// A text file, and what is known of it.
pub(super) struct Text {
    /// Where it is, relative to the workspace.
    pub(super) path: String,
    pub(super) content: String,
    pub(super) lines: usize,
    pub(super) sha256: String,
}

/// Writes `count` text files of different lengths.
pub(super) fn texts(workspace: &Path, count: usize) -> Result<Vec<Text>, CliError> {
    let write = |number: usize| -> io::Result<Text> {
        let lines = 1_000 * number;
        let content = (1..=lines).map(|line| format!("Line {line} of text {number}.\n")).collect::<Vec<_>>().concat();
        let path = format!("{FOLDER}/text-{number}.txt");
        fs::write(workspace.join(&path), &content)?;
        Ok(Text { path, sha256: sha256(content.as_bytes()), content, lines })
    };
    fs::create_dir_all(workspace.join(FOLDER)).map_err(failed)?;
    (1..=count).map(write).collect::<io::Result<_>>().map_err(failed)
}

/// Writes `count` images, and returns their paths relative to the workspace.
pub(super) fn images(workspace: &Path, count: u8) -> Result<Vec<String>, CliError> {
    let write = |number: u8| -> io::Result<String> {
        let (width, height) = IMAGE_SIZE;
        // A colour gradient: every image is another one.
        let image = RgbImage::from_fn(width, height, |x, y| image::Rgb([shade(x, width), shade(y, height), number * 40]));
        let path = format!("{FOLDER}/image-{number}.png");
        image.save(workspace.join(&path)).map_err(io::Error::other)?;
        Ok(path)
    };
    fs::create_dir_all(workspace.join(FOLDER)).map_err(failed)?;
    (1..=count).map(write).collect::<io::Result<_>>().map_err(failed)
}

/// From 0 at the one side to 255 at the other.
fn shade(at: u32, side: u32) -> u8 {
    u8::try_from(at * 255 / side).unwrap_or(u8::MAX)
}

fn failed(error: io::Error) -> CliError {
    CliError::Prepare("write files into the workspace", error)
}
