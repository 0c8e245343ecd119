//! Three processes under load, of which some are killed, stopped, wiped, without disk space, or without power: no
//! acknowledged write is lost, and every key is a register. And three that do not hear each other: what a leader says
//! that may lead no longer.
//!
//! `REPLICATED_TEST_KILLS` says how many leaders are killed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../../tests/support/history.rs"]
mod history;
mod line;
mod load;
#[path = "../common/power_cut.rs"]
mod power_cut;
mod register;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use line::Line;
use load::{Load, Told, value_of};
use replicated::NodeId;
use replicated::client::{Client, Error};
use replicated::cluster::Cluster;
use replicated::node::Status;
use replicated::store;
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use slotlog::Store;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;

/// Three nodes, alone on the machine as far as these tests go.
struct Scene {
    cluster: Cluster,
    _folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

const SMALL: usize = 100;
const LARGE: usize = 10_000;
/// How long anything may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Quick elections, and a snapshot after few entries.
const QUICK: [&str; 4] = ["--heartbeat", "50", "--snapshot-every", "300"];

impl Scene {
    async fn new() -> Scene {
        let scene = Scene::nodes().await;
        scene.cluster.client().unwrap().init(scene.cluster.addresses()).await.unwrap();
        scene.cluster.leader().await.unwrap();
        scene
    }

    /// A cluster with a line to each node that the others send through, and that can be cut. Clients do not use them,
    /// unless they are sent to the leader.
    async fn with_lines() -> (Scene, [Line; 3]) {
        let scene = Scene::nodes().await;
        let lines = [1, 2, 3].map(|id| Line::to(&scene.cluster.addresses()[&id]));
        let members = (1..).zip(lines.iter().map(|line| line.address().to_owned())).collect();
        scene.cluster.client().unwrap().init(&members).await.unwrap();
        scene.cluster.leader().await.unwrap();
        (scene, lines)
    }

    /// Three that do not know each other.
    async fn nodes() -> Scene {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        // In memory if the system has a folder there: these tests are not about the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_replicated"));
        let cluster = Cluster::nodes(program, folder.path(), &QUICK).unwrap();
        Scene { cluster, _folder: folder, _alone: alone }
    }

    /// Waits until a node says this of itself.
    async fn until(&self, id: NodeId, what: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            let status = self.cluster.status(id).await;
            match status {
                Ok(status) if what(&status) => return status,
                status => assert!(start.elapsed() < PATIENCE, "node {id} still says {status:?}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Cuts all lines, and returns what the leader says, which takes itself for one as before.
    async fn cut_all(&self, lines: &mut [Line; 3]) -> Status {
        loop {
            let leader = self.cluster.leader().await.unwrap();
            for line in &mut *lines {
                line.cut().await;
            }
            let status = self.until(leader, |_| true).await;
            if status.leader == Some(leader) {
                return status;
            }
            // On a busy machine, another one may have been elected just before.
            lines.iter_mut().for_each(Line::mend);
        }
    }

    /// The place of a key at this node, whoever leads.
    fn url(&self, id: NodeId, key: &str) -> String {
        format!("http://{}/kv/{key}", self.cluster.addresses()[&id])
    }

    async fn follower(&self) -> NodeId {
        let leader = self.cluster.leader().await.unwrap();
        (1..=3).find(|&id| id != leader).unwrap()
    }

    fn signal(&self, id: NodeId, signal: Signal) {
        let pid = Pid::from_raw(self.cluster.pid(id) as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stops the clients and the nodes, and looks into the store of each: it has everything that was acknowledged.
    async fn nothing_is_lost(mut self, load: Load, bytes: usize, nodes: [NodeId; 3]) -> Told {
        let told = load.stop().await;
        for id in nodes {
            self.cluster.caught_up(id).await.unwrap();
        }
        for id in nodes {
            self.cluster.kill(id).unwrap();
            let (_, state) = store::open(&self.cluster.folder_of(id), id, false, Store::options()).unwrap();
            for key in &told.written {
                let found = state.get(key).unwrap().unwrap_or_else(|| panic!("node {id} has lost {key}"));
                assert!(found.1 == value_of(key, bytes), "node {id}, {key}");
            }
        }
        println!("{} values are there, of {} changes nothing is known", told.written.len(), told.unknown);
        told
    }
}

/// Sets a value until that is acknowledged, since a leader may go while it is asked.
async fn put(client: &mut Client, key: &str, value: &str) -> u64 {
    let start = Instant::now();
    loop {
        match client.put(key, value, None).await {
            Ok(version) => return version.unwrap(),
            Err(Error::Unknown | Error::NoLeader) => assert!(start.elapsed() < PATIENCE, "no leader acknowledges"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What sends a request to one node only.
fn http() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    builder.timeout(PATIENCE).build().unwrap()
}

fn kills() -> u64 {
    env::var("REPLICATED_TEST_KILLS").map_or(100, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_leaders_are_killed() {
    let mut scene = Scene::new().await;
    let load = Load::start(&scene.cluster, SMALL);
    for _ in 0..kills() {
        load.goes_on(20).await;
        let leader = scene.cluster.leader().await.unwrap();
        scene.cluster.kill(leader).unwrap();
        load.goes_on(5).await;
        scene.cluster.restart(leader).unwrap();
    }
    scene.nothing_is_lost(load, SMALL, [1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_stopped_and_go_on() {
    let scene = Scene::new().await;
    let load = Load::start(&scene.cluster, SMALL);
    for round in 0..6 {
        load.goes_on(20).await;
        let id = if round % 3 == 2 { scene.follower().await } else { scene.cluster.leader().await.unwrap() };
        scene.signal(id, Signal::STOP);
        // Longer than an election takes. What the stopped one has received meanwhile, it works on later.
        sleep(Duration::from_millis(1500)).await;
        load.goes_on(20).await;
        scene.signal(id, Signal::CONT);
    }
    scene.nothing_is_lost(load, SMALL, [1, 2, 3]).await;
}

/// It went on leading in its own eyes, while the others elected another one and were told something new.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_replaced_unawares_does_not_answer_what_was_true_earlier() {
    let (scene, mut lines) = Scene::with_lines().await;
    let mut client = scene.cluster.client().unwrap();
    let version = put(&mut client, "key", "old").await;
    let before = scene.cut_all(&mut lines).await;
    let old = before.id;
    let others = [1, 2, 3].into_iter().filter(|&id| id != old);

    // Its own line stays cut, so that nothing waits there for it to go on.
    scene.signal(old, Signal::STOP);
    for id in others.clone() {
        lines[id as usize - 1].mend();
    }
    let addresses = others.clone().map(|id| scene.cluster.addresses()[&id].clone()).collect();
    for id in others.clone() {
        scene.until(id, |status| status.leader.is_some_and(|leader| leader != old)).await;
    }
    put(&mut Client::new(addresses).unwrap(), "key", "new").await;

    for id in others {
        lines[id as usize - 1].cut().await;
    }
    scene.signal(old, Signal::CONT);
    let place = scene.url(old, "key");
    for url in [&place, &format!("{place}?unlike={version}&wait=0.1"), &format!("{place}?unlike=0&wait=0.1")] {
        let answer = http().get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{url}: {:?}", answer.text().await);
    }
    let after = scene.until(old, |_| true).await;
    assert_eq!((after.leader, after.term), (Some(old), before.term), "it knew that it had been replaced");

    lines.iter_mut().for_each(Line::mend);
    scene.cluster.caught_up(old).await.unwrap();
    assert_eq!(client.get("key").await.unwrap().1, Some(b"new".to_vec()));
    put(&mut client, "key", "newest").await;
    assert_eq!(client.get("key").await.unwrap().1, Some(b"newest".to_vec()));
}

/// It has put a change into its log that no other node has yet, and hears of a later term. But then it is elected
/// again, since its log is the longest, and the change comes about.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_has_in_its_log_when_it_steps_down_is_not_called_undone() {
    let (scene, mut lines) = Scene::with_lines().await;
    put(&mut scene.cluster.client().unwrap(), "key", "old").await;
    let before = scene.cut_all(&mut lines).await;
    let leader = before.id;
    let (rival, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    // With it, the rival would have a majority.
    scene.signal(third, Signal::STOP);

    let request = http().put(scene.url(leader, "key")).body("new");
    let asked = tokio::spawn(request.send());
    scene.until(leader, |status| status.log > before.log).await;
    let now = scene.until(rival, |status| status.term > before.term).await;
    assert!(now.log <= before.log, "{now:?}");
    assert!(!asked.is_finished(), "nobody else has it");
    lines.iter_mut().for_each(Line::mend);

    let answer = asked.await.unwrap().unwrap();
    scene.until(rival, |status| status.leader == Some(leader) && status.term > before.term).await;
    let (_, value) = scene.cluster.client().unwrap().get("key").await.unwrap();
    assert_eq!(value.as_deref(), Some(b"new".as_slice()), "it has come about");
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT, "{:?}", answer.text().await);

    scene.signal(third, Signal::CONT);
    scene.cluster.caught_up(third).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_folder_is_replaced_by_a_new_one() {
    let mut scene = Scene::new().await;
    let load = Load::start(&scene.cluster, SMALL);
    // Until the beginning of the log is gone.
    for id in 1..=3 {
        while scene.cluster.status(id).await.unwrap().snapshot.is_none() {
            load.goes_on(20).await;
        }
    }
    let wiped = scene.follower().await;
    scene.cluster.kill(wiped).unwrap();
    fs::remove_dir_all(scene.cluster.folder_of(wiped)).unwrap();
    fs::create_dir(scene.cluster.folder_of(wiped)).unwrap();
    let refused = scene.cluster.restart(wiped).unwrap_err().to_string();
    assert!(refused.contains("comes back as a new node with a new number"), "{refused}");
    load.goes_on(20).await;

    scene.cluster.add(4).unwrap();
    let mut members = scene.cluster.addresses().clone();
    members.remove(&wiped);
    scene.cluster.client().unwrap().set_members(&members).await.unwrap();
    scene.cluster.caught_up(4).await.unwrap();
    let status = scene.cluster.status(4).await.unwrap();
    assert!(status.voters == members && status.snapshot.is_some(), "{status:?}");
    load.goes_on(20).await;
    // Now the new one is needed.
    let leader = scene.cluster.leader().await.unwrap();
    scene.cluster.kill(leader).unwrap();
    load.goes_on(20).await;
    scene.cluster.restart(leader).unwrap();
    let mut nodes = members.into_keys();
    scene.nothing_is_lost(load, SMALL, std::array::from_fn(|_| nodes.next().unwrap())).await;
}

/// The same command, with a limit on the length of files, or ready for one: what a full disk is to a program.
fn with_limit(command: &Command, bytes: Option<u64>) -> Command {
    let mut shell = Command::new("sh");
    // The unit is 512 bytes. Without the trap the process would be killed.
    let limit = bytes.map_or(String::new(), |bytes| format!("ulimit -f {}; ", bytes / 512));
    let script = format!("trap '' XFSZ; {limit}exec \"$0\" \"$@\"");
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_disk_space_stops_and_the_others_go_on() {
    let mut scene = Scene::new().await;
    let load = Load::start(&scene.cluster, LARGE);
    load.goes_on(50).await;
    let full = scene.follower().await;
    scene.cluster.kill(full).unwrap();
    let length = fs::metadata(scene.cluster.folder_of(full).join("node.slotlog")).unwrap().len();
    let limited = with_limit(&scene.cluster.command(full), Some(length + (1 << 20)));
    scene.cluster.run(full, limited).unwrap();
    let why = scene.cluster.end_of(full).await.unwrap();
    assert!(why.contains(&format!("node {full} stops")) && why.contains("node.slotlog: full: "), "{why}");
    load.goes_on(50).await;
    // There is space again.
    scene.cluster.restart(full).unwrap();
    scene.nothing_is_lost(load, LARGE, [1, 2, 3]).await;
}

/// Only Linux can limit a process that runs.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_disk_space_stops_and_another_one_leads() {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

    let mut scene = Scene::new().await;
    let load = Load::start(&scene.cluster, LARGE);
    for id in 1..=3 {
        load.goes_on(10).await;
        scene.cluster.kill(id).unwrap();
        let ready = with_limit(&scene.cluster.command(id), None);
        scene.cluster.run(id, ready).unwrap();
        scene.cluster.caught_up(id).await.unwrap();
    }
    // On a busy machine, another one may be elected just before the disk is full.
    let mut led = false;
    while !led {
        load.goes_on(50).await;
        let full = scene.cluster.leader().await.unwrap();
        let length = fs::metadata(scene.cluster.folder_of(full).join("node.slotlog")).unwrap().len();
        let pid = Pid::from_raw(scene.cluster.pid(full) as i32);
        prlimit(pid, Resource::Fsize, Rlimit { current: Some(length), ..getrlimit(Resource::Fsize) }).unwrap();
        let start = Instant::now();
        while let Ok(status) = scene.cluster.status(full).await {
            led = status.leader == Some(full);
            assert!(start.elapsed() < PATIENCE, "node {full} goes on");
            sleep(Duration::from_millis(5)).await;
        }
        let why = scene.cluster.end_of(full).await.unwrap();
        assert!(why.contains(&format!("node {full} stops")) && why.contains("node.slotlog: full: "), "{why}");
        load.goes_on(50).await;
        // There is space again.
        let ready = with_limit(&scene.cluster.command(full), None);
        scene.cluster.run(full, ready).unwrap();
    }
    scene.nothing_is_lost(load, LARGE, [1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_of_all_nodes_is_cut() {
    let mut scene = Scene::new().await;
    let load = Load::start(&scene.cluster, SMALL);
    let mut lost = 0;
    for _ in 0..30 {
        load.goes_on(30).await;
        for id in 1..=3 {
            scene.cluster.kill(id).unwrap();
        }
        for id in 1..=3 {
            lost += power_cut::cut(&scene.cluster.folder_of(id).join("node.slotlog"));
            scene.cluster.restart(id).unwrap();
        }
    }
    assert!(lost > 0, "each time everything was flushed");
    scene.nothing_is_lost(load, SMALL, [1, 2, 3]).await;
}
