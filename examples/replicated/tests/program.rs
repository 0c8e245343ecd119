//! The interface for clients, and the program.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use replicated::client::{Client, Error};
use replicated::cluster::Cluster;

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_replicated")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stdout.clone()).unwrap())
}

#[test]
fn the_demonstration_ends_well() {
    let output = program(&["demo"]);
    let (code, said) = said(&output);
    assert_eq!(code, Some(0), "{output:?}");
    assert!(said.contains("Of the 100 values from before, 100 are there."), "{said}");
}

#[test]
fn figures_are_printed() {
    let output = program(&["bench", "--seconds", "0.1"]);
    let (code, said) = said(&output);
    assert_eq!((code, said.lines().count()), (Some(0), 7), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_get_what_the_interface_says() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(Path::new(env!("CARGO_BIN_EXE_replicated")), folder.path(), &[]).await.unwrap();
    let mut client = cluster.client().unwrap();

    // Keys of all kinds, and compare-exchange.
    for key in ["a", "a/b", "a b?c#d%e", "schlüssel", "..x"] {
        let first = client.put(key, "1", Some(0)).await.unwrap().unwrap();
        assert_eq!(client.put(key, "2", Some(0)).await.unwrap(), Err(first), "{key}");
        let second = client.put(key, "2", Some(first)).await.unwrap().unwrap();
        assert!(second > first);
        assert_eq!(client.get(key).await.unwrap(), (second, Some(b"2".to_vec())), "{key}");
        assert_eq!(client.delete(key, Some(first)).await.unwrap(), Err(second));
        assert_eq!(client.delete(key, None).await.unwrap(), Ok(0));
        assert_eq!(client.get(key).await.unwrap(), (0, None));
    }
    assert_eq!(client.put("empty", "", None).await.unwrap().map(drop), Ok(()));
    assert_eq!(client.get("empty").await.unwrap().1, Some(Vec::new()));

    // What the stores could not take does not get into the log.
    let refused = client.put(&"k".repeat(2000), "", None).await;
    assert!(matches!(&refused, Err(Error::Refused(why)) if why.contains("too long")), "{refused:?}");
    let refused = client.put("large", vec![7; 2 << 20], None).await;
    assert!(matches!(&refused, Err(Error::Refused(_) | Error::Unknown)), "{refused:?}");
    assert_eq!(client.get("large").await.unwrap(), (0, None));
    assert!(client.put("large", vec![7; 1 << 20], None).await.unwrap().is_ok());

    // A watch returns at once, at a change, or when its time is over.
    let version = client.put("watched", "1", None).await.unwrap().unwrap();
    let long = Duration::from_secs(50);
    assert_eq!(client.watch("watched", 0, long).await.unwrap(), Some((version, Some(b"1".to_vec()))));
    let short = Duration::from_millis(50);
    assert_eq!(client.watch("watched", version, short).await.unwrap(), None);
    let mut watcher = client.clone();
    let start = Instant::now();
    let watch = tokio::spawn(async move { watcher.watch("watched", version, long).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(client.put("another", "1", None).await.unwrap().is_ok());
    assert_eq!(client.delete("watched", None).await.unwrap(), Ok(0));
    assert_eq!(watch.await.unwrap().unwrap(), Some((0, None)));
    assert!(start.elapsed() < long, "it did not wait for its end");

    // A follower says where the leader is.
    let leader = cluster.leader().await.unwrap();
    let follower = cluster.addresses().iter().find(|(id, _)| **id != leader).unwrap().1;
    let mut client = Client::new(vec![follower.clone()]).unwrap();
    assert!(client.put("through a follower", "1", None).await.unwrap().is_ok());
    assert_eq!(client.get("through a follower").await.unwrap().1, Some(b"1".to_vec()));

    // The same with the program.
    assert_eq!(said(&program(&["put", "--at", follower, "key", "value"])).0, Some(0));
    assert_eq!(said(&program(&["get", "--at", follower, "key"])), (Some(0), "value\n".into()));
    assert_eq!(said(&program(&["put", "--at", follower, "key", "value", "--expected", "0"])).0, Some(1));
    assert_eq!(said(&program(&["watch", "--at", follower, "key", "0"])), (Some(0), "value\n".into()));
    assert_eq!(said(&program(&["delete", "--at", follower, "key"])), (Some(0), "version 0\n".into()));
    assert_eq!(said(&program(&["get", "--at", follower, "key"])), (Some(1), String::new()));
    assert!(said(&program(&["status", "--at", follower])).1.contains(&format!("leader: Some({leader})")));
    assert_eq!(said(&program(&["init", &format!("1={follower}")])).0, Some(2), "it is a member of a cluster");
}
