//! Single keys, and lists of them.

use super::*;

#[test]
fn a_key_is_set_got_and_removed() {
    let place = Place::new();
    place.run(["set", "a.slotlog", "alice", "3 visits"]).prints("");
    place.line("get a.slotlog alice").prints("3 visits\n");
    place.line("get a.slotlog alice --json").prints("{\"key\":\"alice\",\"value\":\"3 visits\"}\n");
    place.line("get a.slotlog alice --raw").prints("3 visits");
    place.line("count a.slotlog").prints("1\n");
    let missing = place.line("get a.slotlog bob alice");
    assert_eq!(missing.says_no(), "3 visits\n");
    assert_eq!(missing.err, "slotlog: a.slotlog: no key \"bob\"\n");
    place.line("remove a.slotlog alice").prints("");
    let again = place.line("remove a.slotlog alice bob");
    assert_eq!(again.says_no(), "");
    assert_eq!(again.err.lines().count(), 2);
    place.line("count a.slotlog").prints("0\n");
    assert_eq!(place.names(), ["a.slotlog"]);
}

#[test]
fn what_was_set_is_durable_and_visible_to_others() {
    let place = Place::new();
    let store = Store::open(place.at("live.slotlog")).unwrap();
    store.insert("before", "1").unwrap();
    place.line("set live.slotlog during 2").prints("");
    assert_eq!(store.get("during").unwrap().as_deref(), Some(&b"2"[..]));
    place.line("remove live.slotlog before").prints("");
    assert_eq!(store.get("before").unwrap(), None);
    // A reader waits for no transaction.
    let transaction = store.begin().unwrap();
    place.line("get live.slotlog during").prints("2\n");
    place.line("list live.slotlog").prints("during\t2\n");
    place.line("verify live.slotlog").done();
    drop(transaction);
}

#[test]
fn a_time_to_live_ends() {
    let place = Place::new();
    place.run(["set", "a.slotlog", "session", "7", "--ttl", "1h 30m"]).prints("");
    let store = read_only(&place.at("a.slotlog")).unwrap();
    let left =
        store.expiry("session").unwrap().unwrap().time().unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left.as_secs() > 5000 && left.as_secs() <= 5400, "{left:?}");
    place.line("set a.slotlog past 8 --ttl 0s").prints("");
    assert_eq!(place.line("get a.slotlog past").code, Some(1));
    place.line("set a.slotlog year 9 --expires 2100-01-01T00:00:00.123Z").prints("");
    place.line("list a.slotlog --prefix year").prints("year\t9\t2100-01-01T00:00:00.123Z\n");
    let json = "{\"key\":\"year\",\"value\":\"9\",\"expires\":\"2100-01-01T00:00:00.123Z\"}\n";
    place.line("get a.slotlog year --json").prints(json);
    place.line("count a.slotlog").prints("2\n");
    let wrong = place.line("set a.slotlog year 9 --ttl soon");
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("--ttl"), "{wrong:?}");
}

#[test]
fn typed_maps_take_and_print_their_types() {
    let place = Place::new();
    place.example("a.slotlog");
    place.line("get a.slotlog --map ages Ada Grace").prints("36\n85\n");
    place.line("set a.slotlog --map ages Bob -1").fails(&["the value \"-1\"", "a number of 0 or more"]);
    place.line("set a.slotlog --map ages Bob 4294967296").fails(&["at most 4294967295"]);
    place.line("set a.slotlog --map ages Bob 4294967295").prints("");
    place
        .run(["get", "a.slotlog", "--map", "mixed", "(-1, 'x')"])
        .prints("(some(true), [0.1, inf, -0.0], \"a \\\"b\\\"\\n\")\n");
    place.run(["get", "a.slotlog", "--map", "set of numbers", "18446744073709551615"]).prints("()\n");
    place.run(["get", "a.slotlog", "--map", "floats", r"\xff\x00"]).prints("NaN\n");
    place.line("get a.slotlog --map odd bytes").prints("\\x01\\x02\\xff\n");
    place.run(["get", "a.slotlog", "--map", "ages", r"\xff", "none"]).prints("\\x61\\x62\\x63\n\\x\n");
    // Numbers are sorted by size.
    for number in ["10", "9", "-1"] {
        place.run(["set", "a.slotlog", number, number, "--map", "numbers", "--types", "i64 -> i64"]).prints("");
    }
    place.line("list a.slotlog --map numbers --sort").prints("-1\t-1\n9\t9\n10\t10\n");
    place.line("list a.slotlog --map numbers --keys --prefix 1").prints("10\n");
}

#[test]
fn a_map_is_created_only_with_types() {
    let place = Place::new();
    place.line("set a.slotlog x 1").prints("");
    place.line("set a.slotlog x 1 --map new").fails(&["no map \"new\"", "--types"]);
    place.line("get a.slotlog x --map new").fails(&["no map \"new\"", "leave --map away"]);
    place.run(["set", "a.slotlog", "x", "1", "--map", "new", "--types", "str -> u8"]).prints("");
    place
        .run(["set", "a.slotlog", "x", "1", "--map", "new", "--types", "str -> u16"])
        .fails(&["str -> u8", "str -> u16"]);
    place.line("get a.slotlog x --map old").fails(&["no map \"old\"", "there are: new"]);
    place.line("list a.slotlog --map (default)").fails(&["leave --map away"]);
    place.line("maps a.slotlog").prints(
        "map        entries  size  types\n(default)        1  48 B  [u8] -> [u8]\n\
         new              1  48 B  str -> u8\n",
    );
}

#[test]
fn lists_are_filtered_cut_and_sorted() {
    let place = Place::new();
    let store = Store::open(place.at("a.slotlog")).unwrap();
    for number in 0..100 {
        store.insert(format!("key {number:02}"), format!("{number}")).unwrap();
        store.insert(format!("other {number:02}"), "").unwrap();
    }
    store.close().unwrap();
    assert_eq!(place.line("list a.slotlog").out.lines().count(), 200);
    let keys: Vec<String> = (0..100).map(|number| format!("key {number:02}\t{number}")).collect();
    assert_eq!(place.run(["list", "a.slotlog", "--prefix", "key "]).sorted(), keys);
    assert_eq!(
        place.run(["list", "a.slotlog", "--prefix", "key ", "--sort", "--limit", "3"]).out.lines().collect::<Vec<_>>(),
        &keys[..3]
    );
    assert_eq!(place.line("list a.slotlog --limit 7 --keys").out.lines().count(), 7);
    place.line("list a.slotlog --limit 0").prints("");
    place.line("list a.slotlog --prefix nothing").prints("");
    place.line("count a.slotlog --prefix other").prints("100\n");
    place.run(["list", "a.slotlog", "--prefix", "key 4", "--sort", "--values", "-n", "2"]).prints("40\n41\n");
    let json = place.run(["list", "a.slotlog", "--prefix", "key 4", "--sort", "--json", "-n", "1"]);
    json.prints("{\"key\":\"key 40\",\"value\":\"40\"}\n");
}

#[test]
fn keys_come_from_standard_input_too() {
    let place = Place::new();
    place.example("a.slotlog");
    let keys = place.line("list a.slotlog --keys").out;
    let values = place.line("list a.slotlog --values").out;
    place.with_input("get a.slotlog -", &keys).prints(&values);
    place.with_input("remove a.slotlog -", &keys).prints("");
    place.line("count a.slotlog").prints("0\n");
}

#[test]
fn a_default_map_without_entries_is_explained() {
    let place = Place::new();
    place.run(["set", "a.slotlog", "x", "1", "--map", "new", "--types", "str -> u8"]).prints("");
    let list = place.line("list a.slotlog");
    assert_eq!(list.done(), "");
    assert!(list.err.contains("slotlog maps"), "{list:?}");
}
