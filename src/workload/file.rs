//! `file`: reads, digests, counts or copies a file in the workspace.

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::content::text_or_base64;
use super::workspace::{Workspace, for_each_chunk};
use super::{Context, Environment, Invalid, Likeness, Pace, Work, Workload};
use crate::job::{Bound, Failure, Form};

const MAX_READ_BYTES: u64 = 8 << 20;

/// What to do with which file.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The file, relative to the workspace folder.
    #[schema(min_length = 1, example = "notes/today.txt")]
    path: String,
    #[schema(inline)]
    op: Op,
    /// For `copy`: where to, relative to the workspace folder. Missing folders are created, an older file is replaced.
    #[schema(min_length = 1)]
    to: Option<String>,
    /// For `read`: the longest file that is accepted, in bytes. 8 MiB if it is not given.
    #[schema(maximum = 8_388_608)]
    max_bytes: Option<u64>,
}

/// What to do with it. `read` returns the content: text, or base64 if it is not UTF-8. `digest` returns its SHA-256. `count_lines` counts its lines,
/// the last one also if no newline ends it. `copy` copies it.
#[derive(Clone, Copy, Deserialize, PartialEq, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Op {
    Read,
    Digest,
    CountLines,
    Copy,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Done {
    Read {
        bytes: u64,
        text: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        encoding: Option<&'static str>,
    },
    Digest {
        bytes: u64,
        sha256: String,
    },
    CountLines {
        bytes: u64,
        lines: u64,
    },
    Copy {
        bytes: u64,
    },
}

impl Workload for File {
    const TYPE: &'static str = "file";
    const ABOUT: &'static str = "Reads, digests, counts the lines of or copies a file in the workspace folder.";
    const BOUND: Bound = Bound::Io;
    const FORM: Form = Form::Blocking;

    fn example() -> serde_json::Value {
        json!({ "path": "notes.txt", "op": "count_lines" })
    }

    fn check(&self, _environment: &Environment) -> Result<(), Invalid> {
        Workspace::check(&self.path).map_err(|message| Invalid::new("/path", message))?;
        match (self.op, &self.to) {
            (Op::Copy, None) => return Err(Invalid::new("/to", "`copy` needs to know where to")),
            (Op::Copy, Some(to)) => Workspace::check(to).map_err(|message| Invalid::new("/to", message))?,
            (_, Some(_)) => return Err(Invalid::new("/to", "only `copy` takes it")),
            (_, None) => {}
        }
        match self.max_bytes {
            Some(_) if self.op != Op::Read => Err(Invalid::new("/max_bytes", "only `read` takes it")),
            Some(bytes) if bytes > MAX_READ_BYTES => Err(Invalid::new("/max_bytes", format!("at most {MAX_READ_BYTES}"))),
            _ => Ok(()),
        }
    }

    fn likeness(&self) -> Likeness {
        let op = match self.op {
            Op::Read => "read",
            Op::Digest => "digest",
            Op::CountLines => "count_lines",
            Op::Copy => "copy",
        };
        Likeness::of(Self::TYPE).name(op)
    }

    fn work(self, context: Context) -> Work {
        Work::blocking(move || self.run(&context))
    }
}

impl File {
    fn run(&self, context: &Context) -> Result<Done, Failure> {
        let Context { environment, stop, .. } = context;
        let file = environment.workspace.file(&self.path)?;
        let mut progress = Progress::of(context, &file);
        match self.op {
            Op::Read => {
                let limit = self.max_bytes.unwrap_or(MAX_READ_BYTES);
                let mut read = Vec::new();
                let bytes = for_each_chunk(file, stop, |chunk| {
                    read.extend_from_slice(chunk);
                    if read.len() as u64 > limit {
                        return Err(Failure::error(format!("{:?} is longer than {limit} bytes", self.path)));
                    }
                    Ok(())
                })?;
                let (text, encoding) = text_or_base64(read);
                Ok(Done::Read { bytes, text, encoding })
            }
            Op::Digest => {
                let mut digest = Sha256::new();
                let bytes = for_each_chunk(file, stop, |chunk| {
                    digest.update(chunk);
                    progress.add(chunk);
                    Ok(())
                })?;
                Ok(Done::Digest { bytes, sha256: format!("{:x}", digest.finalize()) })
            }
            Op::CountLines => {
                let (mut newlines, mut last) = (0, None);
                let bytes = for_each_chunk(file, stop, |chunk| {
                    newlines += memchr::memchr_iter(b'\n', chunk).count() as u64;
                    last = chunk.last().copied();
                    progress.add(chunk);
                    Ok(())
                })?;
                let unended = u64::from(last.is_some_and(|last| last != b'\n'));
                Ok(Done::CountLines { bytes, lines: newlines + unended })
            }
            Op::Copy => {
                let to = self.to.as_deref().unwrap_or_default();
                let bytes = environment.workspace.write(to, |draft| {
                    for_each_chunk(file, stop, |chunk| {
                        progress.add(chunk);
                        draft.write_all(chunk).map_err(|error| Failure::error(format!("can't write {to:?}: {error}")))
                    })
                })?;
                Ok(Done::Copy { bytes })
            }
        }
    }
}

/// Tells how much of a file was read.
struct Progress<'a> {
    context: &'a Context,
    pace: Pace,
    bytes: u64,
    of: u64,
}

impl<'a> Progress<'a> {
    fn of(context: &'a Context, file: &cap_std::fs::File) -> Self {
        Self { context, pace: Pace::start(), bytes: 0, of: file.metadata().map_or(0, |metadata| metadata.len()) }
    }

    fn add(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        if self.pace.is_due() {
            self.context.progress(&json!({ "bytes": self.bytes, "of": self.of }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use serde_json::Value;

    use super::super::testing::Bench;
    use super::super::{Stop, StopReason};
    use super::*;

    /// A bench with these files in its workspace, and one outside of it.
    fn bench(files: &[(&str, &[u8])]) -> Bench {
        let bench = Bench::new();
        for (name, content) in files {
            std::fs::write(path(&bench, name), content).unwrap();
        }
        std::fs::write(bench.folder.path().join("outside.txt"), "secret").unwrap();
        bench
    }

    fn path(bench: &Bench, name: &str) -> PathBuf {
        bench.folder.path().join("workspace").join(name)
    }

    fn file(op: &str, path: &str) -> Value {
        json!({ "type": "file", "op": op, "path": path })
    }

    fn copy(from: &str, to: &str) -> Value {
        json!({ "type": "file", "op": "copy", "path": from, "to": to })
    }

    #[tokio::test]
    async fn reads_text_and_bytes() {
        let bench = bench(&[("a.txt", b"gr\xc3\xbc\xc3\x9fe\n"), ("b.bin", &[0xff, 0x00]), ("empty", b"")]);
        assert_eq!(bench.run(file("read", "a.txt")).await.unwrap(), json!({ "bytes": 8, "text": "grüße\n" }));
        assert_eq!(
            bench.run(file("read", "./b.bin")).await.unwrap(),
            json!({ "bytes": 2, "text": "/wA=", "encoding": "base64" })
        );
        assert_eq!(bench.run(file("read", "empty")).await.unwrap(), json!({ "bytes": 0, "text": "" }));
    }

    #[tokio::test]
    async fn reads_up_to_its_limit_only() {
        let bench = bench(&[("a.txt", b"12345")]);
        let limited = |limit: u64| json!({ "type": "file", "op": "read", "path": "a.txt", "max_bytes": limit });
        assert!(bench.run(limited(5)).await.is_ok());
        assert_eq!(bench.run(limited(4)).await.unwrap_err().message, "\"a.txt\" is longer than 4 bytes");
        std::fs::File::create(path(&bench, "big")).unwrap().set_len(MAX_READ_BYTES + 1).unwrap();
        assert!(bench.run(file("read", "big")).await.unwrap_err().message.contains("longer than 8388608 bytes"));
    }

    #[tokio::test]
    async fn digests_are_known() {
        let bench = bench(&[("abc", b"abc"), ("empty", b"")]);
        let known = [
            ("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("empty", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ];
        for (name, bytes, sha256) in known {
            assert_eq!(bench.run(file("digest", name)).await.unwrap(), json!({ "bytes": bytes, "sha256": sha256 }));
        }
        // Longer than several chunks: a million times the letter a, a test vector of FIPS 180.
        std::fs::write(path(&bench, "million"), vec![b'a'; 1_000_000]).unwrap();
        assert_eq!(
            bench.run(file("digest", "million")).await.unwrap()["sha256"],
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    #[tokio::test]
    async fn counts_lines() {
        let long = b"line\n".repeat(100_000);
        let contents: [(&str, &[u8], u64); 6] = [
            ("empty", b"", 0),
            ("bare", b"a", 1),
            ("one", b"a\n", 1),
            ("two", b"a\nb", 2),
            ("blank", b"\n\n", 2),
            ("long", &long, 100_000),
        ];
        let bench = bench(&contents.map(|(name, content, _)| (name, content)));
        for (name, content, lines) in contents {
            let output = bench.run(file("count_lines", name)).await.unwrap();
            assert_eq!(output, json!({ "bytes": content.len(), "lines": lines }), "{name}");
        }
    }

    #[tokio::test]
    async fn copies_and_replaces() {
        let bench = bench(&[("a.txt", b"new"), ("old.txt", b"something old")]);
        for to in ["old.txt", "deep/er/copy.txt", "a.txt"] {
            assert_eq!(bench.run(copy("a.txt", to)).await.unwrap(), json!({ "bytes": 3 }), "{to}");
            assert_eq!(std::fs::read(path(&bench, to)).unwrap(), b"new", "{to}");
        }
        assert_eq!(std::fs::read_dir(path(&bench, "")).unwrap().count(), 3, "no draft is left");
    }

    #[test]
    fn paths_that_leave_are_refused_at_once() {
        let bench = bench(&[]);
        let paths =
            ["../outside.txt", "a/../../outside.txt", "..", "/etc/passwd", "//etc/passwd", "a/..", "", ".", "./", "a\0b", "/"];
        for path in paths {
            assert_eq!(bench.invalid(&file("read", path)).pointer, "/path", "{path:?}");
            assert_eq!(bench.invalid(&copy("a.txt", path)).pointer, "/to", "{path:?}");
        }
    }

    #[tokio::test]
    async fn links_that_leave_are_refused_by_the_kernel() {
        let bench = bench(&[("inside.txt", b"fine")]);
        let outside = bench.folder.path().join("outside.txt");
        symlink(&outside, path(&bench, "absolute")).unwrap();
        symlink("../outside.txt", path(&bench, "relative")).unwrap();
        symlink(bench.folder.path(), path(&bench, "folder")).unwrap();
        symlink("..", path(&bench, "parent")).unwrap();
        symlink("absolute", path(&bench, "twice")).unwrap();
        for link in ["absolute", "relative", "folder/outside.txt", "parent/outside.txt", "twice"] {
            for op in ["read", "digest", "count_lines"] {
                let failure = bench.run(file(op, link)).await.unwrap_err();
                assert!(failure.message.contains("outside"), "{link}: {failure}");
            }
        }
        for to in ["folder/new.txt", "parent/new.txt", "folder/deep/new.txt"] {
            assert!(bench.run(copy("inside.txt", to)).await.is_err(), "{to}");
        }
        assert!(!bench.folder.path().join("new.txt").exists() && !bench.folder.path().join("deep").exists());
        // A link in the place of the copy is itself replaced; what it pointed at stays.
        bench.run(copy("inside.txt", "absolute")).await.unwrap();
        assert_eq!(std::fs::read(outside).unwrap(), b"secret");
        // A link that stays inside is followed.
        symlink("inside.txt", path(&bench, "link")).unwrap();
        assert_eq!(bench.run(file("read", "link")).await.unwrap()["text"], "fine");
    }

    #[tokio::test]
    async fn what_is_no_file_fails_with_a_sentence() {
        let bench = bench(&[]);
        std::fs::create_dir(path(&bench, "folder")).unwrap();
        nix::unistd::mkfifo(&path(&bench, "pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["folder", "pipe"] {
            let failure = bench.run(file("read", name)).await.unwrap_err();
            assert_eq!(failure.message, format!("{name:?} in the workspace is not a file"));
        }
        let failure = bench.run(file("read", "missing")).await.unwrap_err();
        assert!(failure.message.starts_with("can't open \"missing\" in the workspace: No such file"), "{failure}");
    }

    #[tokio::test]
    async fn it_ends_when_asked_and_leaves_nothing() {
        let bench = bench(&[("a.txt", b"content")]);
        for workload in [file("digest", "a.txt"), file("count_lines", "a.txt"), file("read", "a.txt"), copy("a.txt", "b.txt")] {
            let stop = Stop::default();
            stop.stop(StopReason::Cancelled);
            assert_eq!(bench.run_until(workload, stop).await, Err(Failure::error("stopped")));
        }
        assert!(!path(&bench, "b.txt").exists());
    }

    #[test]
    fn parameters_must_fit_the_operation() {
        let bench = bench(&[]);
        let wrong = [
            (json!({ "type": "file", "op": "copy", "path": "a" }), "/to"),
            (json!({ "type": "file", "op": "read", "path": "a", "to": "b" }), "/to"),
            (json!({ "type": "file", "op": "digest", "path": "a", "max_bytes": 1 }), "/max_bytes"),
            (json!({ "type": "file", "op": "read", "path": "a", "max_bytes": MAX_READ_BYTES + 1 }), "/max_bytes"),
            (json!({ "type": "file", "op": "delete", "path": "a" }), "/op"),
            (json!({ "type": "file", "op": "read", "path": 1 }), "/path"),
            (json!({ "type": "file", "op": "read", "path": "a", "mode": "b" }), "/mode"),
        ];
        for (workload, pointer) in wrong {
            assert_eq!(bench.invalid(&workload).pointer, pointer, "{workload}");
        }
    }
}
