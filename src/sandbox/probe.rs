//! What the kernel gives.

use nix::libc;
use nix::sys::prctl;
use serde::Serialize;

use super::calls;

/// What the kernel can confine programs with, and what can't be had of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = SandboxReport)]
pub struct Report {
    /// The version of Landlock's interface, which keeps programs to their files; 0 without Landlock.
    pub landlock_abi: u32,
    /// Whether Landlock keeps signals within the sandbox. Without it, a program can signal itself but not what it starts.
    pub signal_scope: bool,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// Whether programs can be kept from gaining rights, as by setuid.
    pub no_new_privs: bool,
    /// A sentence for each protection that is missing.
    pub missing: Vec<String>,
}

/// Asks the kernel.
pub fn probe() -> Report {
    let landlock_abi = landlock_abi();
    let seccomp = calls::ARCHITECTURE.is_some() && seccomp_filters();
    let no_new_privs = prctl::get_no_new_privs().is_ok();
    let sentences = [
        (
            landlock_abi > 0,
            "Landlock is missing (Linux 5.13 or newer, with `landlock` among its security modules): sandboxed programs can read and \
             write every file that the server can",
        ),
        (
            seccomp,
            "seccomp filters are missing (a kernel built with them, on x86_64 or aarch64): sandboxed programs can reach the network, \
             start processes and signal the server",
        ),
        (no_new_privs, "no_new_privs is missing (Linux 3.5 or newer): sandboxed programs can gain rights by setuid programs"),
    ];
    let missing = sentences.into_iter().filter(|(there, _)| !there).map(|(_, sentence)| sentence.to_owned()).collect();
    Report { landlock_abi, signal_scope: landlock_abi >= 6, seccomp, no_new_privs, missing }
}

#[expect(unsafe_code, reason = "no crate tells the version without making a ruleset")]
fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    let (no_attributes, no_size) = (std::ptr::null::<libc::c_void>(), 0_usize);
    // SAFETY: with this flag the kernel takes no attributes, and returns a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, no_size, LANDLOCK_CREATE_RULESET_VERSION) };
    u32::try_from(version).unwrap_or(0)
}

#[expect(unsafe_code, reason = "no crate asks whether filters are there")]
fn seccomp_filters() -> bool {
    let (action, no_flags) = (libc::SECCOMP_RET_ERRNO, 0_u32);
    // SAFETY: the kernel reads one number, which lives until the call returns.
    unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, no_flags, &raw const action) == 0 }
}
