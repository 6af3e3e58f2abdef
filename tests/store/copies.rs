//! What servers have copies of in memory follows what others change.

use std::sync::Arc;
use std::time::Duration;

use trine::api::Keyring;
use trine::auth::{Key, KeyRule, Quota, Scope, Scopes};
use trine::dispatch::{Functions, Quotas};
use trine::executor::python::CodeSource;
use trine::store::postgres::keep_key;
use trine::store::{Copied, CopyStore, FunctionStore, KeyStore, Store};

use crate::functions::function;
use crate::postgres::Schema;
use crate::{PATIENCE, Place};

crate::for_every_driver!(a_server_is_not_told_of_what_nobody_changed);

async fn a_server_is_not_told_of_what_nobody_changed(place: impl Place) {
    let store = place.open().await;
    for of in [Copied::Keys, Copied::Functions] {
        let known = store.version(of).await.unwrap();
        // Jobs and uses of keys change nothing of it.
        store.accept(vec![crate::io_job()]).await.unwrap();
        assert_eq!(store.version(of).await.unwrap(), known);
        assert!(tokio::time::timeout(Duration::from_millis(300), store.changed(of, known)).await.is_err());
    }
}

/// Waits until it is so.
async fn until(is_so: impl Fn() -> bool) {
    crate::until("it is heard of", async || is_so().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_counted_and_told_to_other_nodes() {
    let place = Schema::new();
    let (here, there) = (place.node("here").await, place.node("there").await);
    let (key, _) = Key::new("k".into(), Scopes::ALL, None).unwrap();
    let heard = async |of: Copied, known: i64| {
        tokio::time::timeout(PATIENCE, there.changed(of, known)).await.expect("the other one hears of it");
        assert_eq!(there.version(of).await.unwrap(), known + 1);
    };
    let before = there.version(Copied::Keys).await.unwrap();
    here.add_key(key.clone(), None).await.unwrap();
    heard(Copied::Keys, before).await;
    here.set_quota(key.id.clone(), Quota { queued: Some(1), ..Quota::default() }).await.unwrap();
    heard(Copied::Keys, before + 1).await;
    here.revoke_key(key.id.clone()).await.unwrap();
    heard(Copied::Keys, before + 2).await;
    // One that an operator makes past all servers, too.
    let (another, _) = Key::new("k".into(), Scopes::ALL, None).unwrap();
    keep_key(&[place.url()], &place.options().schema, &another).await.unwrap();
    heard(Copied::Keys, before + 3).await;
    let before = there.version(Copied::Functions).await.unwrap();
    here.deploy(function("f", "1"), Vec::new()).await.unwrap();
    heard(Copied::Functions, before).await;
    here.redeploy("f", "1").await.unwrap();
    heard(Copied::Functions, before + 1).await;
    here.undeploy("f").await.unwrap();
    heard(Copied::Functions, before + 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_one_node_makes_or_revokes_is_known_to_the_others() {
    let place = Schema::new();
    let (here, there) = (place.node("here").await, place.node("there").await);
    let store: Arc<dyn Store> = there;
    let quotas = Arc::new(Quotas::new(Arc::clone(&store), Quota::default()));
    let keyring = Arc::new(Keyring::load(store, KeyRule::Auto, quotas).await.unwrap());
    let follower = tokio::spawn(Arc::clone(&keyring).follow(std::future::pending()));
    assert!(keyring.is_open());
    let (key, _) = Key::new("k".into(), Scopes::ALL, None).unwrap();
    here.add_key(key.clone(), None).await.unwrap();
    until(|| keyring.has_live()).await;
    assert!(!keyring.is_open());
    here.revoke_key(key.id).await.unwrap();
    until(|| !keyring.has_live()).await;
    // It is revoked, not forgotten.
    assert!(!keyring.is_open());
    // Also while the store can't take over what keys may have it do.
    let (another, _) = Key::new("k".into(), [Scope::Submit].into_iter().collect(), None).unwrap();
    here.add_key(another.clone(), None).await.unwrap();
    until(|| keyring.has_live()).await;
    sqlx::query("ALTER TABLE lanes RENAME TO gone").execute(&mut place.raw().await).await.unwrap();
    here.set_quota(another.id.clone(), Quota { running: Some(1), ..Quota::default() }).await.unwrap();
    here.revoke_key(another.id).await.unwrap();
    until(|| !keyring.has_live()).await;
    follower.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_one_node_registers_or_removes_is_known_to_the_others() {
    let place = Schema::new();
    let (here, there) = (place.node("here").await, place.node("there").await);
    let functions = Arc::new(Functions::load(there).await.unwrap());
    // Before it has heard of it: what is missing is looked for once more.
    assert!(functions.find("f", None).await.is_err());
    here.deploy(function("f", "11111111"), b"1".to_vec()).await.unwrap();
    let found = functions.find("f", Some("11111111")).await.unwrap();
    assert_eq!(CodeSource::content(&*functions, &found).await.unwrap().unwrap(), b"1");
    let follower = tokio::spawn({
        let functions = Arc::clone(&functions);
        async move { functions.follow().await }
    });
    let latest = |version: &str| functions.catalogue().find("f", None).is_ok_and(|latest| latest.version == version);
    here.deploy(function("f", "22222222"), b"2".to_vec()).await.unwrap();
    until(|| latest("22222222")).await;
    here.redeploy("f", "11111111").await.unwrap();
    until(|| latest("11111111")).await;
    here.undeploy("f").await.unwrap();
    until(|| functions.catalogue().latest().is_empty()).await;
    follower.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_that_nodes_register_at_once_have_one_order() {
    let place = Schema::new();
    let nodes = [place.node("a").await, place.node("b").await];
    for n in 0..10 {
        let deployed = nodes.each_ref().map(|node| async move { node.deploy(function("f", &format!("{n}")), Vec::new()).await });
        let again = nodes.each_ref().map(|node| async move { node.deploy(function("f", "same"), Vec::new()).await });
        futures_util::future::try_join_all(deployed).await.unwrap();
        futures_util::future::try_join_all(again).await.unwrap();
    }
    let mut moments: Vec<_> = nodes[0].functions().await.unwrap().iter().map(|function| function.deployed_at).collect();
    let count = moments.len();
    moments.dedup();
    assert_eq!((count, moments.len()), (11, 11));
}
