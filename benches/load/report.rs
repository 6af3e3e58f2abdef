//! Figures as people read them: the median, the bar and every round.

use std::fmt;

use comfy_table::{Table, presets};

/// What is measured once a round.
pub(crate) struct Figure {
    name: String,
    bar: Option<Bar>,
    rounds: Vec<f64>,
}

/// What a figure has to reach.
#[derive(Clone, Copy)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Figure {
    /// A figure that is only shown.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), bar: None, rounds: Vec::new() }
    }

    /// A figure that has to reach this bar.
    pub(crate) fn with_bar(name: impl Into<String>, bar: Bar) -> Self {
        Self { name: name.into(), bar: Some(bar), rounds: Vec::new() }
    }

    /// The median of the rounds.
    pub(crate) fn median(&self) -> f64 {
        quantile(&self.rounds, 0.5)
    }

    /// The figure of one more round.
    pub(crate) fn add(&mut self, value: f64) {
        self.rounds.push(value);
    }
}

/// The figures of one more round.
pub(crate) fn add_all(figures: &mut [Figure], values: impl IntoIterator<Item = f64>) {
    figures.iter_mut().zip(values).for_each(|(figure, value)| figure.add(value));
}

/// How many MiB these bytes are.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Prints figures under a title.
pub(crate) fn print(title: &str, figures: &[Figure]) {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(["", "median", "bar", "", "rounds"]);
    for figure in figures {
        let (Figure { name, bar, rounds }, median) = (figure, figure.median());
        let verdict = match bar.map(|bar| bar.is_reached(median)) {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        let bar = bar.map_or_else(String::new, |bar| bar.to_string());
        let rounds = rounds.iter().map(|value| number(*value)).collect::<Vec<_>>().join("  ");
        table.add_row([name.clone(), number(median), bar, verdict.to_owned(), rounds]);
    }
    println!("\n{title}\n{table}");
}

/// The least of the values that this share of them does not exceed; 0 if there are none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a slice")]
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

impl Bar {
    fn is_reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {}", number(*bar)),
            Self::AtMost(bar) => write!(f, "≤ {}", number(*bar)),
        }
    }
}

/// Three digits that say something, or all of a whole number.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
