//! Copies of a store, what it has been through, and its care.

use super::*;

/// Flips a bit in the value of a record.
fn damage(path: &Path, value: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(value.len()).position(|window| window == value).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_backup_with_increments_is_restored() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    // As long as it is open, closing it compacts nothing away.
    let store = Store::open(&path).unwrap();
    let backed_up = place.line("backup a.slotlog sunday.slotlog");
    assert!(backed_up.done().starts_with("14 entries up to commit 0x"), "{backed_up:?}");
    place.line("set a.slotlog alice 4").prints("");
    let report: serde_json::Value =
        serde_json::from_str(place.line("backup a.slotlog monday --since sunday.slotlog --json").done()).unwrap();
    assert_eq!((&report["finished"], &report["keys"]), (&true.into(), &1.into()));
    place.line("remove a.slotlog empty").prints("");
    place.line(&format!("backup a.slotlog tuesday --since {}", report["seq"])).done();
    drop(store);

    let restored = place.line("restore sunday.slotlog b.slotlog monday tuesday");
    restored.prints("13 entries restored, with 2 commits of increments\n");
    assert_same(&path, &place.at("b.slotlog"));
    place.line("restore sunday.slotlog b.slotlog").fails(&["b.slotlog: already exists", "--overwrite"]);
    place.line("restore sunday.slotlog b.slotlog tuesday --overwrite").fails(&["cannot apply changes"]);
    assert_same(&path, &place.at("b.slotlog"));
    place.line("restore sunday.slotlog b.slotlog monday --overwrite").done();
    place.line("get b.slotlog alice").prints("4\n");
    assert_eq!(place.names(), ["a.slotlog", "b.slotlog", "monday", "sunday.slotlog", "tuesday"]);
    // A store in use is not replaced, nor is something else; a damaged one is.
    let open = Store::open(place.at("b.slotlog")).unwrap();
    place.line("restore sunday.slotlog b.slotlog --overwrite").fails(&["in use"]);
    drop(open);
    place.write("text", "precious text of some length, and no store at all");
    place.line("restore sunday.slotlog text --overwrite").fails(&["not a slotlog store"]);
    let len = fs::metadata(place.at("b.slotlog")).unwrap().len();
    fs::File::options().write(true).open(place.at("b.slotlog")).unwrap().set_len(len / 2).unwrap();
    place.line("restore sunday.slotlog b.slotlog --overwrite").done();
    place.line("verify b.slotlog").done();
}

#[test]
fn a_damaged_backup_is_not_restored() {
    let place = Place::new();
    place.example("a.slotlog");
    place.line("backup a.slotlog copy.slotlog").done();
    place.line("backup a.slotlog copy.slotlog").fails(&["copy.slotlog: already exists"]);
    place.line("backup a.slotlog copy.slotlog --overwrite").done();
    place.line("backup a.slotlog a.slotlog --overwrite").fails(&["is the store that is being copied"]);
    place.line("backup a.slotlog more --since a.slotlog").fails(&["a.slotlog: is no backup"]);
    damage(&place.at("copy.slotlog"), b"3 visits");
    place.line("restore copy.slotlog b.slotlog").fails(&["copy.slotlog: damaged", "restore another backup"]);
    place.line("restore missing b.slotlog").fails(&["missing: not found"]);
    assert_eq!(place.names(), ["a.slotlog", "copy.slotlog"]);
}

/// Such a file is what a restore leaves that was killed.
#[test]
fn a_restore_spares_what_it_is_made_of() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    place.line("backup a.slotlog b.unfinished").done();
    let refused = ["b.unfinished: is where the new store is made", "rename it"];
    place.line("restore b.unfinished b").fails(&refused);
    place.line("restore a.slotlog b b.unfinished").fails(&refused);
    assert_same(&path, &place.at("b.unfinished"));
    assert_eq!(place.names(), ["a.slotlog", "b.unfinished"]);
}

#[test]
fn damage_is_found_and_what_is_whole_is_saved() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    let clean = place.line("verify a.slotlog");
    assert!(clean.done().starts_with("no findings in ") && clean.out.lines().count() == 1, "{clean:?}");
    place.line("repair a.slotlog whole.slotlog").done();
    damage(&path, b"3 visits");
    let before = fs::read(&path).unwrap();
    let found = place.line("verify a.slotlog");
    assert!(found.says_no().contains(" findings in "), "{found:?}");
    assert!(found.out.contains("  at offset ") && found.out.contains("slotlog repair"), "{found:?}");
    let json: serde_json::Value = serde_json::from_str(place.line("verify a.slotlog --json").says_no()).unwrap();
    assert_eq!(json["findings"].as_array().unwrap().len() as u64, json["finding_count"]);
    let saved = place.line("repair a.slotlog saved.slotlog");
    assert!(saved.says_no().starts_with("13 keys saved, 6 named maps; none is known to be lost\n"), "{saved:?}");
    let json: serde_json::Value =
        serde_json::from_str(place.line("repair a.slotlog saved.slotlog --overwrite --json").says_no()).unwrap();
    assert_eq!(json["keys"], 13);
    place.line("verify saved.slotlog").done();
    let diff = place.line("diff a.slotlog saved.slotlog");
    assert_eq!(diff.code, Some(2), "the damaged store cannot be compared: {diff:?}");
    place.line("repair a.slotlog saved.slotlog").fails(&["already exists"]);
    assert!(fs::read(&path).unwrap() == before, "the damaged file was only read");
}

#[test]
fn a_compaction_makes_room_and_says_what_is_held_back() {
    let place = Place::new();
    let path = place.at("a.slotlog");
    let store = Store::options().auto_compact(None).open(&path).unwrap();
    for number in 0..20_000u32 {
        store.insert(number.to_le_bytes(), [7; 100]).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    store.clear().unwrap();
    let held = place.line("compact a.slotlog");
    assert!(held.says_no().contains("hold back"), "{held:?}");
    drop(snapshot);
    let before = store.stats().unwrap().file_len;
    store.close().unwrap();
    assert!(place.line("compact a.slotlog").done().contains("the file has "));
    assert!(fs::metadata(&path).unwrap().len() < before / 10);
    let json: serde_json::Value = serde_json::from_str(place.line("compact a.slotlog --json").done()).unwrap();
    assert_eq!(json["finished"], true);
}

#[test]
fn differences_are_told_by_map() {
    let place = Place::new();
    place.example("a.slotlog");
    place.line("backup a.slotlog b.slotlog").done();
    place.line("diff a.slotlog b.slotlog").prints("");
    place.line("set b.slotlog alice 4").prints("");
    place.line("set b.slotlog --map ages Ada 37").prints("");
    place.line("set b.slotlog later gone").prints("");
    place.run(["set", "b.slotlog", "x", "1", "--map", "new", "--types", "str -> u8"]).prints("");
    let told = place.line("diff a.slotlog b.slotlog");
    let out = told.says_no();
    let (default, rest) = out.split_once("@ ages: str -> u32\n").unwrap();
    assert_eq!(default.lines().count(), 5, "{out}");
    assert!(
        default.starts_with("@ (default)\n")
            && default.contains("-alice\t3 visits\n")
            && default.contains("+alice\t4\n")
    );
    assert!(default.contains("-later\tgone\t2100-01-01T00:00:00.123Z\n") && default.contains("+later\tgone\n"));
    assert_eq!(rest, "-Ada\t36\n+Ada\t37\n@ new: none, and str -> u8\n+x\t1\n");
    let brief = "@ (default)\n-2 +2\n@ ages: str -> u32\n-1 +1\n@ new: none, and str -> u8\n-0 +1\n";
    assert_eq!(place.line("diff a.slotlog b.slotlog --brief").says_no(), brief);
    assert_eq!(place.line("diff a.slotlog b.slotlog --quiet").says_no(), "");
    assert_eq!(place.line("diff a.slotlog b.slotlog --map ages").says_no(), "@ ages: str -> u32\n-Ada\t36\n+Ada\t37\n");
    place.line("diff a.slotlog b.slotlog --map mixed").prints("");
    place.line("diff a.slotlog b.slotlog --map none").fails(&["no map \"none\""]);
}

#[test]
fn what_happens_is_watched() {
    let place = Place::new();
    let store = Store::open(place.at("a.slotlog")).unwrap();
    store.insert("before", "1").unwrap();
    let mut watching = place.spawn("watch a.slotlog --limit 5");
    let mut started = place.spawn("watch a.slotlog --since 0 --json");
    drop(started.stdin.take());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(started.stdout.take().unwrap()));
    // It has begun.
    assert!(
        lines.next().unwrap().unwrap().contains("\"change\":\"set\",\"map\":\"\",\"key\":\"before\",\"value\":\"1\"}")
    );
    // The other one may have begun later, and then sees less of what comes now, until it has seen enough.
    let ages = store.map::<str, u32>("ages").unwrap();
    while watching.try_wait().unwrap().is_none() {
        ages.insert("Ada", 36).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let ran = Ran::of(&watching.wait_with_output().unwrap());
    assert_eq!(ran.done().lines().count(), 5);
    assert!(ran.out.ends_with("\tset\tages\tAda\t36\n"), "{ran:?}");
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains("\"change\":\"create\",\"map\":\"ages\",\"types\":\"str -> u32\",\"version\":0}"));
    assert!(next().contains("\"change\":\"set\",\"map\":\"ages\",\"key\":\"Ada\",\"value\":36}"));
    started.kill().unwrap();
    started.wait().unwrap();

    store.rename_map("ages", "years").unwrap();
    store.remove("before").unwrap();
    store.clear().unwrap();
    store.drop_map("years").unwrap();
    let all = place.line("watch a.slotlog --since 0 --stop");
    let last: Vec<&str> = all.done().lines().rev().take(4).map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(last, ["drop\tyears", "clear\t(default)", "remove\t(default)\tbefore", "rename\tyears\tfrom ages"]);
    place.line("watch a.slotlog --since 0x7 --stop").fails(&["no longer in the log"]);
}

#[test]
fn the_bench_leaves_nothing() {
    let place = Place::new();
    let ran = place.line("bench . --seconds 0.02 --threads 2");
    assert!(ran.done().starts_with("what"), "{ran:?}");
    assert_eq!(ran.out.lines().count(), 7, "{ran:?}");
    let ran = place.line("bench --seconds 0.02 --threads 2 --json");
    let lines: serde_json::Value = serde_json::from_str(ran.done()).unwrap();
    for line in lines.as_array().unwrap() {
        assert!(
            line["count"].as_u64().unwrap() > 0 && line["median"].as_u64().unwrap() <= line["max"].as_u64().unwrap()
        );
    }
    place.line("bench missing").fails(&["could not be created"]);
    assert_eq!(place.names(), [""; 0]);
}
