use std::future::pending;
use std::os::unix::fs::PermissionsExt as _;

use rstest::rstest;

use super::*;

/// A place to keep them, and a folder in which a job may leave some.
struct Bench {
    folder: tempfile::TempDir,
    artifacts: Artifacts,
    job: JobId,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(&ArtifactPlace::Folder(folder.path().join("kept")), "store", 1_000).unwrap();
        std::fs::create_dir_all(folder.path().join("scratch/artifacts")).unwrap();
        Self { folder, artifacts, job: JobId::new() }
    }

    fn leave(&self, name: &str, content: &str) {
        let path = self.left(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn left(&self, name: &str) -> PathBuf {
        self.folder.path().join("scratch/artifacts").join(name)
    }

    async fn keep(&self) -> Result<(), ArtifactError> {
        self.keep_unless(pending::<()>()).await
    }

    async fn keep_unless(&self, stopped: impl Future<Output = ()>) -> Result<(), ArtifactError> {
        self.artifacts.keep(self.job, 1, &self.folder.path().join("scratch"), "artifacts", stopped).await
    }

    async fn names(&self) -> Vec<String> {
        self.artifacts.list(self.job, 1).await.unwrap().into_iter().map(|artifact| artifact.name).collect()
    }

    async fn read(&self, name: &str, part: Option<Part>) -> Option<String> {
        let content = self.artifacts.get(self.job, 1, name, part, None).await.unwrap()?;
        let chunks = content.stream.try_collect::<Vec<_>>().await.unwrap();
        Some(String::from_utf8(chunks.concat()).unwrap())
    }
}

#[tokio::test]
async fn what_is_left_is_kept_under_its_name_and_gone_with_its_job() {
    let bench = Bench::new();
    let names = ["#1", "C:", "a b.txt", "dir/deep/x%2F.csv", "dir/results:", "empty", "ünïcode~*?.txt"];
    for name in names {
        bench.leave(name, if name == "empty" { "" } else { name });
    }
    bench.keep().await.unwrap();
    assert_eq!(bench.names().await, names);
    for name in names {
        assert_eq!(bench.read(name, None).await.as_deref(), Some(if name == "empty" { "" } else { name }));
    }
    assert_eq!(bench.artifacts.list(bench.job, 2).await.unwrap(), []);
    let days = bench.artifacts.days().await.unwrap();
    assert_eq!(days, [day(bench.job)]);
    assert_eq!(bench.artifacts.jobs(days[0]).await.unwrap(), [bench.job]);
    bench.artifacts.remove(bench.job).await.unwrap();
    bench.artifacts.remove(bench.job).await.unwrap();
    assert_eq!(bench.names().await, [""; 0]);
    assert_eq!(bench.artifacts.days().await.unwrap(), []);
    let place = std::fs::metadata(bench.folder.path().join("kept/store")).unwrap();
    assert_eq!(place.permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn stores_that_share_a_place_have_nothing_to_do_with_each_other() {
    let bench = Bench::new();
    bench.leave("a", "a");
    bench.keep().await.unwrap();
    let other = Artifacts::open(&ArtifactPlace::Folder(bench.folder.path().join("kept")), "other", 1_000).unwrap();
    assert_eq!(other.days().await.unwrap(), []);
    other.remove(bench.job).await.unwrap();
    assert_eq!(bench.names().await, ["a"]);
}

#[rstest]
#[case(Part::From(2), Some("2345"))]
#[case(Part::Between(1, 3), Some("123"))]
#[case(Part::Between(4, 400), Some("45"))]
#[case(Part::Last(2), Some("45"))]
#[case(Part::Last(20), Some("012345"))]
#[case(Part::From(6), None)]
#[case(Part::Last(0), None)]
#[tokio::test]
async fn a_part_of_it_can_be_had(#[case] part: Part, #[case] expected: Option<&str>) {
    let bench = Bench::new();
    bench.leave("digits", "012345");
    bench.keep().await.unwrap();
    if expected.is_some() {
        assert_eq!(bench.read("digits", Some(part)).await.as_deref(), expected);
    } else {
        let refused = bench.artifacts.get(bench.job, 1, "digits", Some(part), None).await;
        assert!(matches!(refused, Err(ArtifactError::NoSuchPart(6))));
    }
}

#[tokio::test]
async fn no_name_leads_elsewhere() {
    let bench = Bench::new();
    bench.leave("mine", "mine");
    bench.keep().await.unwrap();
    let long = "x".repeat(300);
    for name in
        ["", "/", "../1/mine", "./mine", "mine/", "/mine", "mine/x", "nothing", "../../../../scratch/artifacts/mine", &long]
    {
        assert_eq!(bench.read(name, None).await, None, "{name}");
    }
}

#[tokio::test]
async fn a_link_out_of_the_folder_takes_nothing_along() {
    let bench = Bench::new();
    let secret = bench.folder.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, bench.left("link")).unwrap();
    std::os::unix::fs::symlink(bench.folder.path(), bench.left("folder")).unwrap();
    nix::unistd::mkfifo(&bench.left("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    bench.leave("file", "file");
    bench.keep().await.unwrap();
    assert_eq!(bench.names().await, ["file"]);

    // The folder itself is the job's to replace.
    std::fs::remove_dir_all(bench.left("")).unwrap();
    std::os::unix::fs::symlink(bench.folder.path(), bench.folder.path().join("scratch/artifacts")).unwrap();
    assert!(matches!(bench.keep().await, Err(ArtifactError::Unreadable(..))));
}

#[tokio::test]
async fn there_is_a_limit_to_their_length_and_number() {
    let bench = Bench::new();
    bench.leave("a", &"x".repeat(600));
    bench.leave("b", &"x".repeat(400));
    bench.keep().await.unwrap();
    bench.leave("c", "x");
    assert!(matches!(bench.keep().await, Err(ArtifactError::TooLong(1_000))));

    let bench = Bench::new();
    for n in 0..=collect::MOST {
        bench.leave(&n.to_string(), "");
    }
    assert!(matches!(bench.keep().await, Err(ArtifactError::TooMany(_))));

    let bench = Bench::new();
    bench.leave(&"x".repeat(key::LONGEST_PART + 1), "");
    assert!(matches!(bench.keep().await, Err(ArtifactError::Name(..))));
}

#[tokio::test]
async fn of_an_attempt_that_ran_twice_only_what_it_left_the_second_time_is_kept() {
    let bench = Bench::new();
    for name in ["first", "both", "dir/first"] {
        bench.leave(name, "1");
    }
    bench.keep().await.unwrap();
    std::fs::remove_dir_all(bench.left("")).unwrap();
    for name in ["both", "second"] {
        bench.leave(name, "2");
    }
    bench.keep().await.unwrap();
    assert_eq!(bench.names().await, ["both", "second"]);
    assert_eq!(bench.read("both", None).await.as_deref(), Some("2"));
    // Those of other attempts are theirs.
    bench.artifacts.keep(bench.job, 2, &bench.folder.path().join("scratch"), "artifacts", pending::<()>()).await.unwrap();
    std::fs::remove_dir_all(bench.left("")).unwrap();
    bench.keep().await.unwrap();
    assert_eq!(bench.names().await, [""; 0]);
    assert_eq!(bench.artifacts.list(bench.job, 2).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_a_crash_has_left_of_an_attempt_is_gone_before_it_runs_again() {
    let bench = Bench { job: "01997d3e-8c00-7000-8000-000000000000".parse().unwrap(), ..Bench::new() };
    bench.leave("first", "1");
    bench.keep().await.unwrap();
    bench.artifacts.make_way(bench.job, 2).await;
    assert_eq!(bench.names().await, ["first"]);
    bench.artifacts.make_way(bench.job, 1).await;
    assert_eq!(bench.names().await, [""; 0]);
    // Nothing is looked for of a job that came since.
    let bench = Bench { job: JobId::new(), ..bench };
    bench.keep().await.unwrap();
    bench.artifacts.make_way(bench.job, 1).await;
    assert_eq!(bench.names().await, ["first"]);
}

#[tokio::test]
async fn an_attempt_that_is_stopped_keeps_nothing() {
    let bench = Bench::new();
    bench.leave("a", "a");
    bench.keep().await.unwrap();
    assert!(matches!(bench.keep_unless(async {}).await, Err(ArtifactError::Stopped)));
    assert_eq!(bench.names().await, [""; 0]);
}

#[tokio::test]
async fn a_job_that_leaves_nothing_needs_no_folder() {
    let bench = Bench::new();
    std::fs::remove_dir(bench.left("")).unwrap();
    bench.keep_unless(async {}).await.unwrap();
    assert_eq!(bench.artifacts.days().await.unwrap(), []);
}
