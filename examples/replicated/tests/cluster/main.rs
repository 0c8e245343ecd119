//! Three processes under load, of which some are killed, stopped, wiped, without disk space, or without power: no
//! acknowledged write is lost, and every key is a register.
//!
//! `REPLICATED_TEST_KILLS` says how many leaders are killed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../../../../tests/support/history.rs"]
mod history;
mod load;
#[path = "../common/power_cut.rs"]
mod power_cut;
mod register;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use load::{Load, Told, value_of};
use replicated::NodeId;
use replicated::cluster::Cluster;
use replicated::store;
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

/// Quick elections, and a snapshot after few entries.
const QUICK: [&str; 4] = ["--heartbeat", "50", "--snapshot-every", "300"];

impl Scene {
    async fn new() -> Scene {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        // In memory if the system has a folder there: these tests are not about the disk.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_replicated"));
        let cluster = Cluster::start(program, folder.path(), &QUICK).await.unwrap();
        Scene { cluster, _folder: folder, _alone: alone }
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

/// The same command, with a limit on the length of files: what a full disk is to a program.
fn with_limit(command: &Command, bytes: u64) -> Command {
    let mut shell = Command::new("sh");
    // The unit is 512 bytes. Without the trap the process would be killed.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512);
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_disk_space_stops_and_the_others_go_on() {
    const LARGE: usize = 10_000;
    let mut scene = Scene::new().await;
    let load = Load::start(&scene.cluster, LARGE);
    load.goes_on(50).await;
    let full = scene.follower().await;
    scene.cluster.kill(full).unwrap();
    let length = fs::metadata(scene.cluster.folder_of(full).join("node.slotlog")).unwrap().len();
    let limited = with_limit(&scene.cluster.command(full), length + (1 << 20));
    scene.cluster.run(full, limited).unwrap();
    let why = scene.cluster.end_of(full).await.unwrap();
    assert!(why.contains(&format!("node {full} stops")) && why.contains("node.slotlog: full: "), "{why}");
    load.goes_on(50).await;
    // There is space again.
    scene.cluster.restart(full).unwrap();
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
