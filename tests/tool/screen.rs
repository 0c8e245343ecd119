//! What a person sees: mistakes in the arguments, narrow terminals, closed pipes, help.

use std::time::Duration;

use super::*;

#[test]
fn mistakes_are_explained() {
    let place = Place::new();
    for (line, what) in [
        ("nonsense", "unrecognized subcommand 'nonsense'"),
        ("gett a.slotlog", "similar subcommand"),
        ("get", "<FILE>"),
        ("get a.slotlog", "<KEYS>..."),
        ("set a.slotlog key", "<VALUE>"),
        ("list a.slotlog more", "unexpected argument 'more'"),
        ("list a.slotlog --limit many", "invalid value 'many' for '--limit <COUNT>'"),
        ("list a.slotlog --limit -1", "'-1'"),
        ("export a.slotlog - --format csv", "possible values: jsonl, tsv, dump"),
        ("export a.slotlog - --map a --all-maps", "cannot be used with"),
        ("set a.slotlog k v --types u8", "--map <MAP>"),
        ("bench --seconds 0", "expected a number from 0.01 to 3600"),
        ("bench --threads 0", "0 is not in 1..=1024"),
        ("watch a.slotlog --since yesterday", "expected the number of a commit"),
    ] {
        let ran = place.line(line);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{line}: {ran:?}");
        assert!(ran.err.contains(what), "{line}: {ran:?}");
    }
    place.run(["set", "a.slotlog", "k", "v", "--types", "str -> u8", "--map", ""]).fails(&["map"]);
    assert_eq!(place.run([""; 0]).code, Some(2));
}

#[test]
fn without_a_file_commands_say_how_to_go_on() {
    let place = Place::new();
    let ran = place.line("list");
    assert!(ran.err.ends_with("FILE is the file of a store. `slotlog set FILE KEY VALUE` makes one.\n"), "{ran:?}");
    place.line("set one.slotlog key value").prints("");
    for command in ["get", "list", "count", "maps", "verify", "compact", "watch", "export", "backup"] {
        let ran = place.line(command);
        assert!(ran.err.ends_with("FILE is the file of a store, such as one.slotlog here.\n"), "{ran:?}");
    }
    place.line("set two.slotlog key value").prints("");
    let ran = place.line("diff");
    assert!(ran.err.ends_with("FILE is the file of a store. Here are one.slotlog, two.slotlog.\n"), "{ran:?}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    if is_emulated() {
        return;
    }
    let place = Place::new();
    place.example("a.slotlog");
    // More than a pipe holds.
    let store = Store::open(place.at("a.slotlog")).unwrap();
    for number in 0..50_000u32 {
        store.insert(number.to_string(), [b'v'; 100]).unwrap();
    }
    store.close().unwrap();
    for line in [
        "get a.slotlog alice",
        "list a.slotlog",
        "list a.slotlog --sort --json",
        "count a.slotlog",
        "maps a.slotlog",
        "export a.slotlog - --quiet",
        "export a.slotlog - --quiet --format dump --all-maps",
        "verify a.slotlog --json",
        "watch a.slotlog --since 0",
        "completions bash",
        "help list",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.command().args(line.split(' ')).stdout(writer).output().unwrap();
        let ran = Ran::of(&output);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{line}: {ran:?}");
    }
    let mut head = Command::new("sh");
    head.arg("-c").arg("\"$0\" list a.slotlog | head -n 1").arg(PROGRAM).current_dir(place.folder.path());
    let ran = Ran::of(&head.output().unwrap());
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (1, ""));
}

#[test]
fn twenty_columns_are_enough() {
    let place = Place::new();
    place.example("a.slotlog");
    place
        .run(["set", "a.slotlog", "k", "1", "--map", "\u{4e2d}\u{6587}\u{5730}\u{56fe}", "--types", "str -> u8"])
        .prints("");
    for columns in ["20", "40", "80"] {
        let output = place.command().args(["maps", "a.slotlog"]).env("COLUMNS", columns).output().unwrap();
        let ran = Ran::of(&output);
        let width = |line: &str| line.chars().map(|c| if c > '\u{2e80}' { 2 } else { 1 }).sum::<usize>();
        let widest = ran.done().lines().map(width).max().unwrap();
        assert!(widest <= columns.parse().unwrap(), "{columns}: {widest}\n{}", ran.out);
        assert!(ran.out.lines().all(|line| line == line.trim_end()), "{}", ran.out);
    }
    let output = place.command().args(["bench", "--seconds", "0.01"]).env("COLUMNS", "20").output().unwrap();
    assert!(Ran::of(&output).done().lines().all(|line| line.chars().count() <= 20), "{output:?}");
}

/// On a terminal, differences have colours and long tasks show how far they are; `NO_COLOR` is respected.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_colours_and_progress() {
    if is_emulated() {
        return;
    }
    let place = Place::new();
    place.line("set a.slotlog key one").prints("");
    place.line("set b.slotlog key two").prints("");
    let on_terminal = |variable: &str| {
        let line = format!("{variable} TERM=xterm {PROGRAM} diff a.slotlog b.slotlog");
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).current_dir(place.folder.path()).stdin(Stdio::null());
        script.env_remove("NO_COLOR").output()
    };
    let Ok(output) = on_terminal("COLUMNS=20") else {
        eprintln!("skipped: `script` is not here");
        return;
    };
    let coloured = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(coloured.contains("\u{1b}[31m-key\tone\u{1b}[0m\n"), "{coloured:?}");
    let plain = on_terminal("NO_COLOR=1").unwrap();
    let plain = String::from_utf8_lossy(&plain.stdout).replace('\r', "");
    assert_eq!(plain, "@ (default)\n-key\tone\n+key\ttwo\n");
    assert!(!place.line("diff a.slotlog b.slotlog").out.contains('\u{1b}'));
}

#[test]
fn help_completions_and_manual_know_every_command() {
    let place = Place::new();
    let help = place.line("--help");
    let (_, commands) = help.done().split_once("Commands:\n").unwrap();
    let commands: Vec<&str> = commands.lines().map_while(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 15, "{commands:?}");
    fs::create_dir(place.at("man")).unwrap();
    place.line("manual man").prints("");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.line(&format!("completions {shell}"));
        for command in &commands {
            assert!(script.done().contains(command), "{shell} does not know {command}");
        }
    }
    for command in commands.iter().filter(|command| **command != "help") {
        let page = fs::read_to_string(place.at(&format!("man/slotlog-{command}.1"))).unwrap();
        let help = place.line(&format!("{command} --help"));
        assert!(help.done().contains("\nExamples:\n"), "{command} has no examples");
        assert!(page.contains(".SH OPTIONS"), "{page}");
        let short = place.line(&format!("{command} -h"));
        assert!(short.done().lines().count() <= help.out.lines().count());
    }
    assert!(fs::read_to_string(place.at("man/slotlog.1")).unwrap().contains("slotlog\\-import(1)"));
    assert!(fs::read_to_string(place.at("man/slotlog-stats.1")).unwrap().contains("\\-\\-explain"));
    assert!(place.line("completions fish --of slotlog-stats").done().contains("-l explain"));
    assert!(place.line("--version").done().starts_with("slotlog "));
}

/// An import of a pipe shows what it does while it waits.
#[cfg(target_os = "linux")]
#[test]
fn progress_is_shown_on_a_terminal_only() {
    if is_emulated() {
        return;
    }
    let place = Place::new();
    let line = format!("(seq 1 100 | sed 's/.*/&\\t&/'; sleep 2) | {PROGRAM} import a.slotlog - --format tsv");
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .current_dir(place.folder.path())
        .stdin(Stdio::null())
        .env("TERM", "xterm");
    let Ok(output) = script.output() else {
        eprintln!("skipped: `script` is not here");
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("importing") && shown.contains("/s"), "{shown:?}");
    assert!(shown.contains("slotlog: 100 entries imported"), "{shown:?}");
    let child = place.spawn("import b.slotlog - --format tsv");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(Ran::of(&child.wait_with_output().unwrap()).err, "slotlog: 0 entries imported\n");
}
