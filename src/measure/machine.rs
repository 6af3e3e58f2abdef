//! What the whole machine is busy with, and what single processes have of it.

use std::fs;

/// What all cores have done since the machine started, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// How many cores there are.
    pub cores: u32,
    /// All of them.
    pub all: u64,
    /// Those that programs used.
    pub busy: u64,
    /// Those that a hypervisor kept for others.
    pub stolen: u64,
}

/// A tick in microseconds, as the kernel counts them for programs on every architecture (`USER_HZ`).
const TICK_US: u64 = 10_000;

impl Ticks {
    /// Until now: the first line of `/proc/stat` (`proc_stat(5)`). `None` where there is no such thing.
    pub fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The part of the time since then that a hypervisor kept for others.
    #[expect(clippy::cast_precision_loss, reason = "ticks stay far below 2^53")]
    pub fn stolen_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all);
        if all == 0 { 0.0 } else { self.stolen.saturating_sub(earlier.stolen) as f64 / all as f64 }
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let figures: Vec<u64> = line.split_whitespace().map_while(|figure| figure.parse().ok()).collect();
        let [user, nice, system, idle, waiting, interrupts, soft, stolen, ..] = figures[..] else { return None };
        let busy = user + nice + system + interrupts + soft;
        let is_core =
            |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
        let cores = u32::try_from(text.lines().filter(is_core).count()).unwrap_or(u32::MAX);
        Some(Self { cores, all: busy + idle + waiting + stolen, busy, stolen })
    }
}

/// The CPU time that a process, its threads and the children that it has waited for have used, in microseconds, to a hundredth of a second.
pub fn used_us(pid: u32) -> Option<u64> {
    let ticks: Vec<u64> = fields(pid)?.skip(11).take(4).map_while(|figure| figure.parse().ok()).collect();
    (ticks.len() == 4).then(|| ticks.iter().sum::<u64>() * TICK_US)
}

/// The processes that this one has started, and those that they have, which still are there.
pub fn descendants(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: Vec<(u32, u32)> = processes
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let parent = fields(pid)?.nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(all.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// What `/proc` says of a process behind its name, which may hold anything: its state, its parent, and so on (`proc_pid_stat(5)`).
fn fields(pid: u32) -> Option<impl Iterator<Item = String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<String> = text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
    Some(fields.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Usage;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn the_machine_and_this_process_are_seen() {
        let ticks = Ticks::parse("cpu  10 1 5 100 4 0 1 2 0 0\ncpu0 …").unwrap();
        assert_eq!(ticks, Ticks { cores: 1, all: 123, busy: 17, stolen: 2 });
        assert!(Ticks::now().unwrap().all > 0 && Ticks::parse("intr 1").is_none());
    }

    #[test]
    fn what_children_used_is_their_parents_once_it_has_waited_for_them() {
        let burns = "i=0; while [ $i -lt 500000 ]; do i=$((i + 1)); done";
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", "sh -c \"$0\"; echo; read rest", burns]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        assert!(descendants(std::process::id()).contains(&shell.id()));
        // The shell itself has done nothing but start another.
        assert!(used_us(shell.id()).unwrap() > 3 * TICK_US);
        drop(shell.stdin.take());
        let before = Usage::of_children();
        shell.wait().unwrap();
        let waited_for = Usage::of_children() - before;
        assert!(waited_for.cpu_user_us + waited_for.cpu_system_us > 3 * TICK_US);
    }
}
