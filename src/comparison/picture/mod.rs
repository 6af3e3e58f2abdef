//! Charts of a report: the same drawing as SVG and as PNG, with a font of its own, so that it needs nothing of the machine.

mod chart;
mod draw;

use std::sync::OnceLock;

use image::{ExtendedColorType, ImageEncoder, ImageError, codecs::png::PngEncoder};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::drawing::{DrawingAreaErrorKind, IntoDrawingArea};
use plotters::style::{FontStyle, register_font};

use self::chart::Chart;
use super::report::Report;

/// Width and height.
const SIZE: (u32, u32) = (960, 480);
/// Pixels for each unit of length in a PNG: sharp on any screen.
const SHARP: u32 = 2;

/// What a chart shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// How many times as fast as one task after the other.
    Speedup,
    /// How long a task takes from asking to the answer.
    Latency,
    /// How long a short wait on the event loop takes meanwhile.
    Bystander,
}

/// A chart can't be drawn.
#[derive(Debug, thiserror::Error)]
pub enum DrawError {
    /// What draws failed.
    #[error("the chart can't be drawn: {0}")]
    Draw(String),
    /// The font is broken.
    #[error("the font of the charts can't be read")]
    Font,
    /// The pixels can't be packed.
    #[error("the picture can't be written: {0}")]
    Encode(#[from] ImageError),
}

impl<E: std::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for DrawError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self::Draw(error.to_string())
    }
}

/// The chart as SVG that stands alone, with its content in words for those who can't see it.
pub fn svg(report: &Report, figure: Figure) -> Result<String, DrawError> {
    let chart = Chart::of(report, figure);
    let mut text = String::new();
    draw(SVGBackend::with_string(&mut text, SIZE), &chart, 1)?;
    let start = text.find("<svg ").ok_or_else(|| DrawError::Draw("there is no picture".into()))?;
    let described = format!(
        "<svg role=\"img\" aria-label=\"{}\" font-family=\"sans-serif\" ",
        chart.in_words().replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
    );
    text.replace_range(start..start + "<svg ".len(), &described);
    Ok(text)
}

/// The chart as PNG.
pub fn png(report: &Report, figure: Figure) -> Result<Vec<u8>, DrawError> {
    let (width, height) = (SIZE.0 * SHARP, SIZE.1 * SHARP);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    draw(BitMapBackend::with_buffer(&mut pixels, (width, height)), &Chart::of(report, figure), SHARP)?;
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&pixels, width, height, ExtendedColorType::Rgb8)?;
    Ok(png)
}

fn draw<B: DrawingBackend>(backend: B, chart: &Chart, scale: u32) -> Result<(), DrawError> {
    fonts()?;
    let area = backend.into_drawing_area();
    draw::all(&area, chart, scale)?;
    Ok(area.present()?)
}

/// Makes the font known, once.
fn fonts() -> Result<(), DrawError> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let regular = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
        let bold = register_font("sans-serif", FontStyle::Bold, dejavu::sans::bold());
        regular.is_ok() && bold.is_ok()
    });
    if *known { Ok(()) } else { Err(DrawError::Font) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::example_report;
    use rstest::rstest;

    #[rstest]
    #[case(Figure::Speedup, "1.96")]
    #[case(Figure::Latency, "26.0 ms")]
    #[case(Figure::Bystander, "23.9 ms")]
    fn a_chart_is_drawn_in_both_forms(#[case] figure: Figure, #[case] value: &str) {
        let svg = svg(&example_report(), figure).unwrap();
        for expected in ["role=\"img\"", "threads", "2 at once", value, "</svg>"] {
            assert!(svg.contains(expected), "{expected} is not in {svg}");
        }
        for external in ["href", "url(", "<script", "<image"] {
            assert!(!svg.contains(external), "{external}");
        }
        let png = image::load_from_memory(&png(&example_report(), figure).unwrap()).unwrap().into_rgb8();
        assert_eq!(png.dimensions(), (1920, 960));
        let colours: std::collections::BTreeSet<[u8; 3]> = png.pixels().map(|pixel| pixel.0).collect();
        assert!(colours.len() > 50, "bars and smooth text have many colours: {}", colours.len());
    }

    #[test]
    fn nothing_to_draw_is_drawn_as_nothing() {
        let mut report = example_report();
        report.matrix.iter_mut().for_each(|row| {
            (row.speedup, row.spread, row.latency_us, row.bystander_us) = (None, None, None, None);
        });
        for figure in [Figure::Speedup, Figure::Latency, Figure::Bystander] {
            assert!(svg(&report, figure).unwrap().contains("</svg>"));
        }
        report.matrix.clear();
        assert!(!png(&report, Figure::Speedup).unwrap().is_empty());
    }
}
