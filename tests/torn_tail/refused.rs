//! Logs that continue with records that have a valid CRC and must not be believed.

use super::*;

/// The end of the log before the refused records.
pub(super) const BASE_END: u64 = 65680;
/// Its content.
pub(super) const BASE: Content<'static> = &[("a", "2"), ("b", "2")];

pub(super) fn base(template: &[u8]) -> Log {
    let log = Log::of(template, &[commit(1, 1, &[Put("a", "1")]), commit(1, 5, &[Put("b", "2"), Put("a", "2")])]);
    assert_eq!(log.at, BASE_END);
    log
}

/// A row of the other table: records with valid CRCs, after a log that ends with number 5 of the first life.
pub(super) struct Refused {
    what: &'static str,
    /// The first ones are good, this many. The others would be, without the defect that the row is about.
    good: usize,
    records: Vec<Literal>,
}

pub(super) fn refused(what: &'static str, records: &[Literal]) -> Refused {
    Refused { what, good: 0, records: records.to_vec() }
}

pub(super) fn behind_good(what: &'static str, good: usize, records: &[Literal]) -> Refused {
    Refused { what, good, records: records.to_vec() }
}

/// A put of another key.
pub(super) fn put(flags: u8, incarnation: u64, count: u64) -> Literal {
    Literal::new(Kind::Put, flags | NEW, seq(incarnation, count), "never", b"seen")
}

/// A put of yet another key, which ends a commit.
pub(super) fn last(incarnation: u64, count: u64) -> Literal {
    Literal { key: "nor", ..put(COMMIT, incarnation, count) }
}

pub(super) fn jump(incarnation: u64, count: u64, target: u64) -> Literal {
    Literal::new(Kind::Jump, 0, seq(incarnation, count), "", &target.to_le_bytes())
}

pub(super) fn life(flags: u8, incarnation: u64, count: u64) -> Literal {
    Literal::new(Kind::Incarnation, flags, seq(incarnation, count), "", &[])
}

pub(super) fn refused_chains_and_numbers() -> Vec<Refused> {
    vec![
        refused("a chain that is no record's", &[put(COMMIT, 1, 6).chain(0x1234_5678), last(1, 7)]),
        refused("no chain", &[put(COMMIT, 1, 6).chain(0), last(1, 7)]),
        refused("a number that goes back", &[put(COMMIT, 1, 4), last(1, 6)]),
        refused("the number of the commit before", &[put(COMMIT, 1, 5), last(1, 6)]),
        refused("number zero", &[put(COMMIT, 0, 0), last(1, 6)]),
        refused("a life that was not declared", &[put(COMMIT, 2, 6), last(2, 7)]),
        refused("a life before the first", &[put(COMMIT, 0, 6), last(1, 7)]),
        refused("a record without the end of its commit", &[put(0, 1, 6)]),
        refused("records without the end of their commit", &[put(0, 1, 6), Literal { key: "nor", ..put(0, 1, 6) }]),
        refused("another number within a transaction", &[put(0, 1, 6), last(1, 7)]),
        refused("a smaller number within a transaction", &[put(0, 1, 7), last(1, 6)]),
        refused("another life within a transaction", &[put(0, 1, 6), last(2, 6)]),
        refused("a broken chain within a transaction", &[put(0, 1, 6), last(1, 6).chain(0)]),
        refused("kind 0", &[put(COMMIT, 1, 6).kind(0), last(1, 7)]),
        refused("kind 6", &[put(COMMIT, 1, 6).kind(6), last(1, 7)]),
        refused("kind 255", &[put(COMMIT, 1, 6).kind(255), last(1, 7)]),
        refused("an unknown kind within a transaction", &[put(0, 1, 6).kind(6), last(1, 6)]),
        refused("a value as long as can be", &[put(COMMIT, 1, 6).value_len(u32::MAX)]),
        refused("a value that ends behind the file", &[put(COMMIT, 1, 6).value_len(SECOND as u32)]),
    ]
}

/// `file_len` is the length of the file.
pub(super) fn refused_jumps(file_len: u64) -> Vec<Refused> {
    let value = |jump: Literal, value: &[u8]| Literal { value: value.to_vec(), ..jump };
    let committed = |jump: Literal| Literal { flags: COMMIT, ..jump };
    let twice = [SECOND.to_le_bytes(), SECOND.to_le_bytes()].concat();
    vec![
        refused("a jump that is a commit", &[committed(jump(1, 6, SECOND)), last(1, 7).at(SECOND)]),
        refused("a jump that is the end of its commit", &[put(0, 1, 6), committed(jump(1, 6, SECOND))]),
        refused("a jump that goes on after its commit", &[committed(jump(1, 6, SECOND)), last(1, 6).at(SECOND)]),
        refused("a jump without a target", &[value(jump(1, 6, 0), &[]), last(1, 6)]),
        refused("a jump with half a target", &[value(jump(1, 6, 0), &[0, 0, 4, 0]), last(1, 6).at(SECOND)]),
        refused("a jump with two targets", &[value(jump(1, 6, 0), &twice), last(1, 6).at(SECOND)]),
        refused("a jump to 0", &[jump(1, 6, 0), last(1, 6)]),
        refused("a jump to the end of the file", &[jump(1, 6, file_len), last(1, 6)]),
        refused("a jump behind the file", &[jump(1, 6, file_len + BLOCK), last(1, 6)]),
        refused("a jump to the end of all files", &[jump(1, 6, MAX_FILE_LEN - BLOCK), last(1, 6)]),
        refused("a jump to the last block of all", &[jump(1, 6, u64::MAX - BLOCK + 1), last(1, 6)]),
        refused("a jump to itself", &[jump(1, 6, BASE_END), last(1, 6)]),
        refused("a jump right behind itself", &[jump(1, 6, BASE_END + JUMP_LEN), last(1, 6)]),
        refused("a jump to the head of the log", &[jump(1, 6, EXTENTS), last(1, 6)]),
        refused("a jump into the middle of a record", &[jump(1, 6, EXTENTS + 32), last(1, 6)]),
        refused("a jump to another record", &[jump(1, 6, BASE_END - 48), last(1, 6)]),
        refused("a jump into the middle of a block", &[jump(1, 6, SECOND + 64), last(1, 6).at(SECOND + 64)]),
        refused("a jump to an odd place", &[jump(1, 6, SECOND + 4), last(1, 6).at(SECOND + 4)]),
        refused("a jump in front of the extents", &[jump(1, 6, 0xf000), last(1, 6).at(0xf000)]),
        refused("a jump that leads to nothing", &[jump(1, 6, SECOND)]),
        refused("a jump for a new life that leads to nothing", &[jump(1, 5, SECOND)]),
        refused("a jump that leads to another commit", &[jump(1, 6, SECOND), last(1, 7).at(SECOND)]),
        refused("a jump whose number goes back", &[jump(1, 4, SECOND), last(1, 6).at(SECOND)]),
        refused("a jump of a life that was not declared", &[jump(2, 6, SECOND), last(2, 6).at(SECOND)]),
        refused("a jump of a commit that leads to a new life", &[jump(1, 6, SECOND), life(COMMIT, 2, 7).at(SECOND)]),
        refused("a broken chain behind a jump", &[jump(1, 6, SECOND), last(1, 6).at(SECOND).chain(0)]),
    ]
}

pub(super) fn refused_lives() -> Vec<Refused> {
    vec![
        refused("a life that does not end its commit", &[life(0, 2, 6), last(2, 7)]),
        refused("a life that others end", &[life(0, 2, 6), last(2, 6)]),
        refused("the same life again", &[life(COMMIT, 1, 6), last(1, 7)]),
        refused("an older life", &[life(COMMIT, 0, 6), last(0, 7)]),
        refused("a new life as the end of a transaction", &[put(0, 1, 6), life(COMMIT, 1, 6)]),
        refused("a new life within a transaction", &[put(0, 1, 6), life(COMMIT, 2, 6), last(2, 7)]),
        refused("a new life with a broken chain", &[life(COMMIT, 2, 6).chain(0), last(2, 7)]),
        behind_good("the life before the last again", 2, &[life(COMMIT, 2, 6), life(COMMIT, 3, 7), life(COMMIT, 2, 8)]),
        behind_good("a stale record of an earlier life", 1, &[life(COMMIT, 2, 6), last(1, 7).chain(0x1234_5678)]),
        behind_good("a stale record whose chain fits", 1, &[life(COMMIT, 2, 6), last(1, 7)]),
        behind_good("stale records in two lives", 2, &[life(COMMIT, 2, 6), life(COMMIT, 3, 7), last(2, 8)]),
        behind_good("the number of the new life", 1, &[life(COMMIT, 2, 6), last(2, 6)]),
        behind_good("an older number in the new life", 1, &[life(COMMIT, 2, 6), last(2, 5)]),
        behind_good("a stale jump", 1, &[life(COMMIT, 2, 6), jump(1, 7, SECOND), last(1, 7).at(SECOND)]),
    ]
}

/// Writes the records of each row after the base, and checks that only the good ones are believed.
pub(super) fn refuse(workshop: &Workshop, rows: &[Refused]) {
    for row in rows {
        let mut log = base(&workshop.template);
        for (number, literal) in row.records.iter().enumerate() {
            log.append(literal);
            if number < row.good {
                log.mark(literal.seq);
            }
        }
        workshop.recovers(&log.image, *log.marks.last().unwrap(), BASE, &row.what);
        // And if the superblock vouches for them, that is damage.
        log.checkpoint(log.at);
        workshop.is_refused(&log.image, &row.what);
    }
}

#[test]
fn chains_numbers_kinds_and_lengths_are_checked() {
    let workshop = Workshop::new();
    refuse(&workshop, &refused_chains_and_numbers());
    // The chain of another record of the same log.
    let log = base(&workshop.template);
    let chain = RecordHeader::read_from_prefix(&log.image[log.records[0].clone()]).unwrap().0.crc.get();
    refuse(&workshop, &[refused("the chain of another record", &[put(COMMIT, 1, 6).chain(chain), last(1, 7)])]);
    // The number of the first record is checked against the superblock.
    for literal in [put(COMMIT, 1, 0), put(COMMIT, 0, 1), put(COMMIT, 2, 1)] {
        let mut log = Log::new(&workshop.template);
        log.append(&literal);
        workshop.recovers(&log.image, log.marks[0], &[], &format!("a first record of number {:#x}", literal.seq));
    }
}

#[test]
fn jumps_are_checked() {
    let workshop = Workshop::new();
    refuse(&workshop, &refused_jumps(workshop.template.len() as u64));
}

#[test]
fn incarnations_are_checked() {
    refuse(&Workshop::new(), &refused_lives());
}

/// The records above are refused for the defects of their rows: the same records without them are believed.
#[test]
fn good_records_are_believed() {
    let workshop = Workshop::new();
    let rows: [(&str, &[Literal], Content<'_>); 6] = [
        ("a put", &[put(COMMIT, 1, 6)], &[("never", "seen")]),
        ("a transaction", &[put(0, 1, 6), last(1, 6)], &[("never", "seen"), ("nor", "seen")]),
        ("a jump", &[jump(1, 6, SECOND), last(1, 6).at(SECOND)], &[("nor", "seen")]),
        ("a new life", &[life(COMMIT, 2, 6)], &[]),
        ("a jump to a new life", &[jump(1, 5, SECOND), life(COMMIT, 2, 6).at(SECOND)], &[]),
        (
            "a jump within a transaction",
            &[put(0, 1, 6), jump(1, 6, THIRD), last(1, 6).at(THIRD)],
            &[("never", "seen"), ("nor", "seen")],
        ),
    ];
    for (name, records, adds) in rows {
        let mut log = base(&workshop.template);
        for literal in records {
            log.append(literal);
        }
        log.mark(records.last().unwrap().seq);
        workshop.recovers(&log.image, log.marks[3], &[BASE, adds].concat(), &name);
        log.checkpoint(log.at);
        workshop.recovers(&log.image, log.marks[3], &[BASE, adds].concat(), &name);
    }
}

/// A superblock is written after a commit, so a log in which no commit ends at that place is not the one that was
/// flushed.
#[test]
fn the_durable_end_is_the_end_of_a_commit() {
    let workshop = Workshop::new();
    let mut log = base(&workshop.template);
    for end in (EXTENTS..BASE_END + 64).step_by(8) {
        log.checkpoint(end);
        let case = format!("durable up to {end}");
        if log.marks.iter().any(|mark| mark.end == end) {
            workshop.recovers(&log.image, log.marks[2], BASE, &case);
        } else {
            assert_eq!(workshop.is_refused(&log.image, &case), BASE_END, "{case}");
        }
    }
}

/// An extent within the value of a record, with valid CRCs throughout: an append to one of the two would overwrite the
/// other.
#[test]
fn an_extent_inside_of_a_record_is_refused() {
    let workshop = Workshop::new();
    let mut log = base(&workshop.template);
    let inner = SECOND + BLOCK;
    log.append(&jump(1, 6, inner));
    log.append(&put(COMMIT, 1, 6).at(inner));
    log.append(&jump(1, 7, SECOND));
    // A header and a key of one byte precede the value, which consists of the bytes there.
    let value = log.image[SECOND as usize + 40..(inner + BLOCK) as usize].to_vec();
    log.append(&Literal { key: "k", value, ..put(COMMIT, 1, 7).at(SECOND) });
    workshop.is_refused(&log.image, &"an extent within a record");
}
