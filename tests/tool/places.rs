//! Files that are no stores, stores that cannot be used, and folders that cannot be written to.

use super::*;

/// Commands that read the store `x.slotlog`.
const READING: [&str; 12] = [
    "get x.slotlog key",
    "list x.slotlog",
    "count x.slotlog",
    "maps x.slotlog",
    "export x.slotlog -",
    "backup x.slotlog copy",
    "restore x.slotlog copy",
    "verify x.slotlog",
    "repair x.slotlog copy",
    "watch x.slotlog --stop",
    "diff x.slotlog x.slotlog",
    "diff good.slotlog x.slotlog",
];

const WRITING: [&str; 3] = ["remove x.slotlog key", "compact x.slotlog", "import x.slotlog lines.tsv"];

#[test]
fn a_missing_file_is_not_made() {
    let place = Place::new();
    place.example("good.slotlog");
    for line in READING.iter().chain(&WRITING[..2]) {
        place.line(line).fails(&["x.slotlog: not found; check the path"]);
    }
    place.line("set no/where.slotlog key value").fails(&["no/where.slotlog: not found"]);
    assert_eq!(place.names(), ["good.slotlog"]);
}

#[test]
fn what_is_no_store_is_left_alone() {
    let place = Place::new();
    place.example("good.slotlog");
    place.write("lines.tsv", "key\tvalue\n");
    let text = "this is some text, and no store, of more than a few bytes";
    place.write("x.slotlog", text);
    for line in READING.iter().chain(&WRITING).chain(&["set x.slotlog key value"]) {
        // A repair looks for records, and says that there are none.
        if !line.starts_with("repair") {
            place.line(line).fails(&["x.slotlog: ", "not a slotlog store"]);
        }
    }
    assert_eq!(place.line("repair x.slotlog copy").code, Some(2));
    assert_eq!(fs::read_to_string(place.at("x.slotlog")).unwrap(), text);
    assert_eq!(place.names(), ["good.slotlog", "lines.tsv", "x.slotlog"]);
    fs::remove_file(place.at("x.slotlog")).unwrap();
    fs::create_dir(place.at("x.slotlog")).unwrap();
    place.line("list x.slotlog").fails(&["x.slotlog: "]);
}

#[test]
fn damage_is_an_error_that_says_what_to_do() {
    let place = Place::new();
    let path = place.example("x.slotlog");
    place.example("good.slotlog");
    place.write("lines.tsv", "key\tvalue\n");
    let len = fs::metadata(&path).unwrap().len();
    fs::File::options().write(true).open(&path).unwrap().set_len(len / 2).unwrap();
    for line in READING.iter().chain(&WRITING).filter(|line| !line.starts_with("repair")) {
        place.line(line).fails(&["x.slotlog: truncated to ", "restore the file from a backup"]);
    }
    // What is shown is not checked, but what is copied is.
    let path = place.example("y.slotlog");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(8).position(|window| window == b"3 visits").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    place.line("list y.slotlog").done();
    let export = place.line("export y.slotlog out.tsv");
    export.fails(&["y.slotlog: corrupt at offset ", "`repair`"]);
    assert!(!place.at("out.tsv").exists() && !place.at("out.tsv.unfinished").exists());
}

#[test]
fn a_store_that_others_have_for_themselves_says_who() {
    let place = Place::new();
    let path = place.example("x.slotlog");
    place.example("good.slotlog");
    place.write("lines.tsv", "key\tvalue\n");
    let store = Store::options().exclusive(true).open(&path).unwrap();
    let pid = format!("process {}", std::process::id());
    for line in READING.iter().chain(&WRITING).chain(&["set x.slotlog key value"]) {
        place.line(line).fails(&["x.slotlog: in use by ", &pid, "close it there first"]);
    }
    drop(store);
    assert_eq!(place.names(), ["good.slotlog", "lines.tsv", "x.slotlog"]);
}

/// A read-only medium: the folder and the file cannot be written to, and nothing of them is.
#[cfg(unix)]
#[test]
fn reading_needs_no_right_to_write() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let path = place.example("a.slotlog");
    let folder = tempfile::tempdir().unwrap();
    let readable = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let before = fs::read(&path).unwrap();
    readable(&path, 0o444);
    readable(place.folder.path(), 0o555);
    readable(folder.path(), 0o777);
    let out = |name: &str| folder.path().join(name).into_os_string().into_string().unwrap();
    let lines = [
        "get a.slotlog alice".to_owned(),
        "list a.slotlog --sort".to_owned(),
        "count a.slotlog --map ages".to_owned(),
        "maps a.slotlog".to_owned(),
        "export a.slotlog - --all-maps".to_owned(),
        format!("backup a.slotlog {}", out("backup")),
        format!("restore a.slotlog {}", out("restored")),
        format!("repair a.slotlog {}", out("repaired")),
        "verify a.slotlog".to_owned(),
        "watch a.slotlog --stop".to_owned(),
        "diff a.slotlog a.slotlog".to_owned(),
    ];
    for line in lines {
        let mut command = place.command();
        unprivileged(&mut command);
        let ran = Ran::of(&command.args(line.split(' ')).output().unwrap());
        assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
    }
    for line in ["set a.slotlog key value", "set new.slotlog key value", "remove a.slotlog alice", "compact a.slotlog"]
    {
        let mut command = place.command();
        unprivileged(&mut command);
        Ran::of(&command.args(line.split(' ')).output().unwrap()).fails(&["permission denied; check the permissions"]);
    }
    readable(place.folder.path(), 0o755);
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(place.names(), ["a.slotlog"]);
}

/// Root may do everything, so the program runs as somebody else.
#[cfg(unix)]
fn unprivileged(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    if support::is_root() {
        command.uid(65534).gid(65534);
    }
}
