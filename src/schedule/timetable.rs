use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Direction};
use jiff::Zoned;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::clock::Timestamp;

/// The longest cron expression, in bytes.
const LONGEST: usize = 256;
/// What can be written instead of fields.
const NAMES: &str = "@yearly, @annually, @monthly, @weekly, @daily and @hourly";
/// The fields of an expression, of which the first may be left out, with how many values each has.
const FIELDS: [(&str, u16); 6] =
    [("second", 60), ("minute", 60), ("hour", 24), ("day of the month", 31), ("month", 12), ("day of the week", 7)];
/// How many years are looked at for a moment. Between two moments are forty at the most: a 29 February of a certain weekday, where the one of
/// 2100 is left out.
const YEARS: i16 = 50;

/// When something is due: a cron expression in a time zone.
///
/// Where clocks go forward, a fixed time in the hour that is left out is due when that hour would have begun to count on; where they
/// go back, a fixed time is due once, at its first coming. A fixed time is one a day. What is due more often goes by what the clocks show:
/// what names hours is left out with an hour and repeated with one, and what is due in every hour is due all through.
#[derive(Clone, Debug)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
    expression: String,
    zone_name: String,
}

impl PartialEq for Timetable {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.zone_name == other.zone_name
    }
}

/// Why there is no timetable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTimetable {
    /// The expression can't be read.
    #[error("not a cron expression of 5 or 6 fields: {0}")]
    Cron(String),
    /// There is no such time zone.
    #[error("not a time zone of the IANA database, such as Europe/Paris")]
    Zone,
}

impl Timetable {
    /// Reads an expression of five fields, or of six with the seconds first, and the IANA name of a time zone.
    pub fn parse(expression: &str, zone_name: &str) -> Result<Self, BadTimetable> {
        if expression.len() > LONGEST {
            return Err(BadTimetable::Cron(format!("longer than {LONGEST} bytes")));
        }
        if expression.split_whitespace().any(|field| field.split(',').any(str::is_empty)) {
            // To croner, such a field may have no value at all, and each minute of all years would be looked at for one that matches.
            return Err(BadTimetable::Cron("a list with nothing before, behind or between its commas".into()));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let fields = expression.split_whitespace().count();
        let cron = parser.parse(expression).map_err(|error| match fields {
            _ if expression.trim_start().starts_with('@') => BadTimetable::Cron(format!("of names there are {NAMES}")),
            5 | 6 => BadTimetable::Cron(at_fault(parser, expression).unwrap_or_else(|| error.to_string())),
            fields => BadTimetable::Cron(format!("it has {fields}")),
        })?;
        // What this machine does not know of, Trine does: another server may have taken it, or this one before an update of the system.
        let zone = TimeZone::get(zone_name).or_else(|_| TimeZoneDatabase::bundled().get(zone_name));
        let zone = zone.map_err(|_| BadTimetable::Zone)?;
        Ok(Self { cron, zone, expression: expression.to_owned(), zone_name: zone_name.to_owned() })
    }

    /// Refuses a step that is longer than its field, which finds but the first value: `*/90` minutes is each hour. Not where it is read from a
    /// store, which may have one from an earlier version.
    pub fn without_long_steps(self) -> Result<Self, BadTimetable> {
        for ((name, values), field) in named(&self.expression) {
            let steps = field.split(',').filter_map(|part| part.split_once('/')?.1.parse::<u16>().ok());
            if steps.max() > Some(values) {
                return Err(BadTimetable::Cron(format!("its {name} can't be `{field}`: of those there are {values}")));
            }
        }
        Ok(self)
    }

    /// The expression, as it was written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The name of the time zone, as it was written.
    pub fn zone(&self) -> &str {
        &self.zone_name
    }

    /// The moments that match, from this one on.
    pub fn from(&self, start: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        // From the second before, and without it: a time that the clocks have just leaped over is due at `start`, and is not seen from there.
        self.walk(whole_second(start) - 1, Direction::Forward)
    }

    /// The moments that match, before this one, the latest first.
    pub fn before(&self, end: Timestamp) -> impl Iterator<Item = Timestamp> + use<> {
        self.walk(whole_second(end), Direction::Backward)
    }

    /// The moments that match on the way from this second, which is not one of them.
    fn walk(&self, second: i64, direction: Direction) -> impl Iterator<Item = Timestamp> + use<> {
        let start = jiff::Timestamp::from_second(second).ok().map(|at| Zoned::new(at, self.zone.clone()));
        let found = start.into_iter().flat_map({
            let mut cron = self.cron.clone();
            move |start| {
                bound(&mut cron, start.year());
                match direction {
                    Direction::Forward => cron.iter_after(start),
                    Direction::Backward => cron.iter_before(start),
                }
            }
        });
        found.map(|at| Timestamp::from_micros(at.timestamp().as_microsecond()))
    }
}

/// The fields of an expression with what they are.
fn named(expression: &str) -> impl Iterator<Item = ((&'static str, u16), &str)> {
    let fields = expression.split_whitespace();
    FIELDS.into_iter().skip(FIELDS.len().saturating_sub(fields.clone().count())).zip(fields)
}

/// Which field is at fault, and what it says.
fn at_fault(parser: CronParser, expression: &str) -> Option<String> {
    let count = expression.split_whitespace().count();
    let mut wrong = named(expression).enumerate().filter(|(at, (_, field))| {
        let mut alone = vec!["*"; count];
        alone[*at] = field;
        parser.parse(&alone.join(" ")).is_err()
    });
    wrong.next().map(|(_, ((name, _), field))| format!("its {name} can't be `{field}`"))
}

/// The first whole second from a moment on: only those match.
const fn whole_second(moment: Timestamp) -> i64 {
    (moment.as_micros() - 1).div_euclid(1_000_000) + 1
}

/// Leaves out the years that are far from this one. Without that, each day until the year 5000 is looked at if none ever matches, and for so long
/// a core is held by whoever sends a February the 30th.
fn bound(cron: &mut Cron, year: i16) {
    let years = format!("* * * * * * {}-{}", (year - YEARS).max(1), (year + YEARS).min(5_000));
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Required).build();
    if let Ok(near) = parser.parse(&years) {
        cron.pattern.years = near.pattern.years;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn paris(expression: &str) -> Timetable {
        Timetable::parse(expression, "Europe/Paris").unwrap()
    }

    /// The moments of a span as the clocks of Paris show them, without the date.
    fn shown(table: &Timetable, from: &str, until: &str) -> Vec<String> {
        let show = |moment: Timestamp| {
            let moment: jiff::Timestamp = moment.to_string().parse().unwrap();
            moment.in_tz("Europe/Paris").unwrap().strftime("%d. %H:%M%:z").to_string()
        };
        table.from(at(from)).take_while(|moment| *moment < at(until)).map(show).collect()
    }

    #[rstest]
    #[case("* * * * *", "Europe/Paris", None)]
    #[case("0 */5 * * * *", "UTC", None)]
    #[case("0 9 * * MON-FRI", "America/New_York", None)]
    #[case("@daily", "UTC", None)]
    #[case("", "UTC", Some("cron"))]
    #[case("* * * *", "UTC", Some("cron"))]
    #[case("* * * * * * 2030", "UTC", Some("cron"))]
    #[case("61 * * * *", "UTC", Some("cron"))]
    #[case(", * * * * *", "UTC", Some("cron"))]
    #[case("0 1,,2 * * * *", "UTC", Some("cron"))]
    #[case("* , 5 31 4,6 *", "UTC", Some("cron"))]
    #[case("* * * * *", "Mars/Olympus", Some("zone"))]
    #[case("* * * * *", "", Some("zone"))]
    fn what_can_be_read(#[case] expression: &str, #[case] zone: &str, #[case] wrong: Option<&str>) {
        let found = Timetable::parse(expression, zone).err().map(|error| match error {
            BadTimetable::Cron(_) => "cron",
            BadTimetable::Zone => "zone",
        });
        assert_eq!(found, wrong);
    }

    #[rstest]
    #[case("* * * *", "it has 4")]
    #[case("61 * * * *", "its minute can't be `61`")]
    #[case("0 25 * * *", "its hour can't be `25`")]
    #[case("* */0 * * * *", "its minute can't be `*/0`")]
    #[case("0 9 * * MON-FUN", "its day of the week can't be `MON-FUN`")]
    #[case("@every 5m", "of names there are @yearly, @annually, @monthly, @weekly, @daily and @hourly")]
    fn what_is_wrong_is_said(#[case] expression: &str, #[case] why: &str) {
        assert_eq!(Timetable::parse(expression, "UTC").unwrap_err(), BadTimetable::Cron(why.into()));
    }

    #[rstest]
    #[case("*/61 * * * *", Some("its minute can't be `*/61`: of those there are 60"))]
    #[case("0 0 1,2-20/90 * * *", Some("its hour can't be `1,2-20/90`: of those there are 24"))]
    #[case("0 0 * * */8", Some("its day of the week can't be `*/8`: of those there are 7"))]
    #[case("*/60 */60 */24 */31 */12 */7", None)]
    #[case("@daily", None)]
    fn a_step_is_no_longer_than_its_field(#[case] expression: &str, #[case] why: Option<&str>) {
        let refused = Timetable::parse(expression, "UTC").unwrap().without_long_steps().err();
        assert_eq!(refused, why.map(|why| BadTimetable::Cron(why.into())));
    }

    /// June 2026 begins on a Monday.
    #[rstest]
    #[case("0 0 1,16 * TUE", &[1, 2, 9, 16, 23, 30])]
    #[case("0 0 */10 * MON", &[1, 8, 11, 15, 21, 22, 29])]
    #[case("0 0 1-7 * +MON", &[1])]
    #[case("0 0 * * MON", &[1, 8, 15, 22, 29])]
    #[case("0 0 ? * MON", &[1, 8, 15, 22, 29])]
    fn days_of_the_month_and_of_the_week(#[case] expression: &str, #[case] days: &[u8]) {
        let table = Timetable::parse(expression, "UTC").unwrap();
        let june = table.from(at("2026-06-01T00:00:00Z")).take_while(|moment| *moment < at("2026-07-01T00:00:00Z"));
        assert_eq!(june.map(|moment| moment.to_string()[8..10].parse().unwrap()).collect::<Vec<u8>>(), days);
    }

    #[rstest]
    #[case("0 0 30 2 *")]
    #[case("* * * 30 2 *")]
    fn what_never_comes_is_never_due_and_not_looked_for_till_doomsday(#[case] expression: &str) {
        let table = paris(expression);
        let start = at("2026-01-01T00:00:00Z");
        // Of this thread alone, whatever else the machine does.
        let used = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
        let before = used();
        assert_eq!((table.from(start).next(), table.before(start).next()), (None, None));
        let took = std::time::Duration::from(used() - before);
        assert!(took < std::time::Duration::from_millis(150), "{took:?}");
    }

    #[test]
    fn what_comes_seldom_is_found() {
        let table = Timetable::parse("0 0 29 2 +MON", "UTC").unwrap();
        let next = |from: &str| table.from(at(from)).next().unwrap().to_string();
        assert_eq!(next("2026-01-01T00:00:00Z"), "2044-02-29T00:00:00.000000Z");
        assert_eq!(next("2072-03-01T00:00:00Z"), "2112-02-29T00:00:00.000000Z");
        assert_eq!(table.before(at("2112-02-29T00:00:00Z")).next().unwrap().to_string(), "2072-02-29T00:00:00.000000Z");
    }

    #[test]
    fn moments_are_whole_seconds_and_the_start_is_one_of_them() {
        let table = paris("*/10 * * * * *");
        let first = |from: &str| table.from(at(from)).next().unwrap().to_string();
        assert_eq!(first("2026-01-01T00:00:10Z"), "2026-01-01T00:00:10.000000Z");
        assert_eq!(first("2026-01-01T00:00:10.000001Z"), "2026-01-01T00:00:20.000000Z");
        let last = |before: &str| table.before(at(before)).next().unwrap().to_string();
        assert_eq!(last("2026-01-01T00:00:10Z"), "2026-01-01T00:00:00.000000Z");
        assert_eq!(last("2026-01-01T00:00:10.000001Z"), "2026-01-01T00:00:10.000000Z");
    }

    #[test]
    fn a_fixed_time_that_spring_leaves_out_is_due_once_when_the_clocks_are_forward() {
        // At 02:00 on the 29th the clocks go to 03:00.
        let days = |expression| shown(&paris(expression), "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(days("30 2 * * *"), ["28. 02:30+01:00", "29. 03:00+02:00", "30. 02:30+02:00"]);
        assert_eq!(days("0 3 * * *"), ["28. 03:00+01:00", "29. 03:00+02:00", "30. 03:00+02:00"]);
    }

    #[test]
    fn a_fixed_time_that_autumn_repeats_is_due_once() {
        // At 03:00 on the 25th the clocks go back to 02:00.
        let days = |expression| shown(&paris(expression), "2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(days("30 2 * * *"), ["24. 02:30+02:00", "25. 02:30+02:00", "26. 02:30+01:00"]);
    }

    #[test]
    fn what_is_due_every_so_often_is_due_all_through_both_hours() {
        let spring = shown(&paris("*/30 * * * *"), "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z");
        assert_eq!(spring, ["29. 01:00+01:00", "29. 01:30+01:00", "29. 03:00+02:00", "29. 03:30+02:00"]);
        let autumn = shown(&paris("*/30 * * * *"), "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z");
        assert_eq!(autumn, ["25. 02:00+02:00", "25. 02:30+02:00", "25. 02:00+01:00", "25. 02:30+01:00"]);
    }

    #[rstest]
    #[case("0 */2 * * *", &["00:00+01:00", "04:00+02:00"], &["00:00+02:00", "02:00+02:00", "02:00+01:00", "04:00+01:00"])]
    #[case("*/30 2 * * *", &[], &["02:00+02:00", "02:30+02:00", "02:00+01:00", "02:30+01:00"])]
    #[case("30 2,3 * * *", &["03:30+02:00"], &["02:30+02:00", "02:30+01:00", "03:30+01:00"])]
    #[case("30 1-3 * * *", &["01:30+01:00", "03:30+02:00"], &["01:30+02:00", "02:30+02:00", "02:30+01:00", "03:30+01:00"])]
    fn what_names_hours_goes_with_the_hour(#[case] expression: &str, #[case] spring: &[&str], #[case] autumn: &[&str]) {
        let hours = |day: &str, from, until| {
            shown(&paris(expression), from, until).iter().map(|shown| shown.replace(day, "")).collect::<Vec<_>>()
        };
        assert_eq!(hours("29. ", "2026-03-28T23:00:00Z", "2026-03-29T03:00:00Z"), spring);
        assert_eq!(hours("25. ", "2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z"), autumn);
    }

    #[rstest]
    #[case("*/7 * * * *")]
    #[case("0 */2 * * *")]
    #[case("15 2 * * *")]
    #[case("30 2 * * *")]
    #[case("30 0 * * *")]
    #[case("30 2,3 * * *")]
    #[case("59 59 1 * * *")]
    fn from_a_moment_that_was_found_it_is_the_first(#[case] expression: &str) {
        for zone in ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "UTC"] {
            for (from, until) in [("2026-03-01", "2026-05-01"), ("2026-10-01", "2026-11-10")] {
                let (from, until) = (at(&format!("{from}T00:00:00Z")), at(&format!("{until}T00:00:00Z")));
                let table = Timetable::parse(expression, zone).unwrap();
                for moment in table.from(from).take_while(|moment| *moment < until) {
                    assert_eq!(table.from(moment).next(), Some(moment), "{zone}");
                }
            }
        }
    }

    #[rstest]
    #[case("*/7 * * * *")]
    #[case("15 2 * * *")]
    #[case("30 2,3 * * *")]
    #[case("0 0 1 * *")]
    #[case("0 30 1-3 * * SUN")]
    #[case("0 12 L * *")]
    fn looking_back_finds_what_looking_ahead_found(#[case] expression: &str) {
        for zone in ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "UTC"] {
            for (from, until) in [("2026-03-01", "2026-04-10"), ("2026-10-01", "2026-11-10")] {
                let (from, until) = (at(&format!("{from}T00:00:00Z")), at(&format!("{until}T00:00:00Z")));
                let table = Timetable::parse(expression, zone).unwrap();
                let ahead: Vec<_> = table.from(from).take_while(|moment| *moment < until).collect();
                let mut back: Vec<_> = table.before(until).take_while(|moment| *moment >= from).collect();
                back.reverse();
                assert_eq!(ahead, back, "{zone}");
                assert!(ahead.is_sorted_by(|a, b| a < b), "{zone}");
            }
        }
    }
}
