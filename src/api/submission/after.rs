//! What a submission says of other jobs: its name in its batch, and what it comes after.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{array, object};
use crate::api::problem::{Kind, Problem};
use crate::job::{After, JobId, OnFailure, Parent, Submission, parents_first};
use crate::workload::Invalid;

/// The longest name of a job in a batch.
const MAX_NAME: usize = 100;
/// The most jobs that one comes after, and that all of a batch come after.
const MAX_PARENTS: usize = 10_000;
const MAX_EDGES: usize = 50_000;

/// A job that this one comes after: by its id, or by its name in the same batch.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = After)]
pub(in crate::api) struct AfterFields<'a> {
    /// Its id.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = "uuid")]
    job: Option<JobId>,
    /// Its name in the same batch.
    #[serde(default, borrow)]
    #[schema(value_type = Option<String>)]
    name: Option<Cow<'a, str>>,
    /// What becomes of this job if that one does not succeed: fails, is cancelled or lost.
    #[serde(default)]
    #[schema(default = "cancel")]
    on_failure: OnFailure,
}

/// A submission whose names have not been looked up.
pub(in crate::api) struct Draft {
    pub(super) submission: Box<Submission>,
    pub(super) name: Option<String>,
    pub(super) after: Vec<Named>,
}

/// A job that another one comes after.
pub(super) struct Named {
    job: Result<JobId, String>,
    on_failure: OnFailure,
}

/// Reads the field `after`.
pub(super) fn parse(text: &RawValue) -> Result<Vec<Named>, Problem> {
    let elements: Vec<&RawValue> = array(text.get().as_bytes(), "/after")?;
    if elements.len() > MAX_PARENTS {
        return Err(Invalid::new("/after", format!("there may be {MAX_PARENTS} at most")).into());
    }
    let one = |(index, text): (usize, &&RawValue)| {
        let pointer = format!("/after/{index}");
        let AfterFields { job, name, on_failure } = object(text.get().as_bytes(), &pointer)?;
        let job = match (job, name) {
            (Some(job), None) => Ok(job),
            (None, Some(name)) => Err(name.into_owned()),
            _ => return Err(Invalid::new(pointer, "must have one of `job` and `name`").into()),
        };
        Ok(Named { job, on_failure })
    };
    elements.iter().enumerate().map(one).collect()
}

/// What a job is called in its batch.
pub(super) fn check_name(name: &str) -> Result<(), Invalid> {
    if (1..=MAX_NAME).contains(&name.chars().count()) && !name.contains('\0') {
        return Ok(());
    }
    Err(Invalid::new("/name", format!("must have 1 to {MAX_NAME} characters, and no NUL")))
}

impl Draft {
    /// A submission that is no part of a batch.
    pub(super) fn alone(self) -> Result<Box<Submission>, Problem> {
        if self.name.is_some() {
            return Err(Invalid::new("/name", "only jobs of a batch have names").into());
        }
        if self.after.is_empty() {
            return Ok(self.submission);
        }
        let alone = together(vec![Ok(self)]).pop();
        alone.unwrap_or_else(|| Err(Problem::internal("a submission was read and is not there")))
    }

    /// The submissions of a batch, or all that is wrong with it: where there is something, the others are looked at by `check` as well, as
    /// they would be later.
    pub(in crate::api) fn batch(
        drafts: Vec<Result<Self, Problem>>,
        check: impl Fn(Box<Submission>) -> Result<(), Invalid>,
    ) -> Result<Vec<Box<Submission>>, Problem> {
        if drafts.iter().flatten().map(|draft| draft.after.len()).sum::<usize>() > MAX_EDGES {
            let most = format!("all jobs of a batch together come after {MAX_EDGES} others at most");
            return Err(Problem::new(Kind::TooLarge, most));
        }
        let linked = together(drafts);
        if linked.iter().all(Result::is_ok) {
            return linked.into_iter().collect();
        }
        let checked = |linked: Result<_, Problem>| linked.and_then(|submission| check(submission).map_err(Problem::from));
        let wrong = |(index, linked)| checked(linked).err().map(|problem| problem.within(index));
        Err(Problem::all(linked.into_iter().enumerate().filter_map(wrong)))
    }
}

/// Looks up the names.
fn together(drafts: Vec<Result<Draft, Problem>>) -> Vec<Result<Box<Submission>, Problem>> {
    // A name that is not there may be that of a job that can't be read.
    let is_whole = drafts.iter().all(Result::is_ok);
    let mut names: HashMap<String, usize> = HashMap::new();
    let drafts: Vec<_> = drafts.into_iter().enumerate().map(|(index, draft)| named(draft?, index, &mut names)).collect();
    let mut graph = Vec::with_capacity(drafts.len());
    let mut linked = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.into_iter().enumerate() {
        let mut siblings = Vec::new();
        linked.push(draft.and_then(|draft| {
            let find = |name: &str| names.get(name).copied().or_else(|| (!is_whole).then_some(index));
            let submission = link(draft, find)?;
            siblings.extend(submission.after.iter().filter_map(|after| after.parent.sibling()));
            Ok(submission)
        }));
        graph.push(siblings);
    }
    if linked.iter().all(Result::is_ok)
        && let Err(way) = parents_first(&graph)
        && let Some(first) = way.first().and_then(|first| linked.get_mut(*first))
    {
        let name = |index: &usize| names.iter().find(|(_, at)| *at == index).map_or_else(String::new, |(name, _)| name.clone());
        let way: Vec<String> = way.iter().map(name).collect();
        *first = Err(Invalid::new("/after", format!("these jobs come after each other: {}", shown(&way))).into());
    }
    linked
}

/// Takes down what a job is called.
fn named(draft: Draft, index: usize, names: &mut HashMap<String, usize>) -> Result<Draft, Problem> {
    if let Some(name) = &draft.name
        && let Some(first) = names.insert(name.clone(), index)
    {
        return Err(Invalid::new("/name", format!("the job {first} of the batch is called {name:?} as well")).into());
    }
    Ok(draft)
}

/// The submission with what it comes after; `find` knows the places of names.
fn link(draft: Draft, find: impl Fn(&str) -> Option<usize>) -> Result<Box<Submission>, Problem> {
    let Draft { mut submission, after, .. } = draft;
    let mut seen = HashSet::new();
    for (place, Named { job, on_failure }) in after.into_iter().enumerate() {
        let unknown =
            |name: &str| Invalid::new(format!("/after/{place}/name"), format!("no job of the batch is called {name:?}"));
        let parent = match job {
            Ok(id) => Parent::Job(id),
            Err(name) => Parent::Sibling { index: find(&name).ok_or_else(|| unknown(&name))?, name },
        };
        if !seen.insert(parent.called()) {
            return Err(Invalid::new(format!("/after/{place}"), "is there already").into());
        }
        submission.after.push(After { parent, on_failure });
    }
    Ok(submission)
}

/// A way round as text; of a long one only its ends.
fn shown(way: &[String]) -> String {
    const MOST: usize = 10;
    if way.len() <= MOST {
        return way.join(" after ");
    }
    let (first, last) = (&way[..MOST / 2], &way[way.len() - MOST / 2..]);
    format!("{} after … after {}", first.join(" after "), last.join(" after "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Catalogue;
    use rstest::rstest;

    fn drafts(jobs: &[&str]) -> Vec<Result<Draft, Problem>> {
        let job = |fields: &&str| format!(r#"{{"bound":"io","workload":{{"type":"sleep","ms":1}}{fields}}}"#);
        let draft = |fields| super::super::draft(job(fields).as_bytes(), &Catalogue::default(), crate::clock::Timestamp::now());
        jobs.iter().map(draft).collect()
    }

    fn batch(jobs: &[&str]) -> Result<Vec<Box<Submission>>, (String, String)> {
        Draft::batch(drafts(jobs), |_| Ok(())).map_err(|problem| {
            let body = serde_json::to_value(problem.body()).unwrap();
            let told = |field: &str| body["errors"][0][field].as_str().unwrap_or_default().to_owned();
            (told("pointer"), told("detail"))
        })
    }

    #[test]
    fn names_are_looked_up() {
        let id = JobId::new();
        let last = format!(r#","after":[{{"name":"a"}},{{"name":"b","on_failure":"run"}},{{"job":"{id}","on_failure":"fail"}}]"#);
        let submissions = batch(&[&last, r#","name":"b","after":[{"name":"a"}]"#, r#","name":"a""#]).unwrap();
        let sibling = |index, name: &str| Parent::Sibling { index, name: name.into() };
        let after = |parent, on_failure| After { parent, on_failure };
        assert_eq!(
            submissions[0].after,
            [
                after(sibling(2, "a"), OnFailure::Cancel),
                after(sibling(1, "b"), OnFailure::Run),
                after(Parent::Job(id), OnFailure::Fail)
            ]
        );
        assert_eq!(submissions[1].after, [after(sibling(2, "a"), OnFailure::Cancel)]);
        assert_eq!(submissions[2].after, []);
    }

    #[rstest]
    #[case(&[r#","name":"""#], "/name")]
    #[case(&[r#","name":"a\u0000b""#], "/0/name")]
    #[case(&["", r#","after":{}"#], "/after")]
    #[case(&["", r#","after":[["a"]]"#], "/after/0")]
    #[case(&["", r#","after":[{}]"#], "/after/0")]
    #[case(&["", r#","after":[{"job":"7"}]"#], "/after/0/job")]
    #[case(&["", r#","after":[{"name":"a","when":1}]"#], "/after/0/when")]
    #[case(&["", r#","after":[{"name":"a","on_failure":"explode"}]"#], "/after/0/on_failure")]
    fn what_is_wrong_is_pointed_at(#[case] jobs: &[&str], #[case] pointer: &str) {
        assert!(batch(jobs).unwrap_err().0.ends_with(pointer));
    }

    #[rstest]
    #[case(&[r#","name":"a""#, r#","name":"a""#], "/1/name", "job 0 of the batch")]
    #[case(&[r#","after":[{"name":"b"}]"#, r#","name":"a""#], "/0/after/0/name", "\"b\"")]
    #[case(&[r#","name":"a""#, r#","after":[{"name":"a"},{"name":"a"}]"#], "/1/after/1", "already")]
    #[case(&["", r#","name":"a","after":[{"name":"a"}]"#], "/1/after", "a after a")]
    #[case(&[r#","name":"b","after":[{"name":"c"}]"#, r#","name":"a","after":[{"name":"b"}]"#, r#","name":"c","after":[{"name":"a"}]"#],
        "/0/after", "b after c after a after b")]
    fn names_have_to_make_sense(#[case] jobs: &[&str], #[case] pointer: &str, #[case] detail: &str) {
        let (at, told) = batch(jobs).unwrap_err();
        assert_eq!(at, pointer);
        assert!(told.contains(detail), "{told}");
    }

    #[test]
    fn all_of_a_batch_that_do_not_make_sense_are_pointed_at() {
        let wrong = |drafts: Vec<Result<Draft, Problem>>| {
            let problem = Draft::batch(drafts, |_| Ok(())).unwrap_err();
            let faults = serde_json::to_value(problem.body()).unwrap()["errors"].take();
            faults.as_array().unwrap().iter().map(|fault| fault["pointer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let named = r#","name":"a""#;
        let whole = [named, named, r#","after":[{"name":"b"}]"#, r#","after":[{"name":"a"}]"#];
        assert_eq!(wrong(drafts(&whole)), ["/1/name", "/2/after/0/name"]);
        // That may be the name of the one that can't be read.
        let mut drafts = drafts(&whole[1..]);
        drafts.push(Err(Invalid::new("", "is no job").into()));
        assert_eq!(wrong(drafts), ["/3"]);
    }
}
