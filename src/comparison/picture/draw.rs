//! Draws a chart with rectangles, lines and text.

use plotters::backend::DrawingBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::SIZE;
use super::chart::{Chart, Colour, Scale};
use crate::clock::readable;

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

const INK: Colour = (33, 37, 41);
const PALE: Colour = (108, 117, 125);
const GRID: Colour = (226, 230, 234);
/// Where the bars are: left, top, right, bottom.
const FIELD: (f64, f64, f64, f64) = (74.0, 116.0, 936.0, 428.0);
/// The widest bar.
const WIDEST: f64 = 84.0;

/// Draws all of it, each unit of length as `scale` pixels.
pub(super) fn all<B: DrawingBackend>(area: &DrawingArea<B, Shift>, chart: &Chart, scale: u32) -> Drawn<B> {
    let canvas = Canvas { area, scale: f64::from(scale) };
    area.fill(&RGBColor(255, 255, 255))?;
    canvas.text(chart.title, (24.0, 16.0), 21.0, INK, HPos::Left, FontStyle::Bold)?;
    canvas.text(chart.subtitle, (24.0, 46.0), 14.0, PALE, HPos::Left, FontStyle::Normal)?;
    legend(&canvas, chart)?;
    let Some(axis) = Axis::of(chart) else {
        return canvas.text(
            "nothing was measured",
            (f64::from(SIZE.0) / 2.0, 250.0),
            16.0,
            PALE,
            HPos::Center,
            FontStyle::Normal,
        );
    };
    for (value, label) in axis.marks() {
        let y = axis.height(value);
        canvas.line([(FIELD.0, y), (FIELD.2, y)], 1.0, GRID)?;
        canvas.text(&label, (FIELD.0 - 8.0, y - 8.0), 13.0, PALE, HPos::Right, FontStyle::Normal)?;
    }
    bars(&canvas, chart, &axis)?;
    canvas.line([(FIELD.0, FIELD.3), (FIELD.2, FIELD.3)], 1.5, INK)?;
    chart.line.map_or(Ok(()), |(value, _)| canvas.dashes((FIELD.0, FIELD.2), axis.height(value), INK))
}

fn legend<B: DrawingBackend>(canvas: &Canvas<'_, B>, chart: &Chart) -> Drawn<B> {
    let mut x = 24.0;
    for series in &chart.series {
        canvas.rectangle((x, 76.0), (x + 13.0, 89.0), series.colour)?;
        canvas.text(&series.name, (x + 19.0, 76.0), 14.0, INK, HPos::Left, FontStyle::Normal)?;
        x += 44.0 + canvas.width(&series.name, 14.0);
    }
    if let Some((_, label)) = chart.line {
        canvas.dashes((x, x + 31.0), 83.0, INK)?;
        canvas.text(label, (x + 38.0, 76.0), 14.0, INK, HPos::Left, FontStyle::Normal)?;
    }
    Ok(())
}

fn bars<B: DrawingBackend>(canvas: &Canvas<'_, B>, chart: &Chart, axis: &Axis) -> Drawn<B> {
    let count = |length: usize| f64::from(u32::try_from(length).unwrap_or(u32::MAX));
    let room = (FIELD.2 - FIELD.0) / count(chart.groups.len().max(1));
    let width = (room * 0.8 / count(chart.series.len().max(1))).min(WIDEST);
    for (at, group) in chart.groups.iter().enumerate() {
        let middle = FIELD.0 + room * (count(at) + 0.5);
        canvas.text(&group.label, (middle, FIELD.3 + 12.0), 15.0, INK, HPos::Center, FontStyle::Normal)?;
        let first = middle - width * count(group.bars.len()) / 2.0;
        for (place, bar) in group.bars.iter().enumerate() {
            let left = first + width * count(place);
            let (x, gap) = (left + width / 2.0, width * 0.07);
            let colour = chart.series.get(bar.series).map_or(PALE, |series| series.colour);
            canvas.rectangle((left + gap, axis.height(bar.value)), (left + width - gap, FIELD.3), colour)?;
            let (low, high) = (axis.height(bar.low), axis.height(bar.high));
            canvas.line([(x, low), (x, high)], 1.5, INK)?;
            for y in [low, high] {
                canvas.line([(x - 5.0, y), (x + 5.0, y)], 1.5, INK)?;
            }
            let size = if width >= 52.0 { 14.0 } else { 11.0 };
            canvas.text(
                &bar.label,
                (x, high.min(axis.height(bar.value)) - 6.0 - size),
                size,
                INK,
                HPos::Center,
                FontStyle::Normal,
            )?;
        }
    }
    Ok(())
}

/// From values to heights.
struct Axis {
    scale: Scale,
    least: f64,
    most: f64,
}

impl Axis {
    fn of(chart: &Chart) -> Option<Self> {
        let (least, most) = chart.range()?;
        Some(match chart.scale {
            Scale::Times => Self { scale: chart.scale, least: 0.0, most: most * 1.12 },
            // Half a power of ten below the smallest, so that its bar can be seen.
            Scale::Time => Self {
                scale: chart.scale,
                least: (least.log10() - 0.5).max(0.0),
                most: most.log10().max(least.log10() + 0.5) + 0.15,
            },
        })
    }

    fn height(&self, value: f64) -> f64 {
        let value = if self.scale == Scale::Time { value.max(1.0).log10() } else { value };
        let share = ((value - self.least) / (self.most - self.least)).clamp(0.0, 1.0);
        FIELD.3 - share * (FIELD.3 - FIELD.1)
    }

    /// Values with a line across, and what is written beside it.
    fn marks(&self) -> Vec<(f64, String)> {
        let within = |value: &f64| {
            let at = if self.scale == Scale::Time { value.log10() } else { *value };
            (self.least..=self.most).contains(&at)
        };
        match self.scale {
            Scale::Times => {
                let step = step(self.most / 5.0);
                let marks = (0..=12).map(|n| f64::from(n) * step).filter(within);
                marks.map(|value| (value, format!("{value}×"))).collect()
            }
            Scale::Time => {
                let marks = (0..=10).flat_map(|power| [1.0, 3.0].map(|first| first * 10_f64.powi(power))).filter(within);
                let whole = |us: f64| readable(us_of(us)).replace(".0 ", " ").replace(".00 ", " ");
                marks.map(|value| (value, whole(value))).collect()
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mark between a microsecond and hours")]
const fn us_of(us: f64) -> u64 {
    us as u64
}

/// The step of 1, 2 or 5 and a power of ten that is the next to this one.
fn step(about: f64) -> f64 {
    let power = 10_f64.powf(about.max(1e-6).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|first| first * power).into_iter().find(|step| *step >= about).unwrap_or(10.0 * power)
}

struct Canvas<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    scale: f64,
}

impl<B: DrawingBackend> Canvas<'_, B> {
    #[expect(clippy::cast_possible_truncation, reason = "a place on a picture")]
    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.scale).round() as i32, (y * self.scale).round() as i32)
    }

    fn rectangle(&self, from: (f64, f64), to: (f64, f64), (red, green, blue): Colour) -> Drawn<B> {
        self.area.draw(&Rectangle::new([self.at(from), self.at(to)], RGBColor(red, green, blue).filled()))
    }

    fn line(&self, points: [(f64, f64); 2], width: f64, (red, green, blue): Colour) -> Drawn<B> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a width in pixels")]
        let stroke_width = (width * self.scale).round().max(1.0) as u32;
        let style = ShapeStyle { color: RGBColor(red, green, blue).to_rgba(), filled: false, stroke_width };
        self.area.draw(&PathElement::new(points.map(|point| self.at(point)).to_vec(), style))
    }

    /// A dashed line across.
    fn dashes(&self, (from, to): (f64, f64), y: f64, colour: Colour) -> Drawn<B> {
        let mut x = from;
        while x < to {
            self.line([(x, y), ((x + 7.0).min(to), y)], 1.0, colour)?;
            x += 12.0;
        }
        Ok(())
    }

    fn text(
        &self,
        text: &str,
        at: (f64, f64),
        size: f64,
        (red, green, blue): Colour,
        anchor: HPos,
        style: FontStyle,
    ) -> Drawn<B> {
        let font = ("sans-serif", size * self.scale, style).into_font();
        let colour = RGBColor(red, green, blue);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(anchor, VPos::Top));
        self.area.draw(&Text::new(text.to_owned(), self.at(at), style))
    }

    /// About how wide a text is.
    fn width(&self, text: &str, size: f64) -> f64 {
        let font = ("sans-serif", size * self.scale).into_font();
        let width = self.area.estimate_text_size(text, &TextStyle::from(font)).map_or(0, |(width, _)| width);
        f64::from(width) / self.scale
    }
}
