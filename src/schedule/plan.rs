//! What becomes of a schedule at a moment: a pure function.

use std::time::Duration;

use super::{CatchUp, Overlap, Schedule, Skip};
use crate::clock::Timestamp;

/// What is noticed later than this was missed; until then it is just late, as after a quick restart.
pub const LATE: Duration = Duration::from_secs(10);
/// The most missed times that are made up for.
const MOST_MADE_UP: usize = 1_000;
/// The most times that wait for a job before them to end.
const MOST_WAITING: usize = 1_000;
/// The most times of one plan that were not missed; what is left comes with the next plan.
const MOST_AT_ONCE: usize = 100;
/// If the clock is set back further than this, it was wrong before, and what is due by the new time is due again. If it is set back less,
/// nothing is due twice: the schedule waits until the time that was reached comes again.
const CORRECTION: Duration = Duration::from_secs(3 * 3_600);

/// What is known of a schedule's jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// One of them has not ended.
    pub busy: bool,
    /// So many times wait for that.
    pub waiting: usize,
    /// The latest time at which it was due.
    pub latest: Option<Timestamp>,
}

/// What becomes of one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A job is submitted.
    Submit,
    /// A job is submitted later, when those before it have ended.
    Wait,
    /// None is.
    Skip(Skip),
}

/// What becomes of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The times that are decided upon, the earliest first.
    pub times: Vec<(Timestamp, Decision)>,
    /// When it is due next.
    pub next_at: Option<Timestamp>,
}

/// Decides about all times of a schedule up to `now`. `None` if there is nothing to change.
pub fn plan(schedule: &Schedule, seen: Seen, now: Timestamp) -> Option<Plan> {
    let next_at = schedule.next_at?;
    let table = &schedule.timetable;
    if next_at > now {
        let corrected = seen.latest.is_some_and(|latest| latest > now.after(CORRECTION));
        let earlier = corrected.then(|| table.from(now).next()).flatten().filter(|first| *first < next_at);
        return earlier.map(|first| Plan { times: Vec::new(), next_at: Some(first) });
    }
    let on_time_from = now.before(LATE);
    let mut missed: Vec<_> = table.before(on_time_from).take_while(|at| *at >= next_at).take(MOST_MADE_UP + 1).collect();
    missed.reverse();
    let mut times = Vec::new();
    let mut room = Room { overlap: schedule.overlap, busy: seen.busy, waiting: seen.waiting };
    match schedule.catch_up {
        CatchUp::Skip => times.extend(missed.last().map(|at| (*at, Decision::Skip(Skip::Missed)))),
        CatchUp::Once => times.extend(missed.last().map(|at| (*at, room.decide()))),
        CatchUp::All => {
            if missed.len() > MOST_MADE_UP {
                times.push((missed.remove(0), Decision::Skip(Skip::Missed)));
            }
            times.extend(missed.into_iter().map(|at| (at, room.decide())));
        }
    }
    let mut further = table.from(next_at.max(on_time_from)).peekable();
    while times.len() < MOST_MADE_UP + MOST_AT_ONCE
        && let Some(at) = further.next_if(|at| *at <= now)
    {
        times.push((at, room.decide()));
    }
    Some(Plan { times, next_at: further.next() })
}

/// Whether one more job may start.
struct Room {
    overlap: Overlap,
    busy: bool,
    waiting: usize,
}

impl Room {
    fn decide(&mut self) -> Decision {
        match self.overlap {
            Overlap::Allow => Decision::Submit,
            _ if !self.busy && self.waiting == 0 => {
                self.busy = true;
                Decision::Submit
            }
            Overlap::Skip => Decision::Skip(Skip::Overlap),
            Overlap::Queue if self.waiting >= MOST_WAITING => Decision::Skip(Skip::Full),
            Overlap::Queue => {
                self.waiting += 1;
                Decision::Wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Timetable;
    use super::*;
    use rstest::rstest;
    use serde_json::value::RawValue;

    fn at(text: &str) -> Timestamp {
        format!("2026-06-01T{text}Z").parse().unwrap()
    }

    /// Due each minute, next at noon.
    fn each_minute(catch_up: CatchUp, overlap: Overlap) -> Schedule {
        Schedule {
            name: "s".into(),
            timetable: Timetable::parse("* * * * *", "UTC").unwrap(),
            catch_up,
            overlap,
            job: RawValue::NULL.to_owned(),
            paused: false,
            created_at: at("00:00:00"),
            changed_at: at("00:00:00"),
            next_at: Some(at("12:00:00")),
        }
    }

    /// The minutes of the times that are decided upon, with the first letter of the decision; and when it is due next.
    fn decided(schedule: &Schedule, seen: Seen, now: &str) -> (Vec<String>, String) {
        let Some(plan) = plan(schedule, seen, at(now)) else { return (Vec::new(), "unchanged".into()) };
        let show = |at: Timestamp| at.to_string()[11..16].to_owned();
        let times = plan.times.iter().map(|(at, decision)| {
            let letter = match decision {
                Decision::Submit => "",
                Decision::Wait => " waits",
                Decision::Skip(Skip::Overlap) => " overlaps",
                Decision::Skip(Skip::Full) => " is too much",
                Decision::Skip(Skip::Missed) => " missed",
            };
            format!("{}{letter}", show(*at))
        });
        (times.collect(), plan.next_at.map(show).unwrap_or_default())
    }

    #[rstest]
    #[case::not_yet(CatchUp::All, "11:59:59.999", &[], "unchanged")]
    #[case::on_time(CatchUp::Skip, "12:00:00", &["12:00"], "12:01")]
    #[case::late(CatchUp::Skip, "12:00:10", &["12:00"], "12:01")]
    #[case::too_late(CatchUp::Skip, "12:00:10.001", &["12:00 missed"], "12:01")]
    #[case::too_late(CatchUp::Once, "12:00:11", &["12:00"], "12:01")]
    #[case::down(CatchUp::Skip, "12:03:30", &["12:03 missed"], "12:04")]
    #[case::down(CatchUp::Once, "12:03:30", &["12:03"], "12:04")]
    #[case::down(CatchUp::All, "12:03:30", &["12:00", "12:01", "12:02", "12:03"], "12:04")]
    #[case::back_on_the_minute(CatchUp::Skip, "12:03:05", &["12:02 missed", "12:03"], "12:04")]
    #[case::back_on_the_minute(CatchUp::Once, "12:03:05", &["12:02", "12:03"], "12:04")]
    fn what_was_missed_is_made_up_for_by_the_rule(
        #[case] catch_up: CatchUp,
        #[case] now: &str,
        #[case] times: &[&str],
        #[case] next: &str,
    ) {
        let found = decided(&each_minute(catch_up, Overlap::Allow), Seen::default(), now);
        assert_eq!((found.0, found.1.as_str()), (times.iter().map(ToString::to_string).collect(), next));
    }

    #[rstest]
    #[case(Overlap::Allow, true, 0, &["12:00", "12:01", "12:02"])]
    #[case(Overlap::Skip, true, 0, &["12:00 overlaps", "12:01 overlaps", "12:02 overlaps"])]
    #[case(Overlap::Skip, false, 0, &["12:00", "12:01 overlaps", "12:02 overlaps"])]
    #[case(Overlap::Queue, true, 0, &["12:00 waits", "12:01 waits", "12:02 waits"])]
    #[case(Overlap::Queue, false, 0, &["12:00", "12:01 waits", "12:02 waits"])]
    #[case(Overlap::Queue, false, 1, &["12:00 waits", "12:01 waits", "12:02 waits"])]
    #[case(Overlap::Queue, true, 999, &["12:00 waits", "12:01 is too much", "12:02 is too much"])]
    fn times_overlap_by_the_rule(#[case] overlap: Overlap, #[case] busy: bool, #[case] waiting: usize, #[case] times: &[&str]) {
        let seen = Seen { busy, waiting, latest: None };
        let found = decided(&each_minute(CatchUp::All, overlap), seen, "12:02:20");
        assert_eq!(found.0, times.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn of_too_many_missed_times_the_latest_are_made_up_for() {
        let mut schedule = each_minute(CatchUp::All, Overlap::Allow);
        schedule.timetable = Timetable::parse("* * * * * *", "UTC").unwrap();
        let plan = plan(&schedule, Seen::default(), at("20:00:00")).unwrap();
        let submitted = plan.times.iter().filter(|(_, decision)| *decision == Decision::Submit);
        // The last ten seconds and the present one were not missed.
        assert_eq!(submitted.count(), MOST_MADE_UP + 11);
        assert_eq!(plan.times[0], (at("19:43:09"), Decision::Skip(Skip::Missed)));
        assert!(plan.times.is_sorted_by(|(a, _), (b, _)| b.since(*a) == Duration::from_secs(1)));
        assert_eq!(plan.next_at, Some(at("20:00:01")));
    }

    #[test]
    fn years_without_a_server_take_no_time_to_look_through() {
        let mut schedule = each_minute(CatchUp::All, Overlap::Skip);
        schedule.timetable = Timetable::parse("* * * * * *", "Europe/Paris").unwrap();
        let now = at("00:00:00").after(Duration::from_secs(30 * 365 * 86_400));
        let started = std::time::Instant::now();
        assert!(plan(&schedule, Seen::default(), now).unwrap().times.len() <= MOST_MADE_UP + 12);
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[rstest]
    #[case::a_little_back("11:30:00", "unchanged")]
    #[case::three_hours_back("08:59:00", "unchanged")]
    #[case::a_correction("08:58:59", "08:59")]
    fn a_clock_that_is_set_back_makes_nothing_due_twice_unless_it_was_wrong(#[case] now: &str, #[case] next: &str) {
        let seen = Seen { latest: Some(at("11:59:00")), ..Seen::default() };
        assert_eq!(decided(&each_minute(CatchUp::All, Overlap::Allow), seen, now), (Vec::new(), next.to_owned()));
    }

    #[test]
    fn a_new_schedule_that_is_due_in_a_year_is_no_correction() {
        let mut schedule = each_minute(CatchUp::All, Overlap::Allow);
        schedule.next_at = Some(at("12:00:00").after(Duration::from_secs(365 * 86_400)));
        assert_eq!(plan(&schedule, Seen::default(), at("12:00:00")), None);
    }

    #[test]
    fn a_fixed_time_that_spring_leaves_out_is_decided_upon() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut schedule = each_minute(CatchUp::All, Overlap::Allow);
        schedule.timetable = Timetable::parse("30 2 * * *", "Europe/Paris").unwrap();
        schedule.next_at = schedule.timetable.from(at("2027-03-28T00:59:50Z")).next();
        let plan = plan(&schedule, Seen::default(), at("2027-03-28T01:00:00.1Z")).unwrap();
        assert_eq!(plan.times, [(at("2027-03-28T01:00:00Z"), Decision::Submit)]);
        assert_eq!(plan.next_at, Some(at("2027-03-29T00:30:00Z")));
    }

    #[test]
    fn a_clock_that_leaps_ahead_misses_what_lies_between() {
        let schedule = each_minute(CatchUp::Once, Overlap::Allow);
        assert_eq!(decided(&schedule, Seen::default(), "17:30:30"), (vec!["17:30".into()], "17:31".into()));
    }

    #[test]
    fn each_time_is_decided_upon_once_however_the_clock_walks() {
        let mut schedule = each_minute(CatchUp::All, Overlap::Allow);
        let (mut seen, mut times) = (Seen::default(), Vec::new());
        for now in ["11:59:00", "12:00:30", "11:58:00", "12:00:10", "12:01:00", "14:00:00", "12:30:00", "14:00:59", "14:01:00"] {
            if let Some(plan) = plan(&schedule, seen, at(now)) {
                seen.latest = plan.times.last().map(|(at, _)| *at).or(seen.latest);
                times.extend(plan.times.into_iter().map(|(at, _)| at));
                schedule.next_at = plan.next_at;
            }
        }
        assert_eq!(times.len(), 122);
        assert!(times.is_sorted_by(|a, b| a < b));
    }
}
