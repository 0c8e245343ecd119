//! What the package brings with it: few crates, each with a reason, all under licences that are told. And hosted CI
//! checks what the package says.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The most crates that the library may need without features on Linux and macOS; Windows needs two more to call the
/// system.
const MOST: usize = 17;

/// The systems, as `CONTRIBUTING.md` names them.
const SYSTEMS: [(&str, &str); 3] =
    [("Linux", "x86_64-unknown-linux-gnu"), ("macOS", "aarch64-apple-darwin"), ("Windows", "x86_64-pc-windows-msvc")];

/// The page that [`write_the_licences`] writes.
const LICENCES: &str = "docs/licences.md";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The crates that `cargo tree` lists with these arguments, other than this one: name, version and licence. `None` if
/// cargo would have to download some and cannot.
fn crates(arguments: &[&str]) -> Option<BTreeSet<[String; 3]>> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--prefix", "none", "--format", "{p}|{l}"]).args(arguments).current_dir(root());
    let output = tree.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let is_offline = ["download", "network", "offline"].iter().any(|word| stderr.contains(word));
        assert!(is_offline, "cargo tree {arguments:?}: {stderr}");
        eprintln!("skipped: cargo cannot download what it has to list: {stderr}");
        return None;
    }
    let lines = String::from_utf8(output.stdout).unwrap();
    let parts = lines.lines().filter(|line| !line.starts_with("slotlog ") && !line.is_empty()).map(|line| {
        let (package, licence) = line.trim_end_matches(" (*)").split_once('|').unwrap();
        let mut words = package.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap().trim_start_matches('v'));
        // The old way to write "or".
        [name, version, &licence.replace('/', " OR ")].map(str::to_owned)
    });
    Some(parts.collect())
}

/// The part of a version that an incompatible release changes.
fn series(version: &str) -> String {
    let parts: Vec<&str> = version.split('.').collect();
    if parts[0] == "0" { parts[..2].join(".") } else { parts[0].to_owned() }
}

/// The crates in the table of `CONTRIBUTING.md`, for this system.
fn told(system: &str) -> BTreeSet<String> {
    let text = read("CONTRIBUTING.md");
    let rows = text.lines().skip_while(|line| *line != "| crate | where | why |").skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let rows = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    rows.filter(|cells| cells[2] == "all" || cells[2].split(", ").any(|name| name == system))
        .map(|cells| {
            assert!(cells[3].len() > 10, "a reason for {}", cells[1]);
            cells[1].replace('`', "")
        })
        .collect()
}

#[test]
fn the_library_needs_few_crates_each_with_a_reason() {
    for (system, target) in SYSTEMS {
        let Some(needed) = crates(&["--edges", "normal", "--no-default-features", "--target", target]) else { return };
        let needed: BTreeSet<String> =
            needed.iter().map(|[name, version, _]| format!("{name} {}", series(version))).collect();
        assert_eq!(needed, told(system), "on {system}: the table in CONTRIBUTING.md is not what cargo tree says");
        let most = if system == "Windows" { MOST + 2 } else { MOST };
        assert!(needed.len() <= most, "on {system}: {} crates", needed.len());
    }
}

/// What the optional features add is in the table of the licences only.
#[test]
fn the_features_for_operators_add_two_crates_and_what_those_need() {
    let of = |features: &str| {
        crates(&["--edges", "normal", "--no-default-features", "--features", features, "--target", SYSTEMS[0].1])
    };
    let (Some(without), Some(events), Some(figures)) = (of(""), of("tracing"), of("metrics")) else { return };
    let names = |crates: &BTreeSet<[String; 3]>| -> BTreeSet<String> {
        crates.difference(&without).map(|[name, ..]| name.clone()).collect()
    };
    assert_eq!(names(&events), ["pin-project-lite", "tracing", "tracing-core"].map(String::from).into());
    assert_eq!(names(&figures), ["metrics", "rapidhash"].map(String::from).into());
}

/// The page of the licences, from what cargo says.
fn page() -> Option<String> {
    // Each crate is listed with the first use that needs it.
    let uses: [(&str, &[&str]); 4] = [
        ("the library", &["--edges", "normal,build", "--no-default-features"]),
        (
            "`serde`, `tracing`, `metrics`",
            &["--edges", "normal,build", "--no-default-features", "--features", "serde,tracing,metrics"],
        ),
        ("the programs (`cli`)", &["--edges", "normal,build", "--all-features"]),
        ("tests and benches", &["--edges", "normal,build,dev", "--all-features"]),
    ];
    let mut rows: BTreeMap<(String, String), &str> = BTreeMap::new();
    for (which, arguments) in uses {
        for [name, _, licence] in crates(&[arguments, &["--target", "all"]].concat())? {
            assert!(!licence.is_empty(), "{name} tells no licence");
            rows.entry((name, licence)).or_insert(which);
        }
    }
    let mut page = String::from(concat!(
        "# Licences\n\n",
        "slotlog is under MIT or Apache-2.0, whichever you prefer. These are the licences of all crates that it\n",
        "is built from, as SPDX expressions, on all systems, and what each is for.\n",
        "Which licences are allowed: `deny.toml`.\n\n",
        "`cargo test --test package` compares this page with what cargo says, and\n",
        "`cargo test --test package -- --ignored write_the_licences` writes it anew.\n",
    ));
    for (which, _) in uses {
        let of_use: Vec<_> = rows.iter().filter(|(_, use_of)| **use_of == which).collect();
        page += &format!("\n## For {which}: {}\n\n| crate | licence |\n| --- | --- |\n", of_use.len());
        for ((name, licence), _) in of_use {
            page += &format!("| `{name}` | {licence} |\n");
        }
    }
    Some(page)
}

#[test]
fn the_licences_are_told() {
    let Some(page) = page() else { return };
    let said = read(LICENCES);
    assert!(page.lines().count() > 100, "the crates were found");
    assert!(page == said, "{LICENCES} is out of date: cargo test --test package -- --ignored write_the_licences");
}

#[test]
#[ignore = "writes a page anew"]
fn write_the_licences() {
    fs::write(root().join(LICENCES), page().unwrap()).unwrap();
}

/// The value of a key of the package in `Cargo.toml`.
fn field(key: &str) -> String {
    let manifest = read("Cargo.toml");
    let line = manifest.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
    line.trim_matches('"').to_owned()
}

#[test]
fn hosted_ci_runs_what_is_here_with_the_oldest_compiler_too() {
    let workflow = read(".github/workflows/ci.yml");
    for command in [".ci/run", ".ci/platforms", ".ci/sanitize"] {
        assert!(workflow.contains(command), "{command} is not called");
    }
    let oldest = field("rust-version");
    assert!(workflow.contains(&format!("MSRV: '{oldest}'")), "the workflow has another oldest compiler than {oldest}");
    let system = ["ubuntu", "macos", "windows"].iter().find(|system| !workflow.contains(&format!("{system}-latest")));
    assert!(system.is_none(), "nothing runs on {system:?}");
}
