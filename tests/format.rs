//! The file format, byte for byte: if one of these tests fails, existing files can no longer be read.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use slotlog::format::*;
use slotlog::{Access, Opened, Store};
use support::{Content, content};
use zerocopy::{FromBytes, IntoBytes};

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
        let expected = hex(expected);
        assert_eq!(bytes[offset..offset + expected.len()], expected, "at offset {offset}");
    }
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
