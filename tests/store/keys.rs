//! API keys, and the acts of administrators.

use std::time::Duration;

use trine::auth::{Act, Key, KeyId, KeyState, NewAct, Quota, Scope, Scopes};
use trine::clock::Timestamp;

use crate::Place;

crate::for_every_driver!(
    a_key_is_kept_without_its_secret,
    a_key_that_is_revoked_stays_so,
    a_key_takes_the_place_of_another,
    acts_are_read_from_the_latest_on,
    keys_survive_a_restart,
);

fn key(name: &str) -> Key {
    Key::new(name.into(), [Scope::Submit, Scope::Read].into_iter().collect(), None).unwrap().0
}

fn later() -> Timestamp {
    Timestamp::now().after(Duration::from_secs(60))
}

async fn a_key_is_kept_without_its_secret(place: impl Place) {
    let store = place.open().await;
    let expires_at = Some(later());
    let (key, secret) = Key::new("ci".into(), Scopes::ALL, expires_at).unwrap();
    assert!(store.add_key(key.clone(), None).await.unwrap());
    let used = Timestamp::now();
    store.key_used(key.id.clone(), used).await.unwrap();
    let kept = store.keys().await.unwrap().remove(0);
    assert_eq!((&kept.id, kept.name.as_str(), kept.scopes), (&key.id, "ci", Scopes::ALL));
    assert_eq!(kept.owner, key.id.owner());
    assert_eq!((kept.created_at, kept.expires_at, kept.revoked_at), (key.created_at, expires_at, None));
    assert_eq!(kept.last_used_at, Some(used));
    assert!(kept.hash.is(&secret.hash()) && kept.state(Timestamp::now()) == KeyState::Live);
    assert_eq!(kept.state(later()), KeyState::Expired);
}

async fn a_key_that_is_revoked_stays_so(place: impl Place) {
    let store = place.open().await;
    let (one, other) = (key("one"), key("other"));
    for key in [&one, &other] {
        store.add_key(key.clone(), None).await.unwrap();
    }
    assert!(store.revoke_key(one.id.clone()).await.unwrap());
    let first = store.keys().await.unwrap();
    assert!(store.revoke_key(one.id.clone()).await.unwrap());
    let states = |keys: &[Key]| keys.iter().map(|key| key.state(Timestamp::now())).collect::<Vec<_>>();
    assert_eq!(states(&first), [KeyState::Revoked, KeyState::Live]);
    assert_eq!(store.keys().await.unwrap()[0].revoked_at, first[0].revoked_at);
    assert!(!store.revoke_key(key("unknown").id).await.unwrap());
}

async fn a_key_takes_the_place_of_another(place: impl Place) {
    let store = place.open().await;
    let (old, newer) = (key("old"), key("newer"));
    let new = Key { owner: old.owner, ..key("new") };
    store.add_key(old.clone(), None).await.unwrap();
    let until = later();
    assert!(store.add_key(new.clone(), Some((old.id.clone(), until))).await.unwrap());
    // It does not live longer than it would have.
    assert!(store.add_key(newer.clone(), Some((old.id.clone(), until.after(Duration::from_secs(1))))).await.unwrap());
    let kept = store.keys().await.unwrap();
    assert_eq!((kept.len(), kept.iter().find(|key| key.id == old.id).unwrap().expires_at), (3, Some(until)));
    assert_eq!(kept.iter().find(|key| key.id == new.id).unwrap().owner, old.id.owner());
    // A quota is that of all who have the same owner.
    let quota = Quota { queued: Some(3), ..Quota::default() };
    assert!(store.set_quota(new.id.clone(), quota).await.unwrap());
    assert!(!store.set_quota(key("unknown").id, quota).await.unwrap());
    let of = |id: &KeyId, keys: &[Key]| keys.iter().find(|key| key.id == *id).unwrap().quota;
    let kept = store.keys().await.unwrap();
    assert_eq!([&old, &new, &newer].map(|key| of(&key.id, &kept)), [quota, quota, Quota::default()]);
    // One that is revoked, or not there, has no place to take.
    store.revoke_key(old.id.clone()).await.unwrap();
    for id in [old.id, key("unknown").id] {
        assert!(!store.add_key(key("newest"), Some((id, until))).await.unwrap());
    }
    assert_eq!(store.keys().await.unwrap().len(), 3);
}

async fn acts_are_read_from_the_latest_on(place: impl Place) {
    let store = place.open().await;
    let by = key("admin").id;
    let mut ids = Vec::new();
    for n in 0..5 {
        let act = NewAct { key: (n > 0).then(|| by.clone()), operation: "createKey".into(), target: format!("/keys/{n}") };
        ids.push(store.begin_act(act).await.unwrap());
    }
    store.end_act(ids[4], 201).await.unwrap();
    let targets = |acts: &[Act]| acts.iter().map(|act| act.target.clone()).collect::<Vec<_>>();
    let page = store.acts(None, 2).await.unwrap();
    assert_eq!(targets(&page), ["/keys/4", "/keys/3"]);
    assert_eq!((page[0].status, page[1].status, page[0].key.as_ref()), (Some(201), None, Some(&by)));
    let rest = store.acts(Some(page[1].id), 10).await.unwrap();
    assert_eq!((targets(&rest), &rest[2].key), (vec!["/keys/2".to_owned(), "/keys/1".into(), "/keys/0".into()], &None));
}

async fn keys_survive_a_restart(place: impl Place) {
    let store = place.open().await;
    let key = key("ci");
    store.add_key(key.clone(), None).await.unwrap();
    let act = NewAct { key: None, operation: "createKey".into(), target: "/keys".into() };
    let id = store.begin_act(act.clone()).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert!(store.keys().await.unwrap()[0].hash.is(&key.hash));
    assert!(store.begin_act(act).await.unwrap() > id);
    assert_eq!(store.acts(None, 10).await.unwrap().len(), 2);
}
