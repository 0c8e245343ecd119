//! Killed at any moment, a backup leaves nothing under its name, or the whole. (At every store of it:
//! `engine::tests::backup`.)

use std::thread;

use super::*;

pub(super) fn back_up_again_and_again(path: &Path) {
    let store = Store::options().access(Access::ReadOnly).open(path).unwrap();
    say("ready");
    for number in 0.. {
        let copy = path.with_file_name(format!("copy {}", number % 2));
        store.backup_with(&copy, overwriting().durability(Durability::Buffered)).unwrap();
    }
}

#[test]
fn a_kill_at_any_moment_leaves_nothing_or_all() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let store = Store::open(at("store")).unwrap();
    store.map::<u64, u64>("map").unwrap().extend((0..9000).map(|n| (n, n))).unwrap();
    store.insert("large", vec![1; 2 << 20]).unwrap();
    let expected = content(&store);
    let mut random = Random(7);
    let (mut unfinished, mut whole) = (0, 0);
    for round in 0..setting("SLOTLOG_TEST_KILLS", 60) {
        let player = Player::start("backup", "", &at("store"));
        assert_eq!(player.next(), "ready");
        thread::sleep(Duration::from_micros(random.below(40_000)));
        player.kill();
        for name in ["copy 0", "copy 1"] {
            unfinished += u64::from(part_of(&at(name)).exists());
            if at(name).exists() {
                whole += 1;
                let copy = Store::options().create(false).open(at(name)).unwrap();
                assert_eq!(copy.opened(), Opened::Clean, "round {round}");
                assert!(content(&copy) == expected, "round {round}");
                assert_eq!(copy.map::<u64, u64>("map").unwrap().len().unwrap(), 9000);
                assert_clean(&copy);
                drop(copy);
                fs::remove_file(at(name)).unwrap();
            }
        }
        // What a dead one has left does not stop the next one.
        if round % 8 == 0 {
            store.backup(at("copy 0")).unwrap();
            assert!(!part_of(&at("copy 0")).exists());
            fs::remove_file(at("copy 0")).unwrap();
        }
    }
    println!("{unfinished} were unfinished, {whole} were whole");
    assert!(unfinished > 0 && whole > 0, "{unfinished} were unfinished, {whole} were whole");
}
