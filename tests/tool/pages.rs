//! The examples of the page of tools, and of each command's help, do what they say.

use std::time::{Duration, Instant};

use super::*;

/// A shell in the place that finds the program.
fn shell(place: &Place, script: &str) -> Command {
    let folder = Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(format!("set -o pipefail; {script}")).current_dir(place.folder.path()).stdin(Stdio::null());
    shell.env("PATH", path).env("HOME", place.folder.path()).env_remove("COLUMNS");
    shell
}

/// Whether a line is as expected; `…` stands for any text.
fn is_like(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn the_page_of_tools_does_what_it_says() {
    if is_emulated() {
        return;
    }
    let place = Place::new();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tools.md")).unwrap();
    let (_, page) = page.split_once("\n## slotlog\n").unwrap();
    let page = page.split("\n## ").next().unwrap();
    let mut ran = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in format!("\n{block}").split("\n$ ").skip(1) {
            let (command, expected) = example.split_once('\n').unwrap_or((example, ""));
            let output = shell(&place, &format!("{command} 2>&1")).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            let (printed, expected): (Vec<&str>, Vec<&str>) = (printed.lines().collect(), expected.lines().collect());
            let same = printed.iter().zip(&expected).all(|(line, expected)| is_like(line, expected));
            // One line may stand for many.
            let enough = printed.len() == expected.len() || expected == ["…"];
            assert!(
                same && enough,
                "$ {command}\nprinted:\n{}\nexpected:\n{}",
                printed.join("\n"),
                expected.join("\n")
            );
            ran += 1;
        }
    }
    assert!(ran > 30, "the examples were found");
}

/// The package index of this machine goes in and comes out bit for bit, where the machine has one.
#[test]
fn the_package_index_of_debian_comes_back() {
    if is_emulated() {
        return;
    }
    let place = Place::new();
    let has = |command: &str| shell(&place, &format!("{command} 2> /dev/null | grep -q .")).status().unwrap().success();
    if !has("command -v perl") || !has("apt-cache dumpavail") {
        eprintln!("skipped: there is no package index here");
        return;
    }
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tools.md")).unwrap();
    let (_, block) = page.split_once("```sh\napt-cache dumpavail").unwrap();
    let block = block.split("```").next().unwrap();
    let output = shell(&place, &format!("set -e; apt-cache dumpavail{block}")).output().unwrap();
    let ran = Ran::of(&output);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.starts_with("Package: bash\n") && !ran.out.contains("differ"), "{}", ran.out);
    assert!(fs::metadata(place.at("index")).unwrap().len() > 0);
}

/// What the examples of the help need.
fn prepare(place: &Place) {
    place.example("app.slotlog");
    for (line, input) in [
        ("set app.slotlog picture -", "a picture"),
        ("set app.slotlog bob -", "1 visit"),
        ("set app.slotlog session/7 -", "token"),
        ("set app.slotlog user/7 -", "Ada"),
    ] {
        place.with_input(line, input).prints("");
    }
    place.line("backup app.slotlog sunday.slotlog").done();
    place.line("backup app.slotlog nightly.slotlog").done();
    place.line("backup app.slotlog monday.increment --since sunday.slotlog").done();
    place.line("backup app.slotlog tuesday.increment --since sunday.slotlog").done();
    for copy in ["yesterday.slotlog", "a.slotlog", "b.slotlog", "damaged.slotlog", "copy.slotlog"] {
        fs::copy(place.at("sunday.slotlog"), place.at(copy)).unwrap();
    }
    place.line("export app.slotlog everything.jsonl --all-maps").done();
    place.write("words.tsv", "one\t1\ntwo\t2\n");
    place.write("ages.tsv", "Ada\t36\n");
    place.write("picture.png", b"\x89PNG\0");
    place.write("words.tsv.gz", "");
    assert!(shell(place, "gzip -fk words.tsv").status().unwrap().success());
    for folder in [".local/share/bash-completion/completions", ".config/fish/completions", ".local/share/man/man1"] {
        fs::create_dir_all(place.at(folder)).unwrap();
    }
}

#[test]
fn the_examples_of_the_help_run() {
    if is_emulated() {
        return;
    }
    let place = Place::new();
    let commands = place.line("--help").out;
    let (_, commands) = commands.split_once("Commands:\n").unwrap();
    let commands: Vec<&str> = commands.lines().map_while(|line| line.split_whitespace().next()).collect();
    drop(place);
    let mut ran = 0;
    for command in commands.iter().filter(|command| **command != "help").chain(&["--help"]) {
        let place = Place::new();
        let help = if *command == "--help" { place.line("--help") } else { place.line(&format!("{command} --help")) };
        let (_, examples) = help.out.split_once("\nExamples:\n").unwrap();
        for example in examples.lines().map_while(|line| line.strip_prefix("  ")) {
            // Each begins with the same files.
            for name in place.names() {
                let path = place.at(&name);
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
            prepare(&place);
            run_example(&place, example);
            ran += 1;
        }
    }
    assert!(ran > 40, "{ran} examples were found");
}

fn run_example(place: &Place, example: &str) {
    let missing = ["jq", "gzip"].into_iter().find(|tool| {
        example.contains(tool) && !shell(place, &format!("command -v {tool} > /dev/null")).status().unwrap().success()
    });
    // Text after some spaces explains the example.
    let script = example.split("   ").next().unwrap();
    if let Some(missing) = missing {
        eprintln!("skipped, for {missing} is not here: {script}");
        return;
    }
    if script.contains("bench") && !script.contains("0.1") {
        // That takes long, and may go where this test must not write.
        return;
    }
    if script.starts_with("slotlog watch") && !script.contains("--stop") {
        let mut child = shell(place, &format!("exec {script}")).stdout(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            assert!(child.try_wait().unwrap().is_none(), "it waits: {script}");
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    }
    // What the example is to make is not there yet.
    let made = match script.split(' ').nth(1) {
        Some("export") => "everything.jsonl words.tsv copy.slotlog",
        Some("restore") => "app.slotlog",
        _ => "*.increment",
    };
    let clear = format!("rm -f {made}");
    let output = shell(place, &format!("{clear}; {script}")).output().unwrap();
    let ran = Ran::of(&output);
    let says_no = script.starts_with("slotlog diff") || script.starts_with("slotlog repair");
    assert!(ran.code == Some(0) || says_no && ran.code == Some(1), "{script}: {ran:?}");
}

/// `file` knows a store by its first bytes.
#[test]
fn the_magic_knows_a_store() {
    let place = Place::new();
    place.example("a.slotlog");
    place.line("export a.slotlog out.dump").done();
    let magic = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/slotlog.magic");
    let mut file = Command::new("file");
    let Ok(output) =
        file.args(["-b", "-m", magic, "a.slotlog", "out.dump", magic]).current_dir(place.folder.path()).output()
    else {
        eprintln!("skipped: `file` is not here");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout);
    let told: Vec<&str> = told.lines().collect();
    let version = format!("slotlog key-value store, format version {}, ", slotlog::format::VERSION);
    assert!(told[0].starts_with(&version) && told[0].ends_with(" bytes at its last checkpoint"), "{told:?}");
    assert_eq!(told[1], "slotlog dump");
    assert!(!told[2].contains("slotlog"), "{told:?}");
}
