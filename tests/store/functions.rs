//! Functions: one row a version, the last deployment is the latest.

use std::sync::Arc;
use std::time::Duration;

use trine::clock::Timestamp;
use trine::function::{Defaults, Function, Kind, Limits};
use trine::job::{Bound, Choice, Form};
use trine::store::Store;

use crate::Place;

crate::for_every_driver!(
    a_version_is_kept_as_it_is,
    the_last_deployment_is_the_latest,
    the_same_again_is_no_new_version,
    what_is_removed_is_gone,
    functions_survive_a_restart,
);

pub(crate) fn function(name: &str, version: &str) -> Function {
    Function {
        name: name.into(),
        version: version.into(),
        created_at: Timestamp::from_micros(0),
        deployed_at: Timestamp::from_micros(0),
        kind: Kind::Zip,
        bytes: 3,
        entrypoint: "pkg.mod:main".into(),
        form: Form::Async,
        interpreter: Some("venv".into()),
        defaults: Defaults { bound: Some(Bound::Cpu), executor: Choice::Threads, deadline: Some(Duration::from_millis(1_500)) },
        limits: Limits { memory_bytes: Some(1 << 30), cpu_ms: Some(1), output_bytes: None },
    }
}

async fn deploy(store: &Arc<dyn Store>, name: &str, version: &str) -> Function {
    store.deploy(function(name, version), version.into()).await.unwrap()
}

async fn versions(store: &Arc<dyn Store>) -> Vec<String> {
    let functions = store.functions().await.unwrap();
    functions.iter().map(|function| format!("{} {}", function.name, function.version)).collect()
}

async fn a_version_is_kept_as_it_is(place: impl Place) {
    let store = place.open().await;
    let plain = Function {
        kind: Kind::Source,
        form: Form::Blocking,
        interpreter: None,
        defaults: Defaults::default(),
        limits: Limits::default(),
        ..function("b", "plain")
    };
    for wanted in [function("a", "full"), plain] {
        let kept = store.deploy(wanted.clone(), b"\0\xff!".to_vec()).await.unwrap();
        assert!(kept.is_new());
        assert_eq!(Function { created_at: wanted.created_at, deployed_at: wanted.deployed_at, ..kept.clone() }, wanted);
        assert!(store.functions().await.unwrap().contains(&kept));
        let content = store.function_content(&wanted.name, &wanted.version).await.unwrap();
        assert_eq!(content.as_deref(), Some(&b"\0\xff!"[..]));
    }
    assert_eq!(store.function_content("a", "plain").await.unwrap(), None);
}

async fn the_last_deployment_is_the_latest(place: impl Place) {
    let store = place.open().await;
    for (name, version) in [("b", "1"), ("a", "1"), ("a", "2"), ("a", "3")] {
        deploy(&store, name, version).await;
    }
    assert_eq!(versions(&store).await, ["a 3", "a 2", "a 1", "b 1"]);
    let again = store.redeploy("a", "2").await.unwrap().unwrap();
    assert!(!again.is_new() && again.version == "2");
    assert_eq!(versions(&store).await, ["a 2", "a 3", "a 1", "b 1"]);
    assert_eq!(store.redeploy("b", "2").await.unwrap(), None);
}

async fn the_same_again_is_no_new_version(place: impl Place) {
    let store = place.open().await;
    let first = deploy(&store, "a", "1").await;
    deploy(&store, "a", "2").await;
    let other = Function { defaults: Defaults::default(), limits: Limits::default(), ..function("a", "1") };
    let again = store.deploy(other, b"1".to_vec()).await.unwrap();
    assert!(again.created_at == first.created_at && again.deployed_at > first.deployed_at);
    assert_eq!((again.defaults, again.limits), (Defaults::default(), Limits::default()));
    assert_eq!(versions(&store).await, ["a 1", "a 2"]);
}

async fn what_is_removed_is_gone(place: impl Place) {
    let store = place.open().await;
    for (name, version) in [("a", "1"), ("a", "2"), ("b", "1")] {
        deploy(&store, name, version).await;
    }
    assert!(store.undeploy("a").await.unwrap());
    assert!(!store.undeploy("a").await.unwrap());
    assert_eq!(versions(&store).await, ["b 1"]);
    assert_eq!(store.function_content("a", "1").await.unwrap(), None);
}

async fn functions_survive_a_restart(place: impl Place) {
    let store = place.open().await;
    deploy(&store, "a", "1").await;
    deploy(&store, "a", "2").await;
    store.redeploy("a", "1").await.unwrap();
    let before = store.functions().await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.functions().await.unwrap(), before);
    assert!(store.function_content("a", "2").await.unwrap().is_some());
}
