//! The webhook of a submission, and the lists of deliveries.

use serde_json::json;

use crate::{Server, primes, with};

#[tokio::test]
async fn what_is_wrong_with_a_webhook_is_pointed_at() {
    let server = Server::start().await;
    let url = "https://example.com/hook";
    let wrong = [
        (json!("https://example.com"), "/webhook"),
        (json!({}), "/webhook/url"),
        (json!({ "url": "example.com" }), "/webhook/url"),
        (json!({ "url": "ftp://example.com/" }), "/webhook/url"),
        (json!({ "url": "mailto:a@example.com" }), "/webhook/url"),
        (json!({ "url": "http://127.0.0.1/" }), "/webhook/url"),
        (json!({ "url": "http://[::1]:8040/" }), "/webhook/url"),
        (json!({ "url": "http://169.254.169.254/latest" }), "/webhook/url"),
        (json!({ "url": "https://user:secret@example.com/" }), "/webhook/url"),
        (json!({ "url": format!("https://example.com/{}", "x".repeat(2_048)) }), "/webhook/url"),
        // Encoded, it is six times as long, and too long for an index.
        (json!({ "url": format!("https://example.com/{}", "\u{e9}".repeat(1_000)) }), "/webhook/url"),
        (json!({ "url": format!("https://{}.example.com/", "x".repeat(250)) }), "/webhook/url"),
        (json!({ "url": url, "secret": "hunter2" }), "/webhook/secret"),
        (json!({ "url": url, "events": ["finished"] }), "/webhook/events/0"),
        (json!({ "url": url, "events": ["failed", "lost", "failed"] }), "/webhook/events/2"),
        (json!({ "url": url, "colour": 1 }), "/webhook/colour"),
    ];
    for (webhook, pointer) in wrong {
        let answer = server.post("/jobs", &with(primes(), json!({ "webhook": webhook }))).await;
        assert_eq!(answer.problem(422), ("invalid-job".into(), Some(pointer.into())), "{}", answer.text);
        assert!(!answer.text.contains("hunter2"));
    }
    let batch =
        server.post("/jobs/batch", &json!([primes(), with(primes(), json!({ "webhook": { "url": "http://10.0.0.1" } }))])).await;
    assert_eq!(batch.problem(422).1.as_deref(), Some("/1/webhook/url"));
}

#[tokio::test]
async fn a_job_shows_whom_it_tells() {
    let server = Server::start().await;
    // Nobody is there, and nobody may be asked for the address.
    let webhook =
        json!({ "url": "https://nobody.invalid/hook", "events": ["failed"], "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" });
    let id = server.submit(&with(primes(), json!({ "webhook": webhook }))).await;
    let shown = json!({ "url": "https://nobody.invalid/hook", "events": ["failed"] });
    assert_eq!(server.ended(&id).await["webhook"], shown);
    assert_eq!(server.get(&format!("/jobs/{id}/deliveries")).await.json(), json!({ "items": [], "next_cursor": null }));
    let id = server.submit(&primes()).await;
    assert!(server.ended(&id).await["webhook"].is_null());
    let nobody = server.get("/jobs/01997d3e-8c00-7000-8000-000000000000/deliveries").await;
    assert_eq!(nobody.problem(404).0, "unknown-job");
    assert_eq!(server.get("/webhooks/deliveries?cursor=x").await.problem(400).0, "bad-query");
    assert_eq!(server.get("/webhooks/deliveries?state=lost").await.problem(400).0, "bad-query");
}

#[tokio::test]
async fn deliveries_have_pages() {
    let server = Server::start().await;
    for _ in 0..3 {
        let id = server.submit(&with(primes(), json!({ "webhook": { "url": "https://nobody.invalid/hook" } }))).await;
        server.ended(&id).await;
    }
    let first = server.get("/webhooks/deliveries?limit=2").await;
    let cursor = first.json()["next_cursor"].as_str().unwrap().to_owned();
    let second = server.get(&format!("/webhooks/deliveries?limit=2&cursor={cursor}")).await;
    assert_eq!((first.ids().len(), second.ids().len()), (2, 1));
    assert!(second.json()["next_cursor"].is_null() && !first.ids().contains(&second.ids()[0]));
}
