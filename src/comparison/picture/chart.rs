//! What a chart shows, before it is drawn.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Figure;
use crate::clock::readable;
use crate::comparison::report::{Bystander, Choice, Report, Row, Spans};

/// Red, green and blue.
pub(super) type Colour = (u8, u8, u8);

/// Bars in groups.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) subtitle: &'static str,
    pub(super) series: Vec<Series>,
    pub(super) groups: Vec<Group>,
    /// What the bars are to be seen against.
    pub(super) line: Option<(f64, &'static str)>,
    pub(super) scale: Scale,
}

/// How heights mean values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Times as fast, from nothing on.
    Times,
    /// Microseconds; each line is ten times the one below.
    Time,
}

/// One executor, and one interpreter if there are several.
#[derive(PartialEq, Eq)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: Colour,
}

/// The bars of one concurrency.
pub(super) struct Group {
    pub(super) label: String,
    pub(super) bars: Vec<Bar>,
}

/// One bar; its whisker goes from `low` to `high`.
pub(super) struct Bar {
    pub(super) series: usize,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) label: String,
}

impl Chart {
    pub(super) fn of(report: &Report, figure: Figure) -> Self {
        let mut series: Vec<Series> = Vec::new();
        let mut groups = BTreeMap::<u32, Group>::new();
        let mut rows: Vec<&Row> = report.matrix.iter().collect();
        rows.sort_by_key(|row| (row.concurrency, row.executor));
        for row in rows {
            let Some((value, low, high, label)) = bar(row, figure) else { continue };
            let series = position(&mut series, row, report);
            let empty = || Group { label: format!("{} at once", row.concurrency), bars: Vec::new() };
            let group = groups.entry(row.concurrency).or_insert_with(empty);
            group.bars.push(Bar { series, value, low, high, label });
        }
        let groups = groups.into_values().collect();
        let calm = report.inline.first().and_then(|inline| inline.bystander_us);
        let (title, subtitle, line, scale) = match figure {
            Figure::Speedup => (
                "How many times as fast",
                "as one task after the other; the thin lines show between what it lies",
                Some((1.0, "one after the other")),
                Scale::Times,
            ),
            Figure::Latency => (
                "How long a task takes",
                "from asking to the answer: half of the tasks at most (bar), 99 of 100 (thin line and number)",
                None,
                Scale::Time,
            ),
            Figure::Bystander => (
                "What a neighbour on the event loop suffers",
                "a wait of 1 ms that is nobody's business: half of them at most (bar), 99 of 100 (thin line and number)",
                calm.map(|calm| (as_float(calm.p99), "99 of 100 beside nothing")),
                Scale::Time,
            ),
        };
        Self { title, subtitle, series, groups, line, scale }
    }

    /// For those who can't see it.
    pub(super) fn in_words(&self) -> String {
        let mut said = format!("{}, {}.", self.title, self.subtitle);
        for group in &self.groups {
            let bars = group.bars.iter().filter_map(|bar| Some(format!("{} {}", self.series.get(bar.series)?.name, bar.label)));
            // Writing to memory does not fail.
            let _ = write!(said, " {}: {}.", group.label, bars.collect::<Vec<_>>().join(", "));
        }
        said
    }

    /// The smallest and the largest value that is to be seen.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let bars = self.groups.iter().flat_map(|group| &group.bars).flat_map(|bar| [bar.value, bar.low, bar.high]);
        let values = bars.chain(self.line.map(|(value, _)| value)).filter(|value| value.is_finite() && *value > 0.0);
        values.fold(None, |range, value| {
            let (least, most) = range.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        })
    }
}

/// The place of a row's series, which is made if it is the first of it.
fn position(series: &mut Vec<Series>, row: &Row, report: &Report) -> usize {
    let variant = report.inline.iter().position(|inline| inline.interpreter == row.interpreter).unwrap_or(0);
    let name = report.series(row.executor, row.interpreter.as_deref());
    let new = Series { name, colour: lighter(Choice::from(row.executor).colour(), variant) };
    series.iter().position(|known| *known == new).unwrap_or_else(|| {
        series.push(new);
        series.len() - 1
    })
}

fn bar(row: &Row, figure: Figure) -> Option<(f64, f64, f64, String)> {
    match figure {
        Figure::Speedup => {
            let (speedup, spread) = (row.speedup?, row.spread?);
            Some((speedup, spread.low, spread.high, format!("{speedup:.2}")))
        }
        Figure::Latency => {
            let Spans { p50, p99, .. } = row.latency_us?;
            Some((as_float(p50), as_float(p50), as_float(p99), readable(p99)))
        }
        Figure::Bystander => {
            let Bystander { p50, p99, .. } = row.bystander_us?;
            Some((as_float(p50), as_float(p50), as_float(p99), readable(p99)))
        }
    }
}

fn lighter((red, green, blue): Colour, times: usize) -> Colour {
    let lighter = |part: u8| u8::try_from(u16::midpoint(u16::from(part), 255)).unwrap_or(u8::MAX);
    (0..times.min(3)).fold((red, green, blue), |(red, green, blue), _| (lighter(red), lighter(green), lighter(blue)))
}

#[expect(clippy::cast_precision_loss, reason = "a height on a picture")]
const fn as_float(us: u64) -> f64 {
    us as f64
}
