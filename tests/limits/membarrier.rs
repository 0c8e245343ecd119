//! A process to which the system denies the memory barrier.

use super::*;

/// From now on the system denies this process the call `membarrier`, as a sandbox does. `false` if that is impossible.
fn refuse_membarrier() -> bool {
    let step = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // The number of the call is the first word of the filter's input.
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_membarrier as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: both calls take integers, and the second a program that lives on this stack frame.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    }
}

/// Overwrites a few keys, eight megabytes of values in all, and returns the length of the file after that.
fn write_over(store: &Store) -> u64 {
    for number in 0..8000 {
        store.insert(format!("key {}", number % 10), vec![7; 1000]).unwrap();
    }
    store.stats().unwrap().file_len
}

pub(super) fn without_membarrier(path: &Path) {
    let reuse_refused = |store: &Store| store.stats().unwrap().processes.iter().any(|process| process.reuse_refused);
    let store = Store::open(path).unwrap();
    let before = write_over(&store);
    assert!(!reuse_refused(&store) && !store.compact().unwrap().reuse_refused);
    if !refuse_membarrier() {
        return say("no filter");
    }
    let after = write_over(&store);
    assert!(after > before + 4_000_000, "{before} {after}");
    assert!(reuse_refused(&store) && store.compact().unwrap().reuse_refused);
    say(&std::process::id().to_string());
    // The parent process maintains the store.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let after = store.stats().unwrap().file_len;
    store.close().unwrap();
    let store = Store::open(path).unwrap();
    let under_the_filter = write_over(&store);
    assert!(under_the_filter <= after.max(before) + 1_000_000, "{after} {under_the_filter}");
    assert!(!reuse_refused(&store) && !store.compact().unwrap().reuse_refused);
    assert_clean(&store);
}

#[test]
fn a_process_that_is_refused_the_barrier_is_named() {
    let folder = folder();
    let path = folder.path().join("store");
    let child = Player::start("without membarrier", "", &path);
    let said = child.next();
    if said == "no filter" {
        eprintln!("skipped: the system does not let a process install a filter");
        return;
    }
    let store = Store::open(&path).unwrap();
    let named = |store: &Store| {
        let processes = store.stats().unwrap().processes;
        processes.iter().filter(|process| process.reuse_refused).map(|process| process.pid).collect::<Vec<_>>()
    };
    assert_eq!(named(&store), [said.parse::<u32>().unwrap()]);
    // A process that has the barrier reuses space for both.
    let before = store.stats().unwrap().file_len;
    let report = store.compact().unwrap();
    assert!(!report.reuse_refused && report.file_len < before / 4, "{before} {report:?}");
    store.close().unwrap();
    child.stop();
}
