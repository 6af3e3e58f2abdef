//! How late an event loop comes back to work: it slept, something woke it, and there was no core for it.

use std::cell::Cell;
use std::time::Duration;

use super::Usage;
use super::run_delay::new_run_delay;

thread_local! {
    static SLEEP: Cell<Sleep> = const { Cell::new(Sleep::Awake) };
}

/// What a thread of an event loop is doing.
#[derive(Clone, Copy)]
enum Sleep {
    /// It works.
    Awake,
    /// It waits for something to happen.
    Asleep,
    /// It came back so late.
    Late(Duration),
}

/// For a runtime to call when the calling thread is about to wait for something to happen.
pub fn falls_asleep() {
    new_run_delay();
    Usage::falls_asleep();
    SLEEP.set(Sleep::Asleep);
}

/// For a runtime to call when the calling thread goes on with its tasks.
pub fn is_awake() {
    SLEEP.set(Sleep::Awake);
}

/// How late the calling thread was, if it wakes its tasks because something has happened while it slept: so long it had no core.
pub(super) fn lateness() -> Duration {
    match SLEEP.get() {
        Sleep::Awake => Duration::ZERO,
        Sleep::Late(late) => late,
        Sleep::Asleep => {
            let late = new_run_delay();
            SLEEP.set(Sleep::Late(late));
            late
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_thread_that_slept_is_late() {
        assert_eq!(lateness(), Duration::ZERO);
        falls_asleep();
        let late = lateness();
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(lateness(), late, "what comes later is not of that sleep");
        is_awake();
        assert_eq!(lateness(), Duration::ZERO);
    }
}
