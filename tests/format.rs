//! The file format, byte for byte: if one of these tests fails, existing files can no longer be read.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

use slotlog::format::*;
use slotlog::{Access, Opened, Store};
use support::{Content, content};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Bytes from hexadecimal digits; everything else in the text is for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn a_superblock() {
    let superblock = Superblock {
        magic: MAGIC,
        version: VERSION.into(),
        block: 4096.into(),
        incompatible: 0x0102030405060708.into(),
        compatible: 0x1112131415161718.into(),
        uuid: *b"0123456789abcdef",
        hash_seed: 0x2122232425262728.into(),
        generation: 3.into(),
        log_head: 65536.into(),
        head_seq: ((1 << 44) + 1).into(),
        head_chain: 0x31323334.into(),
        end_chain: 0x41424344.into(),
        log_end: 65600.into(),
        next_seq: ((1 << 44) + 2).into(),
        behind_seq: 4.into(),
        head_ordinal: 11.into(),
        file_len: 212992.into(),
        map_table: table_word(0x23000, 1).into(),
        space_table: table_word(0x20000, 2).into(),
        log_bytes: 64.into(),
        log_records: 1.into(),
        created: 5.into(),
        written: 6.into(),
        flags: (superblock_flags::CLEAN | superblock_flags::COUNTED).into(),
        padding: [0; 4],
        live_bytes: 7.into(),
        resize: [8, 9, 10].map(Into::into),
        reserved: [0; 292],
        crc: 0.into(),
    }
    .sealed();
    let mut expected =
        hex("736c6f746c6f6700 02000000 00100000 0807060504030201 1817161514131211 30313233343536373839616263646566
         2827262524232221 0300000000000000 0000010000000000 0100000000100000 34333231 44434241
         4000010000000000 0200000000100000 0400000000000000 0b00000000000000 0040030000000000
         2300000001000000 2000000002000000
         4000000000000000 0100000000000000 0500000000000000 0600000000000000 03000000 00000000
         0700000000000000 0800000000000000 0900000000000000 0a00000000000000");
    expected.resize(508, 0);
    expected.extend(hex("53bebd7a"));
    assert_eq!(superblock.as_bytes(), expected);
    assert!(superblock.is_clean());
    assert_eq!(CREATION_MAGIC, *b"slotlog+");
}

#[test]
fn a_record_header() {
    let header = RecordHeader {
        crc: 0x01020304.into(),
        chain: 0x11121314.into(),
        value_len: 0x21222324.into(),
        key_len: 0x3132.into(),
        kind: Kind::Put as u8,
        flags: flags::COMMIT | flags::EXPIRES,
        seq: 0x4142434445464748.into(),
        prev_and_map: RecordHeader::pack_prev_and_map(0x51_5253_5450, MapId(0x616263)),
    };
    assert_eq!(header.as_bytes(), hex("04030201 14131211 24232221 3231 01 09 4847464544434241 8a6a4a2a0a 636261"));
    let shortcut = Shortcut::new(0x51_5253_5450, 0x010203, 0x4142434445464748);
    assert_eq!(shortcut.as_bytes(), hex("8a6a4a2a0a 030201 4847464544434241"));
    assert_eq!((shortcut.target(), shortcut.depth()), (0x51_5253_5450, 0x010203));
    let with_both = RecordHeader { flags: flags::EXPIRES | flags::SHORTCUT, ..header };
    assert_eq!((with_both.key_start(), with_both.expires_len(), with_both.shortcut_len()), (56, 8, 16));
    assert_eq!((header.prev(), header.map()), (0x51_5253_5450, MapId(0x616263)));
    assert_eq!(header.key_start(), 40);
    assert_eq!(header.value_start(), 40 + 0x3138);
    assert_eq!(header.record_len(), 40 + 0x3138 + 0x21222328);
    let kinds = [Kind::Put, Kind::Remove, Kind::Clear, Kind::Jump, Kind::Incarnation].map(|kind| kind as u8);
    assert_eq!(kinds, [1, 2, 3, 4, 5]);
    assert_eq!(Kind::from_u8(0), None, "zero-filled space never parses");
    assert_eq!([flags::COMMIT, flags::NEW, flags::COPY, flags::EXPIRES], [1, 2, 4, 8]);
}

#[test]
fn a_region_header_a_table_header_and_a_catalogue_entry() {
    let bank = |first: u64| [first, 1, 2, 3, 4].map(Into::into);
    let region = RegionHeader {
        magic: REGION_MAGIC,
        map: 1.into(),
        lines: 62.into(),
        blocks: 1.into(),
        since: 7.into(),
        previous: 0x20000.into(),
        totals: [bank(8), bank(9)],
    };
    let totals = "0100000000000000 0200000000000000 0300000000000000 0400000000000000";
    assert_eq!(
        region.as_bytes(),
        hex(&format!(
            "736c6f7469647800 0100000000000000 3e00000000000000 0100000000000000 0700000000000000 0000020000000000
             0800000000000000 {totals} 0900000000000000 {totals}"
        ))
    );
    assert_eq!((lines_of_blocks(1), lines_of_blocks(2)), (62, 126));

    let table = TableHeader { magic: MAP_TABLE_MAGIC, capacity: 252.into(), reserved: [0; 48] };
    let mut expected = hex("736c6f746d617000 fc00000000000000");
    expected.resize(64, 0);
    assert_eq!(table.as_bytes(), expected);
    assert_eq!(SPACE_TABLE_MAGIC, *b"slotspc\0");
    assert_eq!((entries_of_blocks(1, MAP_ENTRY), entries_of_blocks(2, MAP_ENTRY)), (252, 508));
    assert_eq!((entries_of_blocks(1, SPACE_ENTRY), entries_of_blocks(2, SPACE_ENTRY)), (168, 338));

    let (map, version, fingerprint, region) = (2.into(), 3.into(), 0x0102030405060708.into(), 0x12000.into());
    let entry = CatalogueEntry { map, version, fingerprint, region };
    assert_eq!(entry.as_bytes(), hex("02000000 03000000 0807060504030201 0020010000000000"));
}

#[test]
fn the_words() {
    assert_eq!(slot::new(0xabcdef, 0x123456788), 0xabcdef_002468acf1);
    assert_eq!((slot::EMPTY, slot::DEAD), (0, 1));
    assert_eq!(commit_word(0x123456788, 0xfff_ffabcdef), 0xabcdef_002468acf1);
    assert_eq!(extent_word(0x12000, 3), 0x3_0000_0012);
    assert_eq!(state_word(ExtentKind::Retired, (5 << 44) | 9), 0x0500_0000_0000_0009);
    let kinds = [
        ExtentKind::Log,
        ExtentKind::Index,
        ExtentKind::Table,
        ExtentKind::Reserve,
        ExtentKind::Retired,
        ExtentKind::ReserveLog,
        ExtentKind::Emptied,
        ExtentKind::Live,
    ];
    assert_eq!(kinds.map(|kind| kind as u8), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(resize_cursor(DEFAULT_MAP, 0x12345678, false), 0x0000_0002_1234_5678);
    assert_eq!(resize_cursor(MAX_MAP, 1, true), 0x8100_0000_0000_0001);
    assert_eq!(pin::claim(2, (9 << 44) | 5), (3 << 44) | 5);
}

#[test]
fn the_places() {
    assert_eq!(
        (SUPERBLOCK_A, SUPERBLOCK_B, LIVE, PROCESS_TABLE, PIN_TABLE, EXTENTS),
        (0, 4096, 8192, 12288, 20480, 65536)
    );
    assert_eq!((PROCESSES, PROCESS_LEN, PINS, PIN_LEN), (128, 64, 704, 64));
    assert_eq!(
        (BLOCK, LINE, SLOTS, REGION_HEADER, REGION_TOTALS, TABLE_HEADER, MAP_ENTRY, SPACE_ENTRY),
        (4096, 64, 6, 128, 48, 64, 16, 24)
    );
    let words = [
        live::VERSION_WORD,
        live::IDENTITY,
        live::STATE,
        live::HORIZON,
        live::MAP_TABLE,
        live::SPACE_TABLE,
        live::SUPERBLOCK,
        live::DURABLE_HEAD,
        live::SEAL_AT,
        live::SYNCED,
        live::DURABLE_ORDINAL,
        live::WRITER_LOCK,
        live::COMMIT_POINT,
        live::TAIL,
        live::CHAIN,
        live::VISIBLE,
        live::CHANGED,
        live::LOG_TOTALS,
        live::RESIZE_CURSOR,
        live::RESIZE_TARGET,
        live::CHECKPOINT_BYTES,
        live::SPACE_CHANGES,
        live::RESIZE_ZEROED,
        live::HEAD,
        live::REUSED_BELOW,
        live::OPENER,
        live::OPENER_DONE,
        live::OPENER_TOTAL,
    ];
    let expected = [
        192, 200, 248, 64, 72, 80, 88, 96, 104, 112, 120, 128, 0, 8, 16, 256, 264, 320, 384, 392, 400, 24, 416, 448,
        592, 896, 904, 912,
    ];
    assert_eq!(words.map(|word| word - LIVE), expected);
    assert_eq!(seal::WORDS, [0, 8, 16]);
    assert_eq!((live::LOG_TOTALS_WORDS, live::HEAD_WORDS), (4, 8));
    let of_head = [head::NUMBER, head::AT, head::CHAIN, head::SEQ, head::BEHIND, head::BYTES, head::RECORDS];
    assert_eq!((of_head, head::ORDINAL), ([0, 1, 2, 3, 4, 5, 6], 7));
}

#[test]
fn the_hash_of_a_key() {
    let hash = KeyHash::of(b"key", 0x0123456789abcdef);
    assert_eq!(hash.bits(), 0x1202_d3ca_1f87);
    assert_eq!((hash.tag(), hash.further()), (0xca1f87, 0x1202d3));
    assert_eq!(hash.line(1000), 562);
    assert_eq!(KeyHash::of(b"", 0).bits(), 0x5a0_d000_a71a);
}

/// The records of a new store as bytes of the file. They contain neither its identity nor its hash seed.
#[test]
fn the_first_records_of_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = Store::open(&path).unwrap();
    store.insert("key", "value").unwrap();
    store.insert("key", "value two").unwrap();
    store.remove("key").unwrap();
    let mut transaction = store.begin().unwrap();
    transaction.insert("", "").unwrap();
    transaction.insert("a", "b").unwrap();
    transaction.commit().unwrap();
    let bytes = fs::read(&path).unwrap();
    let page = page();
    // crc, chain; lengths, kind, flags; seq; prev, map; key; value.
    for (offset, expected) in [
        (
            65536,
            "406bc0cc 00000000 05000000 0300 01 03 0100000000100000 0000000000 010000
             6b65790000000000 76616c7565000000",
        ),
        (
            65584,
            "8210c6bf 406bc0cc 09000000 0300 01 01 0200000000100000 0020000000 010000
             6b65790000000000 76616c75652074776f00000000000000",
        ),
        (65640, "4a2f45b6 8210c6bf 00000000 0300 02 01 0300000000100000 0620000000 010000 6b65790000000000"),
        (65680, "4d438528 4a2f45b6 00000000 0000 01 02 0400000000100000 0000000000 010000"),
        (
            65712,
            "60aac1fc 4d438528 01000000 0100 01 03 0400000000100000 0000000000 010000
             6100000000000000 6200000000000000",
        ),
        (65760, "0000000000000000"),
    ] {
        // Those that are an example there.
        if offset < 65640 {
            assert!(expected.lines().all(|line| page.contains(line.trim())), "docs/format.md: {expected}");
        }
        let expected = hex(expected);
        assert_eq!(bytes[offset..offset + expected.len()], expected, "at offset {offset}");
    }
}

/// The specification.
fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md")).unwrap()
}

/// A table of docs/format.md.
struct Table {
    /// The line above it.
    caption: String,
    /// The first name in that line, if it has one.
    name: String,
    /// The heading of the column before the meaning, which says what the rows are.
    of: String,
    /// Its rows: the cells before the meaning.
    rows: Vec<Vec<String>>,
}

/// All tables but that of the locks, whose numbers are a matter of `src/file/locks`.
fn tables() -> Vec<Table> {
    let page = page();
    let (mut found, mut caption, mut is_inside) = (Vec::<Table>::new(), "", false);
    for line in page.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            is_inside = false;
            caption = if line.is_empty() { caption } else { line };
            continue;
        };
        let cells: Vec<String> = row.split(" |").map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        // After the last bar there is nothing.
        let cells = &cells[..cells.len() - 2];
        if !is_inside {
            let (caption, of) = (caption.to_owned(), cells[cells.len() - 1].clone());
            let name = caption.split('`').nth(1).unwrap_or_default().to_owned();
            found.push(Table { caption, name, of, rows: Vec::new() });
        } else if !cells[0].starts_with("---") {
            found.last_mut().unwrap().rows.push(cells.to_vec());
        }
        is_inside = true;
    }
    found.retain(|table| table.of != "byte");
    found
}

/// The rows of the table with this name that is of these.
fn rows_of(tables: &[Table], name: &str, of: &str) -> Vec<Vec<String>> {
    let mut of_name = tables.iter().filter(|table| (table.name.as_str(), table.of.as_str()) == (name, of));
    let found = of_name.next().unwrap_or_else(|| panic!("docs/format.md has no table `{name}` with a column `{of}`"));
    assert!(of_name.next().is_none(), "docs/format.md has two such tables: {name}");
    found.rows.clone()
}

/// A value of the code, in the form in which [`value`] has those of the page.
trait Value {
    fn value(self) -> String;
}

macro_rules! values {
    ($($number:ty)*) => {$(
        impl Value for $number {
            fn value(self) -> String {
                self.to_string()
            }
        }
    )*};
}
values!(u8 u16 u32 u64 usize MapId);

impl Value for [u8; 8] {
    fn value(self) -> String {
        format!("{self:?}")
    }
}

impl Value for &[u8] {
    fn value(self) -> String {
        format!("{self:?}")
    }
}

/// A value of the page: a number, a bit, or a string with the escapes of Rust.
fn value(cell: &str) -> String {
    if let Some(digits) = cell.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).unwrap().to_string();
    }
    if let Some(bit) = cell.strip_prefix("bit ") {
        return (1u64 << bit.parse::<u32>().unwrap()).to_string();
    }
    let Some(text) = cell.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return cell.parse::<u64>().unwrap().to_string();
    };
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let (byte, len) = match (first, after.first()) {
            (b'\\', Some(b'0')) => (0, 2),
            (b'\\', Some(b'x')) => (hex(std::str::from_utf8(&rest[2..4]).unwrap())[0], 4),
            _ => (first, 1),
        };
        bytes.push(byte);
        rest = &rest[len..];
    }
    format!("{bytes:?}")
}

/// The rows that the table of a struct has to have. It does not compile without all fields.
macro_rules! fields {
    ($($name:ident { $($field:ident)* })*) => {
        [$({
            let $name { $($field: _),* } = $name::new_zeroed();
            (stringify!($name), size_of::<$name>(), vec![$((offset_of!($name, $field), stringify!($field))),*])
        }),*]
    };
}

#[test]
fn the_page_has_the_fields_of_each_struct() {
    let structs = fields! {
        Superblock {
            magic version block incompatible compatible uuid hash_seed generation log_head head_seq head_chain end_chain
            log_end next_seq behind_seq head_ordinal file_len map_table space_table log_bytes log_records created
            written flags padding live_bytes resize reserved crc
        }
        RecordHeader { crc chain value_len key_len kind flags seq prev_and_map }
        Shortcut { target_and_depth seq }
        CatalogueEntry { map version fingerprint region }
        OriginEntry { uuid seq crc reserved }
        BookmarkEntry { seq limit name_len }
        RegionHeader { magic map lines blocks since previous totals }
        TableHeader { magic capacity reserved }
        SentCommit { magic uuid previous seq previous_crc crc }
        SentChange { kind key_len value_len map version_or_crc deadline }
    };
    let tables = tables();
    for (name, size, fields) in &structs {
        let ends = fields.iter().skip(1).map(|field| field.0).chain([*size]);
        let row = |(&(offset, field), end): (&(usize, &str), usize)| {
            vec![offset.to_string(), (end - offset).to_string(), field.to_owned()]
        };
        let expected: Vec<Vec<String>> = fields.iter().zip(ends).map(row).collect();
        assert_eq!(rows_of(&tables, name, "field"), expected, "docs/format.md: {name}");
        let caption = format!("`{name}`, {size} bytes");
        assert!(tables.iter().any(|table| table.caption.starts_with(&caption)), "docs/format.md lacks: {caption}");
    }
    let checked: BTreeSet<String> = structs.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(checked, named_in_the_source().structs, "structs of the source");
    assert_eq!(tables.iter().filter(|table| table.of == "field").count(), structs.len(), "tables of no struct");
}

/// The rows that a table of constants has to have, by its name.
macro_rules! constants {
    ($($module:ident { $($name:ident)* })*) => {
        [$((stringify!($module), vec![$(($module::$name.value(), stringify!($name))),*])),*]
    };
}

/// The same of the variants of an enumeration.
macro_rules! variants {
    ($($name:ident { $($variant:ident)* })*) => {
        [$((stringify!($name), vec![$((($name::$variant as u8).value(), stringify!($variant))),*])),*]
    };
}

/// The tables of constants with a name.
fn named_constants() -> Vec<(&'static str, Vec<(String, &'static str)>)> {
    let modules = constants! {
        superblock_flags { CLEAN COUNTED }
        flags { COMMIT NEW COPY EXPIRES SHORTCUT EXPIRED DAMAGED }
        slot { EMPTY DEAD }
        head { NUMBER AT CHAIN SEQ BEHIND BYTES RECORDS ORDINAL }
        opener { OPENING WALKING INDEXING FLUSHING CLOSING }
        writer_lock { FREE ABANDONED }
        process { SHARED EXCLUSIVE }
        sent { END PUT REMOVE EXPIRE CLEAR CREATE DROP RENAME PUT_UNTIL }
    };
    let enums = variants! {
        Kind { Put Remove Clear Jump Incarnation }
        ExtentKind { Log Index Table Reserve Retired ReserveLog Emptied Live }
    };
    let states = [
        (live::STATE_POISONED, "STATE_POISONED"),
        (live::STATE_CLOSING, "STATE_CLOSING"),
        (live::STATE_LOG_UNSURE, "STATE_LOG_UNSURE"),
        (live::STATE_ALL_UNSURE, "STATE_ALL_UNSURE"),
        (live::STATE_UNSURE_COUNT, "STATE_UNSURE_COUNT"),
    ];
    let version = [(live::VERSION.to_le_bytes().value(), "VERSION")];
    let of_live = version.into_iter().chain(states.map(|(value, name)| (value.value(), name))).collect();
    modules.into_iter().chain(enums).chain([("live", of_live)]).collect()
}

#[test]
fn the_page_has_each_constant() {
    let tables = tables();
    let of_page = |rows: Vec<Vec<String>>| -> Vec<(String, String)> {
        rows.into_iter().map(|row| (value(&row[0]), row[1].clone())).collect()
    };
    for (name, expected) in named_constants() {
        let expected: Vec<(String, String)> = expected.into_iter().map(|(value, name)| (value, name.into())).collect();
        assert_eq!(of_page(rows_of(&tables, name, "name")), expected, "docs/format.md: {name}");
    }
    macro_rules! numbers {
        ($($name:path)*) => {
            BTreeMap::from([$((stringify!($name).replace(' ', ""), $name.value())),*])
        };
    }
    let expected = numbers! {
        BLOCK MAGIC CREATION_MAGIC VERSION KNOWN_INCOMPATIBLE SUPERBLOCK_A SUPERBLOCK_B LIVE PROCESS_TABLE PROCESSES
        PROCESS_LEN PROCESS_EXTENTS PIN_TABLE PINS PIN_LEN PIN_EXTENTS EXTENTS COUNT_BITS COUNT_MASK LAST_COUNT
        MAX_COUNT MAX_INCARNATION MAX_FILE_LEN MAX_KEY_LEN MAX_VALUE_LEN CATALOGUE DEFAULT_MAP MAX_MAP RECORD_HEADER
        JUMP_LEN Shortcut::MAX_DEPTH NEXT_ID ORIGIN FOLLOWS BOOKMARKS REGION_MAGIC REGION_HEADER REGION_TOTALS
        REGION_TOTALS_WORDS LINE SLOTS KeyHash::BITS KeyHash::TAG_BITS KeyHash::FURTHER_BITS MAP_TABLE_MAGIC
        SPACE_TABLE_MAGIC TABLE_HEADER MAP_ENTRY DROPPED SPACE_ENTRY COMMIT_MAGIC
    };
    let without_name = tables.iter().filter(|table| table.of == "name" && table.name.is_empty());
    let found = of_page(without_name.flat_map(|table| table.rows.clone()).collect());
    let found: BTreeMap<String, String> = found.into_iter().map(|(value, name)| (name, value)).collect();
    assert_eq!(found, expected, "docs/format.md: the numbers");
}

#[test]
fn the_page_has_each_word() {
    macro_rules! words {
        ($module:ident: $from:expr; $($name:ident $len:expr),*) => {
            (stringify!($module), vec![$(($module::$name - $from, $len, stringify!($name))),*])
        };
    }
    let banks = |words: u64| 2 * 8 * words;
    let expected = [
        words!(live: LIVE; COMMIT_POINT 8, TAIL 8, CHAIN 8, SPACE_CHANGES 8, HORIZON 8, MAP_TABLE 8, SPACE_TABLE 8,
            SUPERBLOCK 8, DURABLE_HEAD 8, SEAL_AT 8, SYNCED 8, DURABLE_ORDINAL 8, WRITER_LOCK 8, NEXT_TURN 8,
            WRITING_SINCE 8, VERSION_WORD 8, IDENTITY 8 * live::IDENTITY_WORDS, STATE 8, VISIBLE 8, CHANGED 8,
            WATCHERS 8, LOG_TOTALS banks(live::LOG_TOTALS_WORDS), RESIZE_CURSOR 8, RESIZE_TARGET 8, CHECKPOINT_BYTES 8,
            RESIZE_ZEROED 8, HEAD banks(live::HEAD_WORDS), REUSED_BELOW 8, SCRUBBED 8, SCRUB_AT 8, QUARANTINED 8,
            DAMAGE 8, PIN_EXTENTS 8 * PIN_EXTENTS, PROCESS_EXTENTS 8 * PROCESS_EXTENTS, OPENER 8, OPENER_DONE 8,
            OPENER_TOTAL 8, OPENING_ID 8),
        words!(process: 0; PID 8, SINCE 8, MODE 8, BOOT 8, ASYMMETRIC 8, FLUSHING 8, REFUSED 8),
        words!(pin: 0; CLAIM 8, SINCE 8),
        words!(seal: 0; COMMIT 8, SPACE 8, CLOSED 8),
    ];
    let tables = tables();
    for (name, words) in expected {
        let expected: Vec<Vec<String>> =
            words.iter().map(|(at, len, word)| vec![at.to_string(), len.to_string(), (*word).to_owned()]).collect();
        assert_eq!(rows_of(&tables, name, "word"), expected, "docs/format.md: {name}");
        let overlap = words.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0);
        assert_eq!(overlap, None, "words that overlap");
    }
}

/// The bits of each part of a packed word.
fn parts_of_words() -> Vec<(&'static str, Vec<(u64, &'static str)>)> {
    let far = MAX_FILE_LEN - 8;
    let shortcut = |target, depth| Shortcut::new(target, depth, 0).target_and_depth.get();
    let record = |prev, map| RecordHeader::pack_prev_and_map(prev, map).get();
    let (tags, further) = ((1 << KeyHash::TAG_BITS) - 1, (1 << KeyHash::FURTHER_BITS) - 1);
    let hash = |tag, further| KeyHash::from_parts(tag, further).bits();
    let (log, cursor) = (state_word(ExtentKind::Log, 0), |line, drops| resize_cursor(MapId(0), line, drops));
    let (many, of_pid) = (u32::MAX.into(), opener::word(u32::MAX, 0) | opener::word(u32::MAX - 1, 0));
    vec![
        ("Seq", vec![(COUNT_MASK, "count"), (MAX_INCARNATION << COUNT_BITS, "incarnation")]),
        ("prev_and_map", vec![(record(far, MapId(0)), "prev"), (record(0, MAX_MAP), "map")]),
        ("target_and_depth", vec![(shortcut(far, 0), "target"), (shortcut(0, Shortcut::MAX_DEPTH), "depth")]),
        ("KeyHash", vec![(hash(tags, 0), "tag"), (hash(0, further), "further")]),
        ("slot", vec![(slot::new(0, far), "offset"), (slot::new(tags, 0), "tag")]),
        ("extent_word", vec![(extent_word(many * BLOCK, 0), "offset"), (extent_word(0, many), "blocks")]),
        ("state_word", vec![(state_word(ExtentKind::Log, u64::MAX) - log, "seq"), (0xff * log, "kind")]),
        ("commit_word", vec![(commit_word(far, 0), "end"), (commit_word(0, 0xff_ffff), "seq")]),
        (
            "resize_cursor",
            vec![
                (cursor(many, false) ^ cursor(0, false), "line"),
                (resize_cursor(MapId((1 << 31) - 2), 0, false), "map"),
                (cursor(0, true) ^ cursor(0, false), "drops_tombstones"),
            ],
        ),
        ("opener", vec![(of_pid, "pid"), (opener::word(0, u64::MAX) - 1, "step")]),
        (
            "writer_lock",
            vec![
                (writer_lock::freed(u64::MAX, 0), "count"),
                (writer_lock::freed(0, writer_lock::holder(u64::MAX)), "holder"),
                (writer_lock::WAITERS, "WAITERS"),
            ],
        ),
        ("pin", vec![(pin::claim(0, u64::MAX) ^ pin::claim(0, 0), "count"), (pin::claim((1 << 20) - 2, 0), "owner")]),
    ]
}

#[test]
fn the_page_has_the_bits_of_each_word() {
    let tables = tables();
    let words = parts_of_words();
    for (name, expected) in &words {
        let mask = |row: Vec<String>| {
            let (first, last) = row[0].split_once('–').unwrap_or((&row[0], &row[0]));
            let (first, last): (u32, u32) = (first.parse().unwrap(), last.parse().unwrap());
            (u64::MAX << first & u64::MAX >> (63 - last), row[1].clone())
        };
        let found: Vec<(u64, String)> = rows_of(&tables, name, "part").into_iter().map(mask).collect();
        let expected: Vec<(u64, String)> = expected.iter().map(|(mask, part)| (*mask, (*part).to_owned())).collect();
        assert_eq!(found, expected, "docs/format.md: {name}");
    }
    let there = tables.iter().filter(|table| table.of == "part").count();
    assert_eq!(there, words.len(), "tables of bits that are not compared");
}

/// What the source of the layout names.
#[derive(Default)]
struct Named {
    structs: BTreeSet<String>,
    /// Constants and variants, each with the module or type that it is in.
    constants: BTreeSet<(String, String)>,
}

fn named_in_the_source() -> Named {
    let mut named = Named::default();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut files = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/file/layout")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        let (mut scope, mut is_enum) = (String::new(), false);
        for line in source.lines() {
            let opens =
                ["pub mod ", "impl ", "pub enum ", "pub struct "].into_iter().find(|start| line.starts_with(start));
            if let Some(start) = opens.filter(|_| line.ends_with('{')) {
                (scope, is_enum) = (word(&line[start.len()..]), start == "pub enum ");
                if start == "pub struct " {
                    named.structs.insert(scope.clone());
                }
            } else if line.starts_with('}') {
                (scope, is_enum) = (String::new(), false);
            }
            let line = line.trim_start();
            if let Some(name) = line.strip_prefix("pub const ").filter(|rest| !rest.starts_with("fn ")).map(word) {
                named.constants.insert((scope.clone(), name));
            } else if is_enum && line.contains(" = ") && !line.starts_with("//") {
                named.constants.insert((scope.clone(), word(line)));
            }
        }
        files += 1;
    }
    assert!(files > 5 && named.structs.len() > 5 && named.constants.len() > 100, "the source was read");
    named
}

#[test]
fn the_page_names_what_the_source_names() {
    // How long a word is, is in its row.
    let lengths = [("live", "IDENTITY_WORDS"), ("live", "LOG_TOTALS_WORDS"), ("live", "HEAD_WORDS"), ("seal", "WORDS")];
    let mut expected = named_in_the_source().constants;
    for (scope, name) in lengths {
        assert!(expected.remove(&(scope.to_owned(), name.to_owned())), "{name} is gone");
    }
    let is_constant = |name: &String| !name.starts_with(char::is_lowercase);
    let mut found = BTreeSet::new();
    for table in tables() {
        for name in table.rows.iter().filter_map(|row| row.last()).filter(|name| is_constant(name)) {
            let scope = (table.name.as_str(), name.as_str());
            let (scope, name) = if table.name.is_empty() { name.split_once("::").unwrap_or(scope) } else { scope };
            assert!(found.insert((scope.to_owned(), name.to_owned())), "docs/format.md names {scope}::{name} twice");
        }
    }
    assert_eq!(found, expected, "names of docs/format.md, and of src/file/layout");
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version-2.slotlog")
}

/// The content of the golden file, which `write_the_golden_file` has written.
fn golden_content() -> Content {
    let mut content = Content::from([
        (Vec::new(), b"the empty key".to_vec()),
        (b"empty value".to_vec(), Vec::new()),
        (b"overwritten".to_vec(), b"second".to_vec()),
        (vec![b'k'; 300], b"a long key".to_vec()),
        (b"a long value".to_vec(), (0..70_000u32).map(|i| i as u8).collect()),
    ]);
    content.extend((0..500u32).map(|i| (i.to_le_bytes().to_vec(), (i * i).to_be_bytes().to_vec())));
    content
}

/// Run once, by hand, for each version of the format.
#[test]
#[ignore = "writes the golden file"]
fn write_the_golden_file() {
    let _ = fs::remove_file(golden());
    fs::create_dir_all(golden().parent().unwrap()).unwrap();
    let store = Store::open(golden()).unwrap();
    store.insert("before the clear", "x").unwrap();
    store.clear().unwrap();
    store.insert("overwritten", "first").unwrap();
    store.insert("removed", "x").unwrap();
    let mut transaction = store.begin().unwrap();
    for (key, value) in golden_content() {
        transaction.insert(key, value).unwrap();
    }
    transaction.commit().unwrap();
    store.remove("removed").unwrap();
    store.close().unwrap();
}

#[test]
fn the_golden_file_opens_and_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden");
    fs::copy(golden(), &path).unwrap();

    let store = Store::options().access(Access::ReadOnly).open(golden()).unwrap();
    assert_eq!(content(&store), golden_content());
    assert_eq!(store.verify().unwrap().findings(), []);
    for (key, value) in golden_content() {
        assert_eq!(store.get(&key).unwrap(), Some(value));
    }
    drop(store);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.opened(), Opened::Clean);
    assert_eq!(content(&store), golden_content());
    store.insert("new", "x").unwrap();
    assert_eq!(store.verify().unwrap().findings(), []);
}

/// The log is the truth: with index, tables and live area wiped, the golden file still reads.
#[test]
fn the_golden_file_reads_from_its_log_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden");
    let mut bytes = fs::read(golden()).unwrap();
    bytes[LIVE as usize..EXTENTS as usize].fill(0xa5);
    for at in [SUPERBLOCK_A, SUPERBLOCK_B] {
        let bytes = &mut bytes[at as usize..at as usize + 512];
        let mut superblock = Superblock::read_from_bytes(bytes).unwrap();
        if superblock.magic == MAGIC {
            superblock.flags = 0.into();
            bytes.copy_from_slice(superblock.sealed().as_bytes());
        }
    }
    let is_derived =
        |block: &[u8]| [REGION_MAGIC, MAP_TABLE_MAGIC, SPACE_TABLE_MAGIC].iter().any(|m| block.starts_with(m));
    let mut wiped = 0;
    for block in bytes[EXTENTS as usize..].chunks_mut(BLOCK as usize).filter(|block| is_derived(block)) {
        block.fill(0xa5);
        wiped += 1;
    }
    assert!(wiped >= 4, "two tables and two regions at least");
    fs::write(&path, bytes).unwrap();

    let store = Store::open(&path).unwrap();
    assert!(matches!(store.opened(), Opened::AfterPowerCut { .. }));
    assert_eq!(content(&store), golden_content());
    assert_eq!(store.verify().unwrap().findings(), []);
}
