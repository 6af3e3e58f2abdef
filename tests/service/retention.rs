//! Results that are not kept any longer: gone from every list, still counted, and their ids are those of no job.

use serde_json::json;

use crate::server::{Server, folder, sleep, until, with};

async fn until_kept(server: &Server, count: usize) {
    let kept = async || (server.results().await.len() == count).then_some(());
    until(&format!("{count} results are kept"), kept).await;
}

#[tokio::test]
async fn no_more_results_are_kept_than_are_to_be() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]).await;
    let ids = server.submit_all(&vec![with(sleep(0), json!({ "tags": { "a": "b" } })); 1_000]).await;
    until_kept(&server, 1_000).await;
    drop(server);

    let server = Server::start(folder.path(), &[("TRINE_RETENTION_COUNT", "100")]).await;
    until_kept(&server, 100).await;
    assert_eq!(server.count().await, 1_000);
    assert_eq!(server.get("/jobs?tag=a:b&limit=1000").await["items"].as_array().unwrap().len(), 100);
    let status = async |id: &str| server.client.get(format!("{}/jobs/{id}", server.url)).send().await.unwrap().status();
    assert_eq!((status(&ids[0]).await.as_u16(), status(&ids[999]).await.as_u16()), (404, 200));
    let remove = async |id: &str| server.client.delete(format!("{}/results/{id}", server.url)).send().await.unwrap().status();
    assert_eq!((remove(&ids[999]).await.as_u16(), remove(&ids[999]).await.as_u16()), (204, 404));
    let waiting = sleep(600_000);
    let waiting = server.submit(&waiting).await;
    assert_eq!(remove(&waiting).await, 409);
    drop(server);

    let server = Server::start(folder.path(), &[("TRINE_RETENTION_AGE", "1ms")]).await;
    until_kept(&server, 0).await;
    assert_eq!(server.count().await, 1_000);
    server.until_state(&waiting, "running").await;
}
