//! How sure a ratio is: few repetitions, no assumption about their distribution but symmetry, and outliers that do no harm.

/// A ratio, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    /// The ratio.
    pub(super) estimate: f64,
    /// It is not below this …
    pub(super) low: f64,
    /// … and not above this,
    pub(super) high: f64,
    /// with this probability.
    pub(super) confidence: f64,
}

impl Interval {
    /// By how much it may be off to either side: 0.1 for 10 %.
    pub(super) fn half_width(&self) -> f64 {
        (self.high / self.low).sqrt() - 1.0
    }
}

/// The probability that an interval should have; with fewer than six repetitions it has less.
const WANTED: f64 = 0.95;

/// The ratio that repeated ratios are about: Hodges and Lehmann's estimate of their logarithms, with the exact interval of Wilcoxon's
/// signed-rank test. `None` without any ratio that is a positive number.
pub(super) fn interval(ratios: &[f64]) -> Option<Interval> {
    let logs: Vec<f64> = ratios.iter().filter(|ratio| ratio.is_finite() && **ratio > 0.0).map(|ratio| ratio.ln()).collect();
    let mut means: Vec<f64> = logs
        .iter()
        .enumerate()
        .flat_map(|(at, first)| logs[at..].iter().map(move |second| f64::midpoint(*first, *second)))
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let (outermost, confidence) = cut(logs.len());
    let (low, high) = (means.get(outermost)?, means.get(means.len().checked_sub(1 + outermost)?)?);
    Some(Interval { estimate: middle(&means)?.exp(), low: low.exp(), high: high.exp(), confidence })
}

/// How many of the pairs' means of `n` values may be left out on either side, and how sure the rest is.
fn cut(n: usize) -> (usize, f64) {
    let ways = rank_sums(n);
    let all: f64 = ways.iter().sum();
    let sure = |outermost: usize| 1.0 - 2.0 * ways.iter().take(outermost + 1).sum::<f64>() / all;
    let outermost = (0..ways.len() / 2).take_while(|&at| sure(at) >= WANTED).last().unwrap_or(0);
    (outermost, sure(outermost).max(0.0))
}

/// In how many ways the ranks 1 to `n`, each with either sign, make each sum of the positive ones.
fn rank_sums(n: usize) -> Vec<f64> {
    let mut ways = vec![1.0];
    for rank in 1..=n {
        let mut more = vec![0.0; ways.len() + rank];
        for (sum, count) in ways.iter().enumerate() {
            more[sum] += count;
            more[sum + rank] += count;
        }
        ways = more;
    }
    ways
}

/// The middle of sorted values: the mean of both if there are two.
fn middle(sorted: &[f64]) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    Some(f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]))
}

/// The middle of values in any order.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    middle(&values)
}

/// The value below which this share of sorted values lies: the nearest of them.
pub(super) fn quantile(sorted: &[u64], share: f64) -> Option<u64> {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1).min(sorted.len().checked_sub(1)?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_ratio_is_in_the_middle_and_its_interval_round_it() {
        let Interval { estimate, low, high, confidence } = interval(&[1.9, 2.0, 2.1, 2.0, 1.95, 2.05]).unwrap();
        assert!((1.98..2.02).contains(&estimate) && (1.89..2.0).contains(&low) && (2.0..2.11).contains(&high));
        assert!((confidence - 0.968_75).abs() < 1e-9);
    }

    #[test]
    fn an_outlier_hardly_moves_the_ratio_and_does_not_reach_the_interval() {
        let usual = interval(&[2.0, 2.01, 1.99, 2.02, 1.98, 2.0, 2.01, 1.99, 2.0, 2.0]).unwrap();
        let with_outlier = interval(&[2.0, 2.01, 1.99, 2.02, 1.98, 2.0, 2.01, 1.99, 2.0, 0.2]).unwrap();
        assert!((usual.estimate - with_outlier.estimate).abs() < 0.02);
        assert!(with_outlier.low > 0.5, "{with_outlier:?}");
    }

    /// As tables of the signed-rank test have them.
    #[rstest]
    #[case(1, 0, 0.0)]
    #[case(3, 0, 0.75)]
    #[case(5, 0, 0.9375)]
    #[case(6, 0, 0.96875)]
    #[case(8, 3, 0.960_937_5)]
    #[case(10, 8, 0.951_171_875)]
    #[case(30, 137, 0.950_289_879)]
    #[case(35, 195, 0.950_542_240)]
    #[case(40, 264, 0.950_239_432)]
    fn few_repetitions_are_less_sure(#[case] n: usize, #[case] outermost: usize, #[case] confidence: f64) {
        let (left_out, sure) = cut(n);
        assert_eq!(left_out, outermost);
        assert!((sure - confidence).abs() < 1e-9, "{sure}");
    }

    #[test]
    fn what_is_no_ratio_does_not_count() {
        assert_eq!(interval(&[]), None);
        assert_eq!(interval(&[f64::NAN, 0.0, -1.0, f64::INFINITY]), None);
        assert!((interval(&[f64::NAN, 3.0]).unwrap().estimate - 3.0).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|share| quantile(&values, share)), [50, 90, 99, 100].map(Some));
        assert_eq!((quantile(&[], 0.5), quantile(&[7], 0.99)), (None, Some(7)));
        assert_eq!((median(&[3.0, 1.0]), median(&[])), (Some(2.0), None));
    }
}
