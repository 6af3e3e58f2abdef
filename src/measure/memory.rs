//! The peak of a process's resident memory, counted afresh for each attempt.

use std::fs;

/// Lowers the recorded peak to what is resident now (`proc_pid_clear_refs(5)`, value 5). Whether that worked.
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The peak since the last reset, in bytes: `VmHWM` of `proc_pid_status(5)`.
pub fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
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
