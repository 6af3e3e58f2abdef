//! Who may do what.

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, ORIGIN, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use tokio::time::timeout;

use super::{Answer, PATIENCE, Send as _, Server, sleep};

/// The request with a key.
pub(super) fn with_key(request: RequestBuilder, key: &str) -> RequestBuilder {
    request.header(AUTHORIZATION, format!("Bearer {key}"))
}

impl Server {
    async fn by(&self, key: &str, method: Method, path: &str, body: &Value) -> Answer {
        with_key(self.request(method, path).json(body), key).answer().await
    }

    /// Makes a key with the rights of another, or on a server that asks for none yet; its id and its text.
    pub(super) async fn key(&self, by: &str, scopes: &[&str]) -> (String, String) {
        let answer = self.by(by, Method::POST, "/keys", &json!({ "name": "k", "scopes": scopes })).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        let key = answer.json();
        assert_eq!(answer.headers[LOCATION], format!("/keys/{}", key["id"].as_str().unwrap()));
        (key["id"].as_str().unwrap().to_owned(), key["key"].as_str().unwrap().to_owned())
    }
}

/// Each operation with what it asks for, by the document.
async fn operations(server: &Server) -> Vec<(Method, String, Option<String>)> {
    let document = server.get("/openapi.json").await.json();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security =
                operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path} does not say what it asks for"));
            let scope = security.first().map(|first| first["key"][0].as_str().unwrap().to_owned());
            let path = path.replace("{id}", "01997d3e-8c00-7000-8000-000000000000").replace(['{', '}'], "");
            operations.push((method.to_uppercase().parse().unwrap(), path, scope));
        }
    }
    operations
}

#[tokio::test]
async fn every_operation_asks_for_its_scope() {
    let server = Server::start().await;
    let operations = operations(&server).await;
    assert!(operations.len() > 20);
    let (_, admin) = server.key("", &["admin"]).await;
    let (_, reads) = server.key(&admin, &["read"]).await;
    for (key, status) in [("", 401), (&reads, 405)] {
        assert_eq!(with_key(server.request(Method::PATCH, "/jobs"), key).answer().await.status, status);
    }
    let mut keys = Vec::new();
    for scope in ["submit", "read", "cancel", "functions"] {
        keys.push((scope, server.key(&admin, &[scope]).await.1));
    }
    for (method, path, asked) in &operations {
        // Streams have no end, and there is something to see only for those who may.
        let without = server.request(method.clone(), path).answer().await;
        let Some(asked) = asked else {
            assert!(without.status.is_success(), "{method} {path}");
            continue;
        };
        assert_eq!(without.problem(401).0, "unauthenticated", "{method} {path}");
        assert_eq!(without.headers[WWW_AUTHENTICATE], "Bearer realm=\"trine\"");
        for (scope, key) in keys.iter().filter(|(scope, _)| scope != asked) {
            let answer = with_key(server.request(method.clone(), path), key).answer().await;
            assert_eq!(answer.problem(403).0, "forbidden", "{method} {path} with {scope}");
            assert!(answer.text.contains(asked.as_str()), "{}", answer.text);
        }
        let own = keys.iter().filter(|(scope, _)| scope == asked).map(|(_, key)| key);
        for key in own.chain([&admin]) {
            let response = with_key(server.request(method.clone(), path), key).send().await.unwrap();
            assert!(![401, 403].contains(&response.status().as_u16()), "{method} {path}");
        }
    }
    // The documentation is open: it is the same everywhere, and says how to send a key.
    assert_eq!(server.get("/docs/").await.status, 200);
}

#[tokio::test]
async fn a_key_is_shown_once_and_good_until_it_is_revoked() {
    let server = Server::start().await;
    let first = server.post("/keys", &json!({ "name": "first", "scopes": ["submit"] })).await;
    assert_eq!(first.problem(422), ("invalid-key".to_owned(), Some("/scopes".to_owned())), "nobody could make another");
    assert_eq!(server.get("/jobs").await.status, 200, "no key was made");
    let open = server.request(Method::GET, "/events").send().await.unwrap();
    assert_eq!(open.status(), 200);
    let (admin_id, admin) = server.key("", &["admin"]).await;
    assert_eq!(server.get("/jobs").await.status, 401, "from now on a key is asked for");
    timeout(PATIENCE, open.bytes()).await.expect("what was open without one ends").unwrap();
    let (id, key) = server.key(&admin, &["submit", "read"]).await;
    assert!(key.starts_with(&format!("trine_{id}_")));
    let answer = server.by(&key, Method::POST, "/jobs", &sleep(0)).await;
    assert_eq!(answer.status, 202);
    let twice = with_key(with_key(server.request(Method::GET, "/jobs"), &key), &admin).answer().await;
    assert_eq!(twice.problem(401).0, "unauthenticated", "whose request it is is not for the server to choose");
    let listed = server.by(&admin, Method::GET, "/keys", &json!(null)).await;
    let secret = key.splitn(3, '_').nth(2).unwrap();
    assert!(!listed.text.contains(secret) && !listed.text.contains("hash"));
    let items = listed.json()["items"].clone();
    assert_eq!((&items[0]["id"], &items[1]["id"], items.as_array().unwrap().len()), (&json!(admin_id), &json!(id), 2));
    assert_eq!((&items[1]["scopes"], &items[1]["state"]), (&json!(["submit", "read"]), &json!("live")));
    assert!(items[1]["last_used_at"].is_string());
    // It is gone with the answer, and what was opened with it ends.
    let events = with_key(server.request(Method::GET, "/events"), &key).send().await.unwrap();
    assert_eq!(events.status(), 200);
    let revoked = server.by(&admin, Method::DELETE, &format!("/keys/{id}"), &json!(null)).await;
    assert_eq!((revoked.status.as_u16(), &revoked.json()["state"]), (200, &json!("revoked")));
    let answer = server.by(&key, Method::POST, "/jobs", &sleep(0)).await;
    assert_eq!(answer.problem(401).0, "unauthenticated");
    assert!(answer.text.contains("revoked"));
    timeout(PATIENCE, events.bytes()).await.expect("the stream ends").unwrap();
    let again = server.by(&admin, Method::DELETE, &format!("/keys/{id}"), &json!(null)).await;
    assert_eq!(again.json()["revoked_at"], revoked.json()["revoked_at"]);
    for path in ["/keys/000000000000", "/keys/x", "/keys/000000000000/rotate"] {
        let method = if path.ends_with("rotate") { Method::POST } else { Method::DELETE };
        assert_eq!(server.by(&admin, method, path, &json!({})).await.problem(404).0, "unknown-key");
    }
}

#[tokio::test]
async fn a_key_that_was_revoked_is_not_good_for_what_was_waited_for() {
    let server = Server::start().await;
    let (_, admin) = server.key("", &["admin"]).await;
    let by_admin = async |method, path: &str, body: &Value| server.by(&admin, method, path, body).await.json();
    // What was submitted is, whatever becomes of the key.
    for submits in [false, true] {
        let (id, key) = server.key(&admin, &["admin"]).await;
        let wait = if submits {
            server.request(Method::POST, "/jobs").header("prefer", "wait=60").json(&sleep(600_000))
        } else {
            let job = by_admin(Method::POST, "/jobs", &sleep(600_000)).await;
            server.request(Method::GET, &format!("/jobs/{}?wait=60", job["id"].as_str().unwrap()))
        };
        let end = async {
            let path = format!("/keys/{id}");
            server.until(|| async { by_admin(Method::GET, &path, &json!(null)).await["last_used_at"].as_str().map(drop) }).await;
            by_admin(Method::DELETE, &path, &json!(null)).await;
            server
                .until(|| async {
                    let cancelled = by_admin(Method::POST, "/jobs/cancel", &json!({ "all": true })).await;
                    (cancelled["cancelled"] != 0 || cancelled["stopping"] != 0).then_some(())
                })
                .await;
        };
        let (answer, ()) = tokio::join!(with_key(wait, &key).answer(), end);
        if submits {
            assert_eq!((answer.status.as_u16(), &answer.json()["state"]), (200, &json!("cancelled")));
        } else {
            assert_eq!(answer.problem(401).0, "unauthenticated");
            assert!(answer.text.contains("revoked"), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_key_that_is_rotated_stays_good_for_a_while() {
    let server = Server::start().await;
    let (_, admin) = server.key("", &["admin"]).await;
    let (id, old) = server.key(&admin, &["read"]).await;
    let rotate = async |grace: u64| {
        let body = json!({ "grace_seconds": grace });
        server.by(&admin, Method::POST, &format!("/keys/{id}/rotate"), &body).await
    };
    let new = rotate(3600).await.json();
    assert_eq!((&new["name"], &new["scopes"]), (&json!("k"), &json!(["read"])));
    for key in [&old, new["key"].as_str().unwrap()] {
        assert_eq!(server.by(key, Method::GET, "/jobs", &json!(null)).await.status, 200);
    }
    let newer = rotate(0).await.json();
    // The old one had no end of its own.
    assert_eq!(newer["expires_at"], json!(null));
    assert!(server.by(&old, Method::GET, "/jobs", &json!(null)).await.text.contains("expired"));
    assert_eq!(server.by(newer["key"].as_str().unwrap(), Method::GET, "/jobs", &json!(null)).await.status, 200);
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let server = Server::start().await;
    let (id, admin) = server.key("", &["admin"]).await;
    let other = format!("trine_{id}_{}", "A".repeat(43));
    let cut = &admin[..admin.len() - 1];
    for sent in [
        other.as_str(),
        cut,
        "trine_000000000000_AAAA",
        "",
        "x",
        "trine_",
        &admin.to_uppercase(),
        &format!("{admin} {admin}"),
        &format!("{admin}x"),
    ] {
        let answer = server.by(sent, Method::GET, "/jobs", &json!(null)).await;
        assert_eq!(answer.problem(401).0, "unauthenticated", "{sent}");
    }
    for scheme in ["Basic", "Token", "trine"] {
        let request = server.request(Method::GET, "/jobs").header(AUTHORIZATION, format!("{scheme} {admin}"));
        assert_eq!(request.answer().await.status, 401);
    }
    assert_eq!(server.get(&format!("/jobs?key={admin}")).await.status, 401, "a key does not belong into a URL");
    let bearer = server.request(Method::GET, "/jobs").header(AUTHORIZATION, format!("bearer  {admin} "));
    assert_eq!(bearer.answer().await.status, 200);
    // With a key, where a page is from is no matter: it can't have one.
    let page = with_key(server.request(Method::GET, "/jobs"), &admin)
        .header(ORIGIN, "https://a.example.com")
        .header(HOST, "a.example.com");
    assert_eq!(page.answer().await.status, 200);
    for (body, pointer) in [
        (json!({ "name": "", "scopes": ["read"] }), "/name"),
        (json!({ "name": " ", "scopes": ["read"] }), "/name"),
        (json!({ "name": "a\nb", "scopes": ["read"] }), "/name"),
        (json!({ "name": "n".repeat(65), "scopes": ["read"] }), "/name"),
        (json!({ "name": "n", "scopes": [] }), "/scopes"),
        (json!({ "name": "n", "scopes": ["root"] }), "/scopes/0"),
        (json!({ "name": "n", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z" }), "/expires_at"),
        (json!({ "name": "n", "scopes": ["read"], "owner": "me" }), "/owner"),
        (json!({ "scopes": ["read"] }), "/name"),
    ] {
        let answer = server.by(&admin, Method::POST, "/keys", &body).await;
        assert_eq!(answer.problem(422), ("invalid-key".to_owned(), Some(pointer.to_owned())), "{body}");
    }
}

#[tokio::test]
async fn what_administrators_do_is_written_down() {
    let server = Server::start().await;
    let (admin_id, admin) = server.key("", &["admin"]).await;
    let (id, _) = server.key(&admin, &["read"]).await;
    server.by(&admin, Method::DELETE, &format!("/keys/{id}"), &json!(null)).await;
    let source = with_key(server.request(Method::PUT, "/functions/f"), &admin).header(CONTENT_TYPE, "text/x-python");
    assert_eq!(source.body("def main(): pass").answer().await.status, 201);
    server.by(&admin, Method::DELETE, "/functions/none", &json!(null)).await;
    // Neither what changes nothing nor jobs.
    server.by(&admin, Method::GET, "/keys", &json!(null)).await;
    server.by(&admin, Method::POST, "/jobs", &sleep(0)).await;
    let page = async |query: &str| server.by(&admin, Method::GET, &format!("/audit{query}"), &json!(null)).await.json();
    let all = page("").await;
    let acts: Vec<_> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|act| {
            (
                act["operation"].as_str().unwrap(),
                act["target"].as_str().unwrap(),
                act["status"].as_u64().unwrap(),
                act["key"].as_str(),
            )
        })
        .collect();
    let by = Some(admin_id.as_str());
    let revoked = format!("/keys/{id}");
    assert_eq!(
        acts,
        [
            ("removeFunction", "/functions/none", 404, by),
            ("deployFunction", "/functions/f", 201, by),
            ("revokeKey", revoked.as_str(), 200, by),
            ("createKey", "/keys", 201, by),
            ("createKey", "/keys", 201, None),
        ]
    );
    let first = page("?limit=3").await;
    let next = page(&format!("?limit=3&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!((first["items"].as_array().unwrap().len(), next["items"].as_array().unwrap().len()), (3, 2));
    assert_eq!((&next["items"][0], &next["next_cursor"]), (&all["items"][3], &json!(null)));
}
