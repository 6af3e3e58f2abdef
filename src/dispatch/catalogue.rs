//! What is known of the registered functions, in memory: submissions look them up without a way to the database.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::function::Function;
use crate::job::Spec;
use crate::workload::{Invalid, pin_function};

/// The fewest digits that may stand for a version.
const FEWEST_DIGITS: usize = 8;

/// The versions of each function, the latest first.
#[derive(Debug, Default)]
pub struct Catalogue {
    functions: RwLock<BTreeMap<String, Vec<Arc<Function>>>>,
}

impl Catalogue {
    /// Has these and no others from here on, of each name the latest first.
    pub(super) fn replace(&self, functions: Vec<Function>) {
        let mut by_name: BTreeMap<String, Vec<Arc<Function>>> = BTreeMap::new();
        for function in functions {
            by_name.entry(function.name.clone()).or_default().push(Arc::new(function));
        }
        *self.write() = by_name;
    }

    /// The latest version of each, by name.
    pub fn latest(&self) -> Vec<Arc<Function>> {
        self.read().values().filter_map(|versions| versions.first().map(Arc::clone)).collect()
    }

    /// The versions of one, the latest first; none if there is no such function.
    pub fn versions(&self, name: &str) -> Vec<Arc<Function>> {
        self.read().get(name).cloned().unwrap_or_default()
    }

    /// The version that is meant: by all of its digits or the first of them, or without any the latest.
    ///
    /// # Errors
    /// There is none, or more than one: said of `/name` or `/version`.
    pub fn find(&self, name: &str, version: Option<&str>) -> Result<Arc<Function>, Invalid> {
        let functions = self.read();
        let Some((versions, latest)) = functions.get(name).and_then(|versions| Some((versions, versions.first()?))) else {
            return Err(Invalid::new("/name", format!("no function is called {name:?}")));
        };
        let Some(version) = version else { return Ok(Arc::clone(latest)) };
        if version.len() < FEWEST_DIGITS {
            return Err(Invalid::new("/version", format!("a version must have {FEWEST_DIGITS} digits at least")));
        }
        let mut meant = versions.iter().filter(|function| function.version.starts_with(version));
        match (meant.next(), meant.next()) {
            (Some(function), None) => Ok(Arc::clone(function)),
            (Some(_), Some(_)) => Err(Invalid::new("/version", format!("{name} has more than one version {version}…"))),
            (None, _) => Err(Invalid::new("/version", format!("{name} has no version {version}"))),
        }
    }

    /// Looks up the function that a workload of that kind calls, and writes its whole version into the workload.
    ///
    /// # Errors
    /// The first thing that is wrong, pointing into the workload.
    pub fn pin(&self, workload: &mut Spec) -> Result<Arc<Function>, Invalid> {
        pin_function(workload, |name, version| {
            let function = self.find(name, version)?;
            Ok((function.version.clone(), function))
        })
    }

    /// A version is the latest of its name from here on.
    pub(super) fn put(&self, function: Function) -> Arc<Function> {
        let function = Arc::new(function);
        let mut functions = self.write();
        let versions = functions.entry(function.name.clone()).or_default();
        versions.retain(|other| other.version != function.version);
        versions.insert(0, Arc::clone(&function));
        function
    }

    pub(super) fn remove(&self, name: &str) {
        self.write().remove(name);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Vec<Arc<Function>>>> {
        self.functions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Vec<Arc<Function>>>> {
        self.functions.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::function::{Defaults, Kind, Limits};
    use crate::job::Form;
    use rstest::rstest;

    fn function(version: &str) -> Function {
        Function {
            name: "f".into(),
            version: version.into(),
            created_at: Timestamp::now(),
            deployed_at: Timestamp::now(),
            kind: Kind::Source,
            bytes: 0,
            entrypoint: "main".into(),
            form: Form::Blocking,
            interpreter: None,
            defaults: Defaults::default(),
            limits: Limits::default(),
        }
    }

    #[rstest]
    #[case("f", None, Ok("1111111122222222"))]
    #[case("f", Some("11111111"), Err("/version"))]
    #[case("f", Some("111111113"), Ok("1111111133333333"))]
    #[case("f", Some("1111111133333333"), Ok("1111111133333333"))]
    #[case("f", Some("1111111"), Err("/version"))]
    #[case("f", Some("99999999"), Err("/version"))]
    #[case("g", None, Err("/name"))]
    fn a_version_is_found_by_its_first_digits(
        #[case] name: &str,
        #[case] version: Option<&str>,
        #[case] expected: Result<&str, &str>,
    ) {
        let catalogue = Catalogue::default();
        catalogue.replace(vec![function("1111111122222222"), function("1111111133333333")]);
        let found = catalogue.find(name, version).map(|function| function.version.clone()).map_err(|invalid| invalid.pointer);
        assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn what_is_put_last_is_the_latest() {
        let catalogue = Catalogue::default();
        for version in ["1", "2", "1"] {
            catalogue.put(function(version));
        }
        let versions: Vec<_> = catalogue.versions("f").iter().map(|function| function.version.clone()).collect();
        assert_eq!(versions, ["1", "2"]);
        catalogue.remove("f");
        assert!(catalogue.latest().is_empty() && catalogue.versions("f").is_empty());
    }
}
