//! Export and import: every format takes everything in and out, bit for bit.

use super::*;
use slotlog::Options;

/// All stores that the formats have to manage.
fn stores(place: &Place) -> Vec<PathBuf> {
    let empty = place.at("empty.slotlog");
    Store::open(&empty).unwrap().close().unwrap();
    vec![place.example("example.slotlog"), empty]
}

#[test]
fn everything_goes_out_and_comes_in() {
    let place = Place::new();
    for path in stores(&place) {
        let name = path.file_name().unwrap().to_str().unwrap();
        for format in ["jsonl", "dump"] {
            for sort in ["", " --sort"] {
                let file = format!("everything.{format}");
                place.line(&format!("export {name} {file} --all-maps --overwrite{sort}")).done();
                let copy = place.at("copy.slotlog");
                place.line(&format!("import copy.slotlog {file}")).done();
                assert_same(&path, &copy);
                place.line(&format!("diff {name} copy.slotlog")).prints("");
                // The same bytes again.
                place.line(&format!("export copy.slotlog again --format {format} --all-maps --sort")).done();
                place.line(&format!("export {name} {file} --all-maps --overwrite --sort")).done();
                assert_eq!(fs::read(place.at("again")).unwrap(), fs::read(place.at(&file)).unwrap(), "{format}");
                fs::remove_file(place.at("again")).unwrap();
                fs::remove_file(copy).unwrap();
            }
        }
    }
}

#[test]
fn a_pipe_does_it_too() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    for format in ["jsonl", "dump"] {
        let out = place.line(&format!("export a.slotlog - --all-maps --format {format} --quiet"));
        assert_eq!(out.err, "");
        let copied = place.with_input(&format!("import {format}.slotlog - --format {format}"), &out.bytes);
        assert_eq!(copied.err, "slotlog: 14 entries imported\n");
        assert_same(&path, &place.at(&format!("{format}.slotlog")));
    }
}

/// TSV has one map.
#[test]
fn each_map_goes_through_tsv() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    place.line("export a.slotlog all.tsv --all-maps").fails(&["TSV", "--map"]);
    let maps = read_only(&path).unwrap().maps().unwrap();
    place.line("export a.slotlog default.tsv").done();
    place.line("import b.slotlog default.tsv").done();
    for map in maps {
        place.run(["export", "a.slotlog", "map.tsv", "--overwrite", "--map", &map.name]).done();
        // The version is not among what the user can say here, so it is copied.
        Store::open(place.at("b.slotlog")).unwrap().import().create_map(&map.name, &map.types, map.version).unwrap();
        place.run(["import", "b.slotlog", "map.tsv", "--map", &map.name, "--types", &map.types]).done();
    }
    assert_same(&path, &place.at("b.slotlog"));
}

#[test]
fn what_the_user_wants_counts_more_than_what_the_input_says() {
    let place = Place::new();
    place.example("a.slotlog");
    place.line("export a.slotlog ages.jsonl --map ages").done();
    place.line("import b.slotlog ages.jsonl --map years").done();
    let sorted = place.line("list a.slotlog --map ages --sort").out;
    place.line("list b.slotlog --map years --sort").prints(&sorted);
    assert!(place.line("maps b.slotlog").out.contains("\nyears            4 "), "{:?}", place.line("maps b.slotlog"));
    place.line("export a.slotlog all.jsonl --all-maps").done();
    place.line("import c.slotlog all.jsonl --map one").fails(&["no map \"one\"", "--types"]);
    let into_one = ["import", "c.slotlog", "all.jsonl", "--map", "one", "--types", "[u8] -> [u8]"];
    place.run(into_one).fails(&["several maps", "6 entries are in the store"]);
    place.line("export a.slotlog - --map none").fails(&["no map \"none\"; there are: ", "ages"]);
    // Keys that are there may stay as they are.
    place.write("more.tsv", "Ada\t1\nBob\t2\n");
    place.line("import b.slotlog more.tsv --map years --keep").done();
    place.line("get b.slotlog --map years Ada Bob").prints("36\n2\n");
    place.line("import b.slotlog more.tsv --map years").done();
    place.line("get b.slotlog --map years Ada Bob").prints("1\n2\n");
}

#[test]
fn people_write_lines_in_many_ways() {
    let place = Place::new();
    place.write("a.tsv", "one\t1\r\n\t\n\ntwo\t2".replace("\n\n", "\n"));
    place.line("import a.slotlog a.tsv").done();
    place.line("list a.slotlog --sort").prints("\t\none\t1\ntwo\t2\n");
    place.write("b.jsonl", "\n  {\"value\": \"1\", \"key\": \"one\"}  \n\n{\"key\":\"two\",\"value\":\"\\u0000\"}");
    place.line("import b.slotlog b.jsonl").done();
    place.line("list b.slotlog --sort").prints("one\t1\ntwo\t\\x00\n");
    // The last one counts.
    place.with_input("import b.slotlog - -f tsv", "one\t2\none\t3\n").done();
    place.line("get b.slotlog one").prints("3\n");
}

#[test]
fn wrong_lines_are_named_and_right_ones_before_are_kept() {
    let place = Place::new();
    for (line, what) in [
        ("three", "line 3: expected a key, a tab and a value"),
        ("three\\q\t3", "line 3: the key: "),
        ("a\tb\tc", "line 3: expected a time"),
        ("a\tb\t2100-01-01T00:00:00Z\td", "line 3: there are too many tabs"),
    ] {
        place.write("a.tsv", format!("one\t1\ntwo\t2\n{line}\nfour\t4\n"));
        let ran = place.line("import a.slotlog a.tsv");
        ran.fails(&["a.tsv: ", what, "2 entries are in the store"]);
        place.line("list a.slotlog --sort").prints("one\t1\ntwo\t2\n");
    }
    for (line, what) in [
        ("{", "line 2: column 1: EOF"),
        ("{\"key\":1,\"value\":\"a\"}", "line 2: the key: expected a string"),
        ("{\"key\":\"a\"}", "line 2: the value: expected a string"),
        ("{\"value\":\"a\"}", "line 2: expected \"key\" and \"value\""),
        ("{\"key\":\"a\",\"value\":\"b\",\"expire\":1}", "line 2: column 31: unknown field `expire`"),
        ("{\"map\":\"none\",\"key\":\"a\",\"value\":\"b\"}", "line 2: b.slotlog: no map \"none\""),
    ] {
        place.write("b.jsonl", format!("{{\"key\":\"one\",\"value\":\"1\"}}\n{line}\n"));
        place.line("import b.slotlog b.jsonl").fails(&["b.jsonl: ", what, "1 entry is in the store"]);
        place.line("list b.slotlog").prints("one\t1\n");
    }
    place.line("import a.slotlog missing.tsv").fails(&["missing.tsv: could not be opened"]);
    place.line("import never.slotlog missing.tsv").fails(&["missing.tsv: could not be opened"]);
    assert!(!place.at("never.slotlog").exists());
}

#[test]
fn a_damaged_or_cut_dump_is_noticed() {
    let place = Place::new();
    let store = Store::open(place.at("a.slotlog")).unwrap();
    for number in 0..20_000u32 {
        store.insert(number.to_le_bytes(), [7; 100]).unwrap();
    }
    store.close().unwrap();
    place.line("export a.slotlog whole.dump").done();
    let whole = fs::read(place.at("whole.dump")).unwrap();
    for len in [0, 10, 15, 20, whole.len() / 2, whole.len() - 1] {
        place.write("cut.dump", &whole[..len]);
        let ran = place.line("import b.slotlog cut.dump");
        ran.fails(&[if len < 15 { "no dump of slotlog" } else { "the dump is cut off" }]);
    }
    for at in [5, 16, 24, 1000, whole.len() / 2, whole.len() - 3] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        place.write("damaged.dump", &damaged);
        place.line("import c.slotlog damaged.dump").fails(&["damaged.dump: "]);
    }
    // What came in is as it was.
    let [whole, part] = ["a.slotlog", "b.slotlog"].map(|name| read_only(&place.at(name)).unwrap());
    let part = support::content(&part);
    let whole = support::content(&whole);
    assert!(part.len() > 5_000 && part.len() < 20_000 && part.iter().all(|(key, value)| whole[key] == *value));
    place.line("import b.slotlog whole.dump").done();
    place.line("diff a.slotlog b.slotlog").prints("");
    place.line("import b.slotlog a.slotlog --format dump").fails(&["no dump of slotlog"]);
}

#[test]
fn what_is_there_is_not_written_again() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    place.line("export a.slotlog all.jsonl --all-maps").done();
    let seq = || read_only(&path).unwrap().seq().unwrap();
    let before = seq();
    let again = place.line("import a.slotlog all.jsonl");
    assert_eq!(again.err, "slotlog: 14 entries imported: 0 written, 14 there already\n");
    assert_eq!(seq(), before);
    // Another deadline is another entry.
    place.line("set a.slotlog later gone").prints("");
    let again = place.line("import a.slotlog all.jsonl");
    assert_eq!(again.err, "slotlog: 14 entries imported: 1 written, 13 there already\n");
}

#[test]
fn a_file_is_not_overwritten_unasked_and_never_there_by_half() {
    let place = Place::new();
    place.example("a.slotlog");
    place.write("out.jsonl", "precious");
    place.line("export a.slotlog out.jsonl").fails(&["out.jsonl: already exists", "--overwrite"]);
    assert_eq!(fs::read(place.at("out.jsonl")).unwrap(), b"precious");
    place.line("export a.slotlog out.jsonl --overwrite").done();
    assert!(fs::read_to_string(place.at("out.jsonl")).unwrap().contains("alice"));
    place.line("export a.slotlog no/where.jsonl").fails(&["no/where.jsonl: could not be written"]);
    place.line("export a.slotlog other.jsonl --map none").fails(&["no map"]);
    assert_eq!(place.names(), ["a.slotlog", "out.jsonl"]);
}

#[test]
fn options_of_bytes_go_out_and_come_in() {
    let place = Place::new();
    let path = place.at("a.slotlog");
    let store = Store::open(&path).unwrap();
    let map = store.map::<Option<Vec<u8>>, Option<[u8; 2]>>("m").unwrap();
    for key in [&b"text"[..], b"\xff", b"\x01", b"", b"[]", b"{}"] {
        map.insert(&Some(key.to_vec()), &Some([key.len() as u8, 255])).unwrap();
    }
    map.insert(&None, &None).unwrap();
    drop(map);
    // No value of the type.
    store.map_as_bytes("m").unwrap().insert(&b"\xff"[..], &b"\x02"[..]).unwrap();
    store.close().unwrap();
    for format in ["jsonl", "tsv"] {
        place.line(&format!("export a.slotlog m.{format} --map m")).done();
        let types = ["--map", "m", "--types", "option([u8]) -> option([u8; 2])"];
        place.run(["import", format, &format!("m.{format}")].into_iter().chain(types)).done();
        assert_same(&path, &place.at(format));
    }
}

/// Damage, or a program that has changed a map as bytes.
#[test]
fn bytes_of_another_size_go_out_and_come_in() {
    let place = Place::new();
    let path = place.at("a.slotlog");
    let store = Store::open(&path).unwrap();
    drop(store.map::<[u8; 3], [u8; 2]>("m").unwrap());
    let map = store.map_as_bytes("m").unwrap();
    for (key, value) in [(&b"abc"[..], &b"de"[..]), (b"ab", b""), (b"", b"\n"), (b"\xff\xfe\xfd\xfc", b"\0\0")] {
        map.insert(key, value).unwrap();
    }
    drop(map);
    store.close().unwrap();
    for format in ["jsonl", "tsv"] {
        place.line(&format!("export a.slotlog m.{format} --map m")).done();
        place.run(["import", format, &format!("m.{format}"), "--map", "m", "--types", "[u8; 3] -> [u8; 2]"]).done();
        assert_same(&path, &place.at(format));
    }
    // A person who miscounts is told.
    place.run(["set", "a.slotlog", "abcd", "de", "--map", "m"]).fails(&["expected 3 bytes, found 4"]);
}

/// Types may be named by anybody, and their sizes add up to anything.
#[test]
fn types_of_any_size_are_shown() {
    let place = Place::new();
    for (number, (types, value)) in [
        ("str -> [[[(); 65536]; 65536]; 65536]", r"\x"),
        ("str -> ([(); 65536], [[(); 65536]; 65536])", r"\x"),
        ("str -> [([u8; 18446744073709551615], [u8; 2])]", r"\x01"),
    ]
    .into_iter()
    .enumerate()
    {
        let map = format!("map {number}");
        place.run(["set", "a.slotlog", "key", value, "--map", &map, "--types", types]).prints("");
        place.run(["get", "a.slotlog", "key", "--map", &map]).prints(&format!("{value}\n"));
    }
}

/// What is not understood is not passed over.
#[test]
fn nothing_of_an_input_is_overlooked() {
    let place = Place::new();
    for (line, what) in [
        (r#"{"map":"m","types":"str -> u8","key":"x","value":1}"#, "a line of their own"),
        (r#"["m","str -> u8",0,"key","value",null]"#, "expected a JSON object"),
        (r#"["key","value"]"#, "expected a JSON object"),
    ] {
        place.with_input("import a.slotlog -", line).fails(&["line 1", what]);
    }
    place.example("a.slotlog");
    for name in ["one.dump", "two.dump"] {
        place.line(&format!("export a.slotlog {name}")).done();
    }
    let both = ["one.dump", "two.dump"].map(|name| fs::read(place.at(name)).unwrap()).concat();
    place.write("both.dump", both);
    place.line("import b.slotlog both.dump").fails(&["more after the end of the dump", "6 entries are in the store"]);
}

#[test]
fn an_export_spares_every_store() {
    let place = Place::new();
    let path = place.example("a.slotlog");
    place.example("b.unfinished");
    for line in ["export a.slotlog a.slotlog --overwrite", "export b.unfinished a.slotlog --overwrite"] {
        place.line(line).fails(&["a.slotlog: is a store", "choose another path"]);
    }
    // Where the file would be until it is complete, and another process may be writing the same file.
    place.line("export b.unfinished b --sort").done();
    place.write("c.unfinished", "of another export");
    place.line("export a.slotlog c --sort").done();
    assert_eq!(fs::read(place.at("c.unfinished")).unwrap(), b"of another export");
    assert_eq!(fs::read(place.at("b")).unwrap(), fs::read(place.at("c")).unwrap());
    place.line("diff a.slotlog b.unfinished").prints("");
    assert_eq!(read_only(&path).unwrap().len().unwrap(), 6);
    assert_eq!(place.names(), ["a.slotlog", "b", "b.unfinished", "c", "c.unfinished"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("nowhere", place.at("link")).unwrap();
        place.line("export a.slotlog link").fails(&["link: already exists"]);
    }
}

#[test]
fn only_named_maps_are_not_overlooked() {
    let place = Place::new();
    place.run(["set", "a.slotlog", "x", "1", "--map", "new", "--types", "str -> u8"]).prints("");
    let ran = place.line("export a.slotlog -");
    assert_eq!(ran.done(), "");
    assert!(ran.err.contains("--all-maps"), "{ran:?}");
}

/// Others can write while nothing comes through the pipe.
#[test]
fn a_slow_pipe_keeps_no_writer_waiting() {
    let place = Place::new();
    let path = place.at("a.slotlog");
    let store = Options::default().lock_timeout(std::time::Duration::from_secs(20)).open(&path).unwrap();
    let mut child = place.spawn("import a.slotlog - --format tsv");
    let mut input = child.stdin.take().unwrap();
    for number in 0..3 {
        writeln!(input, "{number}\t{number}").unwrap();
        input.flush().unwrap();
        let start = std::time::Instant::now();
        while store.get(number.to_string()).unwrap().is_none() {
            assert!(start.elapsed() < support::LONG, "what came is committed while more is awaited");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        store.insert(format!("mine {number}"), "1").unwrap();
    }
    drop(input);
    assert_eq!(Ran::of(&child.wait_with_output().unwrap()).err, "slotlog: 3 entries imported\n");
    assert_eq!(store.len().unwrap(), 6);
}
