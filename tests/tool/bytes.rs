//! Keys and values that are no text, on the command line and in lists.

use super::*;

#[test]
fn odd_keys_and_values_survive_the_command_line() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    let list = place.line("list a.slotlog");
    assert_eq!(
        list.sorted(),
        [
            "\tthe empty key",
            r"\xff\xfe	\x00\x01\n\t\\",
            "alice\t3 visits",
            "empty\t",
            "gr\u{fc}n\t\u{4e2d}",
            "later\tgone\t2100-01-01T00:00:00.123Z",
        ]
    );
    place.run(["get", "a.slotlog", ""]).prints("the empty key\n");
    place.run(["get", "a.slotlog", r"\xff\xfe"]).prints("\\x00\\x01\\n\\t\\\\\n");
    assert_eq!(place.run(["get", "a.slotlog", r"\xff\xfe", "--raw"]).bytes, b"\x00\x01\n\t\\");
    place.run(["set", "a.slotlog", r"\xff\xfe", r"a\\b\x00"]).prints("");
    place.with_input("set a.slotlog raw -", b"\x00\xff\r\n\\n").prints("");
    let store = read_only(&path).unwrap();
    assert_eq!(store.get(b"\xff\xfe").unwrap().unwrap(), b"a\\b\0");
    assert_eq!(store.get("raw").unwrap().unwrap(), b"\x00\xff\r\n\\n");
    place.run(["get", "a.slotlog", r"a\q"]).fails(&["the key", r"write a backslash as \\"]);
    place.run(["set", "new.slotlog", "key", r"\x4"]).fails(&["the value", "two hexadecimal digits"]);
    assert!(!place.at("new.slotlog").exists(), "a mistake makes no store");
}

/// An argument need not be UTF-8.
#[cfg(unix)]
#[test]
fn arguments_may_be_any_bytes() {
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    let key = OsStr::from_bytes(b"\xff\xfekey");
    place.run([OsStr::new("set"), OsStr::new("a.slotlog"), key, OsStr::from_bytes(b"\xc3")]).prints("");
    assert_eq!(place.run([OsStr::new("get"), OsStr::new("a.slotlog"), OsStr::new("--raw"), key]).bytes, b"\xc3");
    place.line("list a.slotlog").prints("\\xff\\xfekey\t\\xc3\n");
    let prefix = OsStr::from_bytes(b"\xff");
    place.run([OsStr::new("count"), OsStr::new("a.slotlog"), OsStr::new("--prefix"), prefix]).prints("1\n");
    // So may the name of the file.
    let file = OsStr::from_bytes(b"\xff.slotlog");
    place.run([OsStr::new("set"), file, OsStr::new("x"), OsStr::new("1")]).prints("");
    place.run([OsStr::new("get"), file, OsStr::new("x")]).prints("1\n");
}

#[test]
fn a_terminal_is_not_confused() {
    let place = Place::new();
    let store = Store::open(place.at("a.slotlog")).unwrap();
    store.insert("\u{1b}[31mred\u{9b}", "\u{7}\r\u{85}").unwrap();
    store.map::<str, str>("\u{1b}[2J").unwrap();
    store.map::<str, str>("\u{9b}").unwrap();
    store.close().unwrap();
    // A name that a file may have on this system, and one that it has not.
    #[cfg(unix)]
    {
        let name = "\u{1b}[31m\n.slotlog";
        fs::copy(place.at("a.slotlog"), place.at(name)).unwrap();
        place.run(["get", "\u{1b}[2J\n", "x"]).fails(&["\\x1b[2J\\n: not found"]);
        place.run(["export", name, name]).fails(&["\\x1b[31m\\n.slotlog: already exists"]);
        let missing = place.run(["get", name, "x"]);
        assert_eq!((missing.code, missing.err.lines().count()), (Some(1), 1), "{missing:?}");
        assert!(!missing.err.contains('\u{1b}'), "{missing:?}");
        let asked = place.line("list");
        assert!(asked.err.contains("Here are \\x1b[31m\\n.slotlog, a.slotlog"), "{asked:?}");
        fs::remove_file(place.at(name)).unwrap();
    }
    for line in [
        "list a.slotlog",
        "list a.slotlog --json",
        "maps a.slotlog",
        "maps a.slotlog --json",
        "watch a.slotlog --since 0 --stop",
        "watch a.slotlog --since 0 --stop --json",
        "get a.slotlog x --map y",
    ] {
        let ran = place.line(line);
        let text = ran.out + &ran.err;
        assert!(!text.is_empty() && !text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    }
}
