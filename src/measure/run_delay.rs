//! How long a thread had something to do and no core to do it on.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

thread_local! {
    /// Open as long as the thread lives: opening it costs ten times as much as reading it.
    static SCHEDSTAT: Option<File> = File::open("/proc/thread-self/schedstat").ok();
    /// What was read last by [`new_run_delay`].
    static LATEST: Cell<Option<Duration>> = const { Cell::new(None) };
    /// How long work has waited for its turn.
    static IN_TURN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long the calling thread has been ready to run without running, since it started; `None` where the kernel does not tell.
///
/// It is the second figure of `/proc/PID/schedstat`, in nanoseconds, and is kept exactly. Reading it takes about a microsecond. What
/// [`waited_for_turn`] was told of is added.
pub fn run_delay() -> Option<Duration> {
    SCHEDSTAT.try_with(|file| read(file.as_ref()?)).ok().flatten().map(|delay| delay + IN_TURN.get())
}

/// The work of the calling thread slept for so long until it was its turn to compute: it waited for a core, though not in the kernel's line.
pub fn waited_for_turn(time: Duration) {
    IN_TURN.set(IN_TURN.get() + time);
}

/// How long the calling thread has been ready to run without running since this was asked the last time: on an event loop since the
/// latest poll that something kept from running, or since it last woke up.
pub(super) fn new_run_delay() -> Duration {
    let Some(now) = run_delay() else { return Duration::ZERO };
    now.saturating_sub(LATEST.replace(Some(now)).unwrap_or(now))
}

fn read(file: &File) -> Option<Duration> {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0).ok()?;
    delay_in(std::str::from_utf8(&text[..length]).ok()?)
}

/// How long a thread has been ready to run without running, as its `schedstat` says.
pub(super) fn delay_in(text: &str) -> Option<Duration> {
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_thread_among_too_many_waits_for_a_core() {
        let over = AtomicBool::new(false);
        let waited = std::thread::scope(|scope| {
            for _ in 0..2 * std::thread::available_parallelism().unwrap().get() {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let before = run_delay().unwrap();
            // Until it has happened: how soon, is the scheduler's affair.
            while run_delay().unwrap() == before {
                std::hint::spin_loop();
            }
            over.store(true, Ordering::Relaxed);
            run_delay().unwrap().saturating_sub(before)
        });
        assert!(waited > Duration::ZERO);
    }

    #[test]
    fn a_wait_for_its_turn_is_one_for_a_core() {
        let before = run_delay().unwrap();
        waited_for_turn(Duration::from_hours(1));
        assert!(run_delay().unwrap().saturating_sub(before) >= Duration::from_hours(1));
    }
}
