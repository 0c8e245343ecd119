//! Logs that are torn at every byte of their last two commits.

use super::*;

/// A row of the table: a log, and its content before its last two commits, before the last one and at the end.
pub(super) struct Row {
    name: &'static str,
    commits: Vec<Commit>,
    says: [Content<'static>; 3],
    /// This many of the commits were durable when the superblock was written.
    durable: usize,
}

pub(super) fn row(name: &'static str, says: [Content<'static>; 3], commits: Vec<Commit>) -> Row {
    Row { name, commits, says, durable: 0 }
}

pub(super) fn rows_of_single_changes() -> Vec<Row> {
    vec![
        row(
            "two puts in an empty store",
            [&[], &[("a", "1")], &[("a", "1"), ("b", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", "2")])],
        ),
        row(
            "an empty value, an empty key, and neither of both",
            [&[("a", "")], &[("a", ""), ("", "value")], &[("a", ""), ("", "")]],
            vec![commit(1, 1, &[Put("a", "")]), commit(1, 2, &[Put("", "value")]), commit(1, 3, &[Put("", "")])],
        ),
        row(
            "padding",
            [&[("a", "1")], &[("a", "1"), ("123456789", "12345678")], &[("a", "1"), ("123456789", "1")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("123456789", "12345678")]),
                commit(1, 3, &[Put("123456789", "1")]),
            ],
        ),
        row(
            "overwriting",
            [&[("a", "1")], &[("a", "2")], &[("a", "3")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("a", "2")]), commit(1, 3, &[Put("a", "3")])],
        ),
        row(
            "removing",
            [&[("a", "1"), ("b", "2")], &[("b", "2")], &[]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2")]),
                commit(1, 3, &[Remove("a")]),
                commit(1, 4, &[Remove("b")]),
            ],
        ),
        row(
            "removing and putting again",
            [&[("a", "1")], &[], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Remove("a")]), commit(1, 3, &[Put("a", "2")])],
        ),
        row(
            "numbers that were skipped",
            [&[("a", "1")], &[("a", "2")], &[("a", "3")]],
            vec![
                commit(1, 7, &[Put("a", "1")]),
                commit(1, 1000, &[Put("a", "2")]),
                commit(1, 1 << 40, &[Put("a", "3")]),
            ],
        ),
        row(
            "clearing at the end",
            [&[("a", "1")], &[("a", "1"), ("b", "2")], &[]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", "2")]), commit(1, 3, &[Clear])],
        ),
        row(
            "clearing before the end",
            [&[("a", "1"), ("b", "2")], &[], &[("a", "3")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2")]),
                commit(1, 3, &[Clear]),
                commit(1, 4, &[Put("a", "3")]),
            ],
        ),
    ]
}

pub(super) fn rows_of_transactions() -> Vec<Row> {
    vec![
        row(
            "transactions",
            [&[("a", "1")], &[("a", "x"), ("b", "2"), ("c", "3")], &[("a", "x"), ("c", "3"), ("d", "5")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2"), Put("c", "3"), Put("a", "x")]),
                commit(1, 4, &[Remove("b"), Put("d", "4"), Put("d", "5")]),
            ],
        ),
        row(
            "a transaction that comes to nothing",
            [&[("a", "1")], &[("a", "1")], &[("b", "2")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("b", "2"), Remove("b")]),
                commit(1, 3, &[Remove("a"), Put("b", "2")]),
            ],
        ),
    ]
}

pub(super) fn rows_of_long_values() -> Vec<Row> {
    vec![
        row(
            "a value over sectors at the end",
            [&[], &[("a", "1")], &[("a", "1"), ("b", SECTORS)]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", SECTORS)])],
        ),
        row(
            "a value over sectors before the end",
            [&[("a", "1")], &[("a", SECTORS)], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("a", SECTORS)]), commit(1, 3, &[Put("a", "2")])],
        ),
        row(
            "a block with room for a jump only",
            [&[("a", "1")], &[("a", "1"), ("b", FILLER)], &[("a", "1"), ("b", FILLER), ("c", "3")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("b", FILLER)]), commit(1, 3, &[Put("c", "3")])],
        ),
    ]
}

pub(super) fn rows_of_jumps() -> Vec<Row> {
    vec![
        row(
            "a jump at the end",
            [&[], &[("a", "1")], &[("a", "1"), ("b", LONG)]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Jump(SECOND), Put("b", LONG)])],
        ),
        row(
            "a jump before the end",
            [&[("a", "1")], &[("a", "2")], &[("a", "2"), ("b", "3")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Jump(SECOND), Put("a", "2")]),
                commit(1, 3, &[Put("b", "3")]),
            ],
        ),
        row(
            "a transaction that jumps on and back",
            [&[("a", "1")], &[("a", "2")], &[("b", "3"), ("c", "4")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("a", "2")]),
                commit(1, 3, &[Put("b", "3"), Jump(SECOND), Remove("a"), Jump(THIRD), Put("c", "4")]),
            ],
        ),
    ]
}

pub(super) fn rows_of_lives() -> Vec<Row> {
    vec![
        row(
            "an incarnation at the end",
            [&[("a", "1")], &[("a", "2")], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Put("a", "2")]), commit(2, 3, &[Incarnation])],
        ),
        row(
            "an incarnation before the end",
            [&[("a", "1")], &[("a", "1")], &[("a", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(2, 2, &[Incarnation]), commit(2, 3, &[Put("a", "2")])],
        ),
        row(
            "an incarnation behind a jump",
            [&[], &[("a", "1")], &[("a", "1")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(2, 2, &[Jump(SECOND), Incarnation])],
        ),
        row(
            "two incarnations",
            [&[("a", "1")], &[("a", "1")], &[("a", "1")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(2, 2, &[Incarnation]), commit(3, 3, &[Incarnation])],
        ),
        row(
            "an incarnation, and nothing else",
            [&[], &[], &[]],
            vec![commit(2, 1, &[Incarnation]), commit(3, 2, &[Incarnation])],
        ),
    ]
}

pub(super) fn rows_with_a_checkpoint() -> Vec<Row> {
    let with = |durable, name| Row {
        durable,
        ..row(
            name,
            [&[("a", "1")], &[("a", "2"), ("b", "2")], &[("b", "2")]],
            vec![
                commit(1, 1, &[Put("a", "1")]),
                commit(1, 2, &[Put("a", "2"), Put("b", "2")]),
                commit(1, 3, &[Remove("a")]),
            ],
        )
    };
    let with_jump = Row {
        durable: 2,
        ..row(
            "a checkpoint behind a jump",
            [&[], &[("a", "1")], &[("a", "1"), ("b", "2")]],
            vec![commit(1, 1, &[Put("a", "1")]), commit(1, 2, &[Jump(SECOND), Put("b", "2")])],
        )
    };
    vec![
        with(1, "a checkpoint of the first commit"),
        with(2, "a checkpoint of the last commit but one"),
        with(3, "a checkpoint of everything"),
        with_jump,
    ]
}

/// The bytes of the last two commits that are damaged: all of them, but only some of the inside of long values.
pub(super) fn places(log: &Log) -> Vec<usize> {
    let last = log.marks.len() - 1;
    let mut places = Vec::new();
    for record in [last - 1, last].into_iter().flat_map(|commit| log.records_of(commit)) {
        let inside = (record.start + 64)..record.end.saturating_sub(16).max(record.start + 64);
        let step = if inside.len() > 128 { (inside.len() / 16) | 1 } else { 1 };
        places.extend(record.start..inside.start.min(record.end));
        places.extend(inside.clone().step_by(step));
        places.extend(inside.end..record.end);
    }
    // Right after the log it may end without harm.
    places.push(log.at as usize);
    places
}

/// Damages the log of each row at each place in each way.
pub(super) fn tear(rows: &[Row]) {
    let workshop = Workshop::new();
    for row in rows {
        let mut log = Log::of(&workshop.template, &row.commits);
        log.checkpoint(log.marks[row.durable].end);
        let commits = row.commits.len();
        // Its content after `intact` commits; that before the last two commits is never needed.
        let says = |intact: usize| row.says[intact + 2 - commits];
        workshop.recovers(&log.image, log.marks[commits], says(commits), &row.name);
        for at in places(&log) {
            for damage in Damage::ALL {
                let bytes = damage.done_to(&log, at);
                let intact = log.intact(&bytes);
                let case = format!("{}: {damage:?} at {at}", row.name);
                if intact < row.durable {
                    assert_eq!(workshop.is_refused(&bytes, &case), log.first_damaged(&bytes), "{case}");
                } else {
                    workshop.recovers(&bytes, log.marks[intact], says(intact), &case);
                }
            }
        }
    }
}

#[test]
fn single_changes_are_there_or_not() {
    tear(&rows_of_single_changes());
}

#[test]
fn transactions_are_there_or_not() {
    tear(&rows_of_transactions());
}

#[test]
fn long_values_are_there_or_not() {
    tear(&rows_of_long_values());
}

#[test]
fn commits_that_jump_are_there_or_not() {
    tear(&rows_of_jumps());
}

#[test]
fn new_lives_have_begun_or_not() {
    tear(&rows_of_lives());
}

#[test]
fn what_was_durable_is_there_or_the_store_is_refused() {
    tear(&rows_with_a_checkpoint());
}
