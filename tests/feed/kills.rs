//! Leader and follower are killed at any moment; no commit is applied twice, or left out.

use std::thread;

use support::{Player, say, setting};

use super::*;

const BOOKMARK: &str = "follower";

fn open(path: &Path) -> Store {
    Store::options().tiny_steps().open(path).unwrap()
}

/// Changes the store until it is killed.
pub(super) fn lead(path: &Path, seed: u64) {
    let store = open(path);
    let mut random = Random(seed);
    say("ready");
    loop {
        change_and_keep_up(&store, &mut random);
        thread::sleep(Duration::from_micros(20));
    }
}

/// Follows the store until it is killed.
pub(super) fn follow(path: &Path) {
    let (leader, follower) = (open(path), open(&path.with_file_name("follower")));
    let mut feed = leader.changes(seen_by(&follower)).unwrap();
    let mut applied = 0;
    say("ready");
    loop {
        let Some(commit) = feed.wait_for_commit(Duration::from_millis(100)).unwrap() else { continue };
        if applied % 2 == 0 {
            assert!(commit.apply(&follower).unwrap());
        } else {
            let mut sent = Vec::new();
            commit.write_to(&mut sent).unwrap();
            assert_eq!(follower.apply_from(&sent[..]).unwrap(), Some(commit.seq()));
        }
        applied += 1;
        if applied % 16 == 0 {
            leader.set_bookmark(BOOKMARK, seen_by(&follower), 1 << 30).unwrap();
        }
    }
}

#[test]
fn a_follower_that_is_killed_has_every_commit_once() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let leader = open(&at("leader"));
    leader.set_bookmark(BOOKMARK, 0, 1 << 30).unwrap();
    let kills = setting("SLOTLOG_TEST_KILLS", 200);
    let mut random = Random(kills);
    let start = |role: &str, seed: u64| {
        let player = Player::start(role, seed.to_string(), &at("leader"));
        assert_eq!(player.next(), "ready");
        player
    };
    let (mut leads, mut follows) = (start("leader", 0), start("follower", 0));
    let mut killed = [0, 0];
    while killed.iter().any(|&times| times < kills) {
        thread::sleep(Duration::from_micros(random.below(30_000)));
        let whom = random.below(2) as usize;
        killed[whom] += 1;
        match whom {
            0 => {
                leads.kill();
                leads = start("leader", killed[0]);
            }
            _ => {
                follows.kill();
                follows = start("follower", 0);
            }
        }
    }
    leads.kill();
    follows.kill();
    let follower = open(&at("follower"));
    let seen = seen_by(&follower);
    let mut feed = leader.changes(seen).unwrap();
    catch_up(&mut feed, &follower).unwrap();
    assert!(everything_in(&follower) == everything_in(&leader), "after commit {seen:#x}");
    let (commits, of_follower) = (leader.stats().unwrap().commits, follower.stats().unwrap().commits);
    println!("{killed:?} kills, {commits} commits, {of_follower} at the follower");
    assert!(of_follower > 10 * kills, "{of_follower}");
    assert!(!leader.bookmarks().unwrap()[0].is_broken);
    assert_clean(&follower);
    assert_clean(&leader);
}
