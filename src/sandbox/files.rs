//! Which files a program can open: by Landlock.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope,
};
use nix::unistd::Pid;

use super::Policy;

/// The newest interface whose rights are known here; on an older kernel those that it lacks are left out.
const KNOWN: ABI = ABI::V6;

/// What programs of any kind need to read: programs and libraries, the dynamic linker's cache, the time zone, certificates, and what
/// they ask to find out on what machine they are.
const SYSTEM: [&str; 22] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
];
/// What they need to look up names.
const NAMES: [&str; 8] = [
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/run/systemd/resolve",
];
/// Devices without anything behind them.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];

/// Confines this thread and all that it starts to the files of the policy.
pub(super) fn confine(policy: &Policy, program: &Path) -> Result<(), RulesetError> {
    let read = AccessFs::from_read(KNOWN);
    // Neither devices nor programs belong there.
    let write = AccessFs::from_all(KNOWN) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
    if !policy.network {
        ruleset = ruleset.handle_access(AccessNet::from_all(KNOWN))?;
    }
    let mut rules = ruleset.create()?;
    for path in SYSTEM {
        rules = allow(rules, path.as_ref(), read)?;
    }
    let names = NAMES.iter().filter(|_| policy.network).map(Path::new);
    for path in policy.unlisted.iter().map(AsRef::as_ref).chain(names) {
        rules = allow(rules, path, AccessFs::ReadFile.into())?;
    }
    for path in policy.read.iter().map(AsRef::as_ref).chain([program]) {
        rules = allow(rules, path, read)?;
    }
    for path in DEVICES {
        rules = allow(rules, path.as_ref(), AccessFs::ReadFile | AccessFs::WriteFile)?;
    }
    // Of the process that will be the program. What it starts has another folder there, which is not open to it.
    rules = allow(rules, "/proc/self".as_ref(), AccessFs::ReadFile | AccessFs::ReadDir)?;
    rules = allow(rules, "/proc/self/clear_refs".as_ref(), AccessFs::WriteFile | AccessFs::Truncate)?;
    rules = allow(rules, &policy.scratch, write)?;
    rules.restrict_self().map(drop)
}

/// Holds the files of `/proc` that are open to all.
pub(super) fn hold_system() -> Vec<PathFd> {
    SYSTEM.iter().filter(|path| path.starts_with("/proc/")).filter_map(hold).collect()
}

/// Holds those of a process that has not become the program yet, which are open to it alone.
pub(super) fn hold_own(process: Pid) -> Vec<PathFd> {
    [format!("/proc/{process}"), format!("/proc/{process}/clear_refs")].iter().filter_map(hold).collect()
}

/// Keeps what rules say of a file of `/proc` in force: a rule is about the file as the kernel has it in memory. When that is short it
/// forgets files that nobody holds, and those of `/proc` come back as others.
fn hold(path: impl AsRef<Path>) -> Option<PathFd> {
    PathFd::new(path).ok()
}

/// Whether every program can read this path, whatever its policy. It need not be there yet.
pub fn is_open_to_all(path: &Path) -> bool {
    SYSTEM.iter().any(|open| is_below(path, Path::new(open)))
}

/// Whether this path is in a folder, wherever links lead. It need not be there yet; the folder is.
pub fn is_below(path: &Path, folder: &Path) -> bool {
    let Ok(path) = std::path::absolute(path) else { return false };
    let there = path.ancestors().find_map(|there| there.canonicalize().ok());
    there.zip(folder.canonicalize().ok()).is_some_and(|(there, folder)| there.starts_with(folder))
}

/// Allows access to a path and what is below it, if it is there.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    // A file can't be listed; what does not apply to it is left out.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
    rules.add_rule(PathBeneath::new(opened, access))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_folders_are_open_to_all_and_no_others() {
        assert!(is_open_to_all("/usr/bin".as_ref()) && is_open_to_all("/usr/nowhere/data".as_ref()));
        assert!(!is_open_to_all("/".as_ref()) && !is_open_to_all(tempfile::tempdir().unwrap().path()));
    }
}
