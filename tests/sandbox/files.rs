//! What can be read and written.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use trine::sandbox::Mode;

use crate::bench::{Bench, landlock};

#[tokio::test]
async fn the_scratch_folder_is_the_working_folder_and_can_be_written() {
    let bench = Bench::new();
    let script = r"
import pathlib, shutil, tempfile
pathlib.Path('touched').touch()
pathlib.Path('touched').touch()
os.makedirs('a/b')
open('a/b/file', 'w').write('text')
shutil.copy2('a/b/file', 'copy')
os.rename('a/b/file', 'file')
os.remove('copy')
with tempfile.NamedTemporaryFile() as file:
    inside = os.path.dirname(file.name) == os.getcwd()
tell([inside, open('file').read(), sorted(os.listdir())])";
    assert_eq!(bench.answer(script).await, json!([true, "text", ["a", "file", "touched"]]));
    assert_eq!(std::fs::read_to_string(bench.scratch.path().join("file")).unwrap(), "text");
}

/// What changes modes, owners or times of files on the way does not fail, though they stay as they are.
#[tokio::test]
async fn pythons_own_library_can_be_used_on_files_there() {
    let bench = Bench::new();
    let script = r"
import pathlib, shutil, sqlite3, tarfile, tempfile, zipfile
os.makedirs('tree/inner')
open('tree/inner/file', 'w').write('text')
os.chmod('tree', 0o755)
with open('tree/inner/file') as file:
    os.fchmod(file.fileno(), 0o644)
    os.utime(file.fileno(), (1, 1))
    os.fchown(file.fileno(), os.getuid(), os.getgid())
shutil.copy2('tree/inner/file', 'copy')
shutil.copytree('tree', 'tree2')
shutil.move('copy', 'tree2/moved')
pathlib.Path('tree2/moved').touch()
with zipfile.ZipFile('zip', 'w') as archive:
    archive.write('tree/inner/file')
zipfile.ZipFile('zip').extractall('unzipped')
with tarfile.open('tar', 'w') as archive:
    archive.add('tree')
with tarfile.open('tar') as archive:
    archive.extractall('untarred')
with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder), tempfile.TemporaryFile():
    shutil.make_archive(os.path.join(folder, 'made'), 'gztar', 'tree')
with sqlite3.connect('database') as database:
    database.execute('CREATE TABLE t (n)')
found = ['tree2/inner/file', 'tree2/moved', 'unzipped/tree/inner/file', 'untarred/tree/inner/file']
tell([open(path).read() for path in found])";
    assert_eq!(bench.answer(script).await, json!(["text", "text", "text", "text"]));
}

#[tokio::test]
async fn the_servers_files_can_be_neither_read_nor_changed() {
    if !landlock(1) {
        return;
    }
    let bench = Bench::new();
    let database = bench.folder.path().join("trine.db");
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o640)).unwrap();
    let script = r"
path = sys.argv[1] if len(sys.argv) > 1 else PATH
folder = os.path.dirname(path)
tell([
    attempt(open, path),
    attempt(open, path, 'a'),
    attempt(os.truncate, path, 0),
    attempt(os.remove, path),
    attempt(os.rename, path, 'mine'),
    attempt(os.link, path, 'mine'),
    attempt(os.listdir, folder),
    attempt(open, os.path.join(folder, 'new'), 'w'),
    attempt(os.mkdir, os.path.join(folder, 'scratch', 'new')),
    attempt(os.chown, path, 0, 0),
    attempt(os.setxattr, path, 'user.a', b'b'),
    attempt(os.chmod, path, 0o777),
    attempt(os.utime, path, (0, 0)),
    attempt(os.utime, path),
])";
    let before = std::fs::metadata(&database).unwrap();
    let tried = bench.answer(&script.replace("PATH", &json!(database).to_string())).await;
    let refused = tried.as_array().unwrap();
    assert!(refused[..9].iter().all(|error| error == "EACCES" || error == "EPERM" || error == "EXDEV"), "{tried}");
    // Those that say nothing do nothing.
    assert_eq!(refused[9..], [json!("EPERM"), json!("EPERM"), json!(null), json!(null), json!("EPERM")]);
    let after = std::fs::metadata(&database).unwrap();
    assert_eq!((after.permissions(), after.modified().unwrap()), (before.permissions(), before.modified().unwrap()));
    assert_eq!(std::fs::read_to_string(database).unwrap(), "the server's");
}

#[tokio::test]
async fn what_can_be_read_keeps_its_mode_its_owner_and_its_times() {
    if !landlock(1) {
        return;
    }
    let mut bench = Bench::new();
    let library = bench.folder.path().join("library");
    std::fs::create_dir(&library).unwrap();
    let file = library.join("file");
    std::fs::write(&file, "x").unwrap();
    bench.policy.read.push(library.clone());
    let script = r"
import fcntl, shutil, struct
path = PATH
def changed(file):
    return [
        attempt(os.fchmod, file, 0o4777),
        attempt(os.fchown, file, 1, 1),
        attempt(os.utime, file, (0, 0)),
        attempt(os.utime, file),
        attempt(os.setxattr, file, 'user.a', b'b'),
        attempt(os.removexattr, file, 'user.a'),
        attempt(fcntl.ioctl, file, 0x40086602, struct.pack('l', 0x80)),
        attempt(fcntl.ioctl, file, 0x401c5820, bytes(28)),
        attempt(fcntl.ioctl, file, 0x40806685, bytes(128)),
    ]
tell([changed(os.open(path, os.O_RDONLY)), changed(os.open(os.path.dirname(path), os.O_RDONLY)), attempt(shutil.copy2, path, 'copy')])";
    let before = [&file, &library].map(|path| std::fs::metadata(path).unwrap());
    let tried = bench.answer(&script.replace("PATH", &json!(file).to_string())).await;
    let each = json!([null, null, null, null, "EPERM", "EPERM", "EPERM", "EPERM", "EPERM"]);
    assert_eq!(tried, json!([each, each, "copy"]));
    for (path, before) in [&file, &library].into_iter().zip(before) {
        let after = std::fs::metadata(path).unwrap();
        assert_eq!((after.permissions(), after.modified().unwrap()), (before.permissions(), before.modified().unwrap()));
    }
}

#[tokio::test]
async fn other_processes_and_the_users_files_can_not_be_read() {
    if !landlock(1) {
        return;
    }
    let bench = Bench::new();
    let script = r"
parent = f'/proc/{os.getppid()}/'
tell([attempt(open, path) for path in (parent + 'environ', parent + 'mem', parent + 'cmdline', '/etc/passwd', '/etc/shadow')])";
    let tried = bench.answer(script).await;
    assert!(tried.as_array().unwrap().iter().all(|error| error == "EACCES"), "{tried}");
}

#[tokio::test]
async fn nothing_in_the_scratch_folder_can_be_executed() {
    if !landlock(1) {
        return;
    }
    let mut bench = Bench::new();
    bench.policy.limits.processes = 4;
    let script = r"
import shutil, subprocess
# To change the mode of a file does nothing; that of a new one is its own.
os.close(os.open('program', os.O_CREAT | os.O_WRONLY, 0o700))
shutil.copyfile(os.path.realpath('/bin/true'), 'program')
tell([attempt(subprocess.call, ['./program']), subprocess.call(['/bin/true'])])";
    assert_eq!(bench.answer(script).await, json!(["EACCES", 0]));
}

#[tokio::test]
async fn a_folder_that_is_not_listed_shows_what_is_asked_for_by_name() {
    if !landlock(1) {
        return;
    }
    let mut bench = Bench::new();
    let unlisted = bench.folder.path().join("unlisted");
    std::fs::create_dir_all(unlisted.join("inner")).unwrap();
    std::fs::write(unlisted.join("inner/file"), "text").unwrap();
    bench.policy.unlisted.push(unlisted.clone());
    let script = r"
path = PATH
read = attempt(lambda: open(path + '/inner/file').read())
tell([read, attempt(os.listdir, path), attempt(os.listdir, path + '/inner'), attempt(open, path + '/file', 'w')])";
    let tried = bench.answer(&script.replace("PATH", &json!(unlisted).to_string())).await;
    assert_eq!(tried, json!(["text", "EACCES", "EACCES", "EACCES"]));
}

/// Whoever else opens the file would wait for it.
#[tokio::test]
async fn no_file_can_be_held_against_others() {
    let script = r"
import fcntl
open('mine', 'w').close()
of = [os.open(path, os.O_RDONLY) for path in ('/bin/true', 'mine')]
tell([attempt(fcntl.fcntl, file, fcntl.F_SETLEASE, kind) for file in of for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK)])";
    assert_eq!(Bench::new().answer(script).await, json!(["EPERM", "EPERM", "EPERM", "EPERM"]));
}

#[tokio::test]
async fn what_the_host_measures_can_be_read() {
    let bench = Bench::new();
    let script = r"
open('/proc/self/clear_refs', 'w').write('5')
tell(['VmHWM' in open('/proc/self/status').read(), open('/dev/null').read(), len(open('/dev/urandom', 'rb').read(4))])";
    assert_eq!(bench.answer(script).await, json!([true, "", 4]));
}

/// The kernel would forget them, and the rules about them, when it is short of memory.
#[tokio::test]
async fn what_can_be_read_of_the_kernel_is_held_as_long_as_the_program_runs() {
    let bench = Bench::new();
    let group = bench.start("import signal; signal.pause()");
    let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let held: Vec<_> = files.filter_map(|file| std::fs::read_link(file.path()).ok()).collect();
    let own = format!("/proc/{}", group.id());
    for path in ["/proc/meminfo", "/proc/cpuinfo", &own, &format!("{own}/clear_refs")] {
        assert!(held.contains(&path.into()), "{path}: {held:?}");
    }
}

#[tokio::test]
async fn the_environment_is_that_of_the_policy() {
    let bench = Bench::new();
    let environment = bench.answer("tell({**os.environ, 'LC_CTYPE': None})").await;
    assert_eq!(environment, json!({"NAME": "value", "TMPDIR": bench.scratch.path(), "LC_CTYPE": null}));
}

#[tokio::test]
async fn no_file_of_the_server_is_left_open() {
    let bench = Bench::new();
    // One that is not marked to be closed, as those are that a server was started with.
    let (read, _write) = nix_pipe();
    let open =
        bench.answer("tell([int(fd) for fd in os.listdir('/proc/self/fd') if attempt(os.fstat, int(fd)) != 'EBADF'])").await;
    assert_eq!(open, json!([0, 1, 2]), "{read}");
}

fn nix_pipe() -> (i32, std::os::fd::OwnedFd) {
    use std::os::fd::{AsRawFd, IntoRawFd};
    let (read, write) = nix::unistd::pipe().unwrap();
    let read = read.into_raw_fd();
    assert_ne!(read, write.as_raw_fd());
    (read, write)
}

#[tokio::test]
async fn off_leaves_files_alone() {
    let bench = Bench::with(Mode::Off);
    let database = bench.folder.path().join("trine.db");
    let script = format!("tell([open({}).read(), os.getpgrp() == os.getpid()])", json!(database));
    assert_eq!(bench.answer(&script).await, json!(["the server's", true]));
}
