//! The peak of a process's resident memory, counted afresh for each attempt.

use std::fs;

/// Lowers the recorded peak to what is resident now (`proc_pid_clear_refs(5)`, value 5). Whether that worked.
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The peak since the last reset, in bytes: `VmHWM` of `proc_pid_status(5)`.
pub fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    kib(&status, "VmHWM:")
}

/// What is resident of this process now, in bytes.
pub fn resident_bytes() -> Option<u64> {
    kib(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
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
    fn the_peak_comes_down_after_a_reset() {
        let large = vec![1_u8; 64 << 20];
        assert!(peak_bytes().unwrap() > 64 << 20, "{}", large.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        drop(large);
        assert!(reset_peak());
    }
}
