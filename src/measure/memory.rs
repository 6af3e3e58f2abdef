//! The peak of a process's resident memory, counted afresh for each attempt.

use std::{fmt, fs};

/// Lowers the recorded peak to what is resident now (`proc_pid_clear_refs(5)`, value 5). Whether that worked.
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The peak since the last reset, in bytes: `VmHWM` of `proc_pid_status(5)`.
pub fn peak_bytes() -> Option<u64> {
    kib(&status("self")?, "VmHWM:")
}

/// What is resident of a process now, in bytes: of this one (`self`) or of that with this id.
pub fn resident_bytes(process: impl fmt::Display) -> Option<u64> {
    kib(&status(process)?, "VmRSS:")
}

/// What a process holds, in bytes: its own pages, and its proportional share of those that it shares with others
/// (`Pss` of `proc_pid_smaps_rollup(5)`).
pub fn proportional_bytes(pid: u32) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

fn status(process: impl fmt::Display) -> Option<String> {
    let text = fs::read(format!("/proc/{process}/status")).ok()?;
    // Its name may be anything, also no text.
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// How much memory there is for this process and what it starts: what its control group allows, or else all of the machine's.
pub fn machine_bytes() -> Option<u64> {
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|max| max.trim().parse().ok());
    let all = fs::read_to_string("/proc/meminfo").ok().and_then(|memory| kib(&memory, "MemTotal:"));
    group.into_iter().chain(all).min()
}

/// A figure of `/proc`, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_share_of_its_own() {
        assert!(proportional_bytes(std::process::id()).unwrap() > 1 << 20);
    }

    #[test]
    fn the_peak_comes_down_after_a_reset() {
        let large = vec![1_u8; 64 << 20];
        assert!(peak_bytes().unwrap() > 64 << 20, "{}", large.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        drop(large);
        assert!(reset_peak());
    }
}
