//! What is printed for programs.

use std::collections::BTreeSet;

use super::support::read_only;
use super::*;

#[test]
fn json_agrees_with_the_library() {
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let output = stats(&path, &["--json", "--exact"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed = json(&output);
    assert_eq!(printed["schema"], 1);
    assert_eq!(printed["program"], concat!("slotlog-stats ", env!("CARGO_PKG_VERSION")));

    let store = read_only(&path).unwrap();
    let mut figures = serde_json::to_value(store.stats().unwrap()).unwrap();
    // What expires is judged by the clock, and there by a sample.
    let mut of_stats = printed["stats"].clone();
    for maps in [&mut figures["maps"], &mut of_stats["maps"]] {
        maps.as_array_mut().unwrap().iter_mut().for_each(|map| map["expired_bytes"] = Value::Null);
    }
    assert_eq!(of_stats, figures);
    assert_eq!(printed["census"], serde_json::to_value(store.census().unwrap()).unwrap());
    assert!(printed.get("verify").is_none());

    assert_eq!(of_stats["path"], path.to_str().unwrap());
    assert_eq!(of_stats["opened"], "clean");
    let created = humantime::parse_rfc3339(of_stats["created"].as_str().unwrap()).unwrap();
    assert_eq!(created, store.stats().unwrap().created);
    let map = of_stats["maps"].as_array().unwrap().iter().find(|map| map["name"] == "a\nb").unwrap();
    assert_eq!((map["types"].as_str(), map["version"].as_u64()), (Some("u32 -> (str, bool)"), Some(3)));
    let images = printed["census"]["maps"].as_array().unwrap().iter().find(|map| map["name"] == "images").unwrap();
    assert_eq!(images["largest"][0]["key"], "\"left\" & <forgotten>\\n.tar");
    assert_eq!(images["values"]["max"], 2 << 20);
}

#[test]
fn the_report_of_a_check_is_there_if_asked_for() {
    let _turn = turn();
    let (_folder, path) = example_store();
    let output = stats(&path, &["--json", "--verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = read_only(&path).unwrap().verify().unwrap();
    assert_eq!(json(&output)["verify"], serde_json::to_value(&report).unwrap());
    assert_eq!(json(&output)["verify"]["records"], report.records());
    assert_eq!(json(&output)["verify"]["scope"], "everything");
}

#[test]
fn one_map_is_the_only_one() {
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let printed = json(&stats(&path, &["--json", "--map", "users"]));
    for part in ["stats", "census"] {
        let maps = printed[part]["maps"].as_array().unwrap();
        assert_eq!(maps.len(), 1);
        assert_eq!(maps[0]["name"], "users");
    }
}

/// Each field of the object stands in the documentation.
#[test]
fn the_schema_is_documented() {
    fn fields(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(name, value)| {
                found.insert(name.clone());
                fields(value, found);
            }),
            Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
            _ => {}
        }
    }
    let _turn = turn();
    let (_folder, path) = mixed_store();
    let mut found = BTreeSet::new();
    let store = Store::open(&path).unwrap();
    store.set_bookmark("replica", store.seq().unwrap(), 1 << 20).unwrap();
    let snapshot = store.snapshot().unwrap();
    fields(&json(&stats(&path, &["--json", "--verify"])), &mut found);
    drop(snapshot);
    damage(&path, b"the user 500, with a name and an address");
    fields(&json(&stats(&path, &["--json", "--verify"])), &mut found);
    assert!(found.len() > 80, "{found:?}");
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tools.md")).unwrap();
    let missing: Vec<&String> = found.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/tools.md does not say what these are: {missing:?}");
}
