//! Does any parser of untrusted bytes panic? Each is given what is in the corpus, and mutations of it, as often as
//! `FOODFLOW_FUZZ` says (20,000 times each by default, 700,000 under `FOODFLOW_SOAK=1`), from a seed that is printed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the count is what the run is for")]

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use protocol::{
    Quality, Reading, ack, command,
    frame::{Frame, FrameId, Header},
    integrator::{Dialect, Received, announced, detect, parse, understand},
    lane::Lane,
    reading::Alias,
    sparkplug::{
        self,
        edge_node::{EdgeNode, MetricPlan},
        host::{Host, HostSelf, Place},
    },
    tag::{Dictionary, Tag},
    topic::Topic,
};
use uuid::Uuid;

const NOW_US: i64 = 1_795_168_800_000_000;

/// xorshift64*: the same seed, the same run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// What is worth more than a random byte: ends of ranges, and the marks of the formats.
const WORDS: &[&[u8]] = &[
    b"",
    b"\0",
    b"\xFF\xFF\xFF\xFF",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x7F",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b"18446744073709551615",
    b"9007199254740993",
    b"\\u0000",
    b"\xC3\x28",
    b"/",
    b"+",
    b"#",
    b"spBv1.0",
    b"\x12\x00",
    b"\x08\x01",
    b"ts",
    b"value",
    b"2026-11-20T10:00:00Z",
    b"=",
    b" ",
    b"\n",
    b"{{ value_json.a }}",
];

/// One to eight changes: bits, bytes, words, cuts, copies, and a piece of another input.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] ^= 1 << random.below(8);
            }
            1 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] = random.next() as u8;
            }
            2 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            3 => input.truncate(at),
            4 if !input.is_empty() => {
                let from = random.below(input.len());
                let to = (from + random.below(16)).min(input.len());
                let piece = input[from..to].to_vec();
                drop(input.splice(at..at, piece));
            }
            5 if !input.is_empty() => {
                let from = random.below(input.len());
                let to = (from + random.below(8)).min(input.len());
                drop(input.drain(from..to));
            }
            6 if !other.is_empty() => {
                let from = random.below(other.len());
                let to = (from + random.below(32)).min(other.len());
                drop(input.splice(at..at, other[from..to].iter().copied()));
            }
            _ => input.insert(at, random.next() as u8),
        }
    }
    input.truncate(4_096);
}

fn executions() -> u64 {
    let given = std::env::var("FOODFLOW_FUZZ")
        .ok()
        .and_then(|count| count.parse().ok());
    let soak = std::env::var_os("FOODFLOW_SOAK").is_some();
    given.unwrap_or(if soak { 700_000 } else { 20_000 })
}

/// Runs a target over the corpus and its mutations; a panic is told with the input that made it.
fn fuzz(name: &str, corpus: &[Vec<u8>], mut target: impl FnMut(&[u8])) {
    assert!(!corpus.is_empty(), "{name} has a corpus");
    let seed = std::env::var("FOODFLOW_FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let mut random = Random(seed.unwrap_or(0x00F0_0DF1_0000_0001));
    let (mut run, limit) = (0, executions());
    let mut execute = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            let hex = input.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            panic!("{name} panics on {hex}");
        }
    };
    for input in corpus {
        execute(input);
        run += 1;
    }
    while run < limit {
        let mut input = corpus[random.below(corpus.len())].clone();
        let other = &corpus[random.below(corpus.len())];
        mutate(&mut input, other, &mut random);
        execute(&input);
        run += 1;
    }
    println!("{name}: {run} executions over {} inputs, no panic", corpus.len());
}

fn golden(folder: &str, end: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == end));
    paths.sort();
    paths
        .into_iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn a_frame() -> Frame {
    let reading = |second: i64| {
        Reading::new(
            Alias(second as u32 % 3),
            NOW_US + second * 1_000_000,
            4.1,
            Quality::GOOD,
        )
    };
    Frame {
        header: Header {
            id: FrameId {
                boot: Uuid::from_u128(7),
                lane: Lane::Live,
                seq: 42,
            },
            edge: "akron-1".to_owned(),
            dictionary: Uuid::from_u128(9),
            sealed_us: NOW_US,
            clock: protocol::frame::ClockState {
                synced: true,
                error_us_max: None,
            },
            readings: 0,
            events: 0,
        },
        readings: (0..40).map(reading).collect(),
        events: Vec::new(),
    }
}

/// The same bytes under a right checksum, as a message of a kind: what a damaged sender would write, not a damaged line.
fn resealed(bytes: &[u8], kind: u8) -> Vec<u8> {
    let mut sealed = bytes.to_vec();
    sealed.resize(sealed.len().max(9), 0);
    sealed[..4].copy_from_slice(&[b'F', b'F', 1, kind]);
    let crc = crc32c::crc32c(&sealed[8..]);
    sealed[4..8].copy_from_slice(&crc.to_le_bytes());
    sealed
}

#[test]
fn no_frame_envelope_acknowledgement_or_dictionary_panics() {
    let tag = |alias| Tag {
        alias: Alias(alias),
        name: format!("TT-{alias}"),
        unit: "degC".to_owned(),
        description: String::new(),
        line: Some("L1".to_owned()),
        period_ms: 1_000,
        simulated: false,
    };
    let mut corpus = golden("", "bin");
    corpus.push(a_frame().encode().unwrap());
    corpus.push(
        Dictionary {
            tags: (0..5).map(tag).collect(),
        }
        .encode(),
    );
    fuzz("frame, envelope, acknowledgement, dictionary", &corpus, |bytes| {
        drop((
            Frame::decode(bytes),
            ack::decode(bytes),
            Dictionary::decode(bytes),
        ));
        let frame = resealed(bytes, 1);
        drop((Frame::decode(&frame), Frame::decode_header(&frame)));
        drop(Dictionary::decode(&resealed(bytes, 2)));
        drop(ack::decode(&resealed(bytes, 3)));
    });
}

#[test]
fn no_command_panics() {
    let order = command::Order::Replay { from_us: 1, to_us: 2 };
    let command = command::Command {
        id: Uuid::from_u128(7),
        issued_us: 1,
        expires_us: None,
        by: "avery".to_owned(),
        order,
    };
    fuzz("command", &[command::encode(&command)], |bytes| {
        drop((command::decode(bytes), command::decode(&resealed(bytes, 4))));
    });
}

#[test]
fn no_topic_panics() {
    let corpus = [
        "ff/v1/akron/akron-1/up/live",
        "spBv1.0/akron/DDATA/n1/htst",
        "v1/p/l/oven/t",
        "umh/v1/a/_historian/t",
    ];
    let corpus: Vec<Vec<u8>> = corpus.iter().map(|topic| topic.as_bytes().to_vec()).collect();
    fuzz("topic", &corpus, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        drop(Topic::parse(&text));
        drop(Place::parse(&text));
        detect(&text, bytes);
    });
}

/// Topic, line feed, payload: as the golden files are.
fn halves(bytes: &[u8]) -> (String, &[u8]) {
    let at = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (topic, payload) = bytes.split_at(at);
    (
        String::from_utf8_lossy(topic).into_owned(),
        payload.get(1..).unwrap_or_default(),
    )
}

#[test]
fn no_integrators_message_panics_in_its_own_dialect_or_as_it_is_told() {
    fuzz(
        "integrator, as told by topic and shape",
        &golden("integrator", "txt"),
        |bytes| {
            let (topic, payload) = halves(bytes);
            let received = Received {
                client: "c",
                topic: &topic,
                payload,
                is_retained: false,
                received_us: NOW_US,
            };
            if let Ok(understood) = understand(None, &received) {
                for fact in &understood.facts {
                    assert_eq!(fact.value.is_none(), fact.quality.is_bad());
                }
                if let Some(protocol::integrator::Message::Discovery(discovery)) = &understood.message {
                    drop(announced(discovery, "c"));
                }
            }
        },
    );
}

#[test]
fn no_integrators_message_panics_in_any_dialect() {
    let corpus = golden("integrator", "txt");
    for (name, dialect) in Dialect::ALL {
        fuzz(name, &corpus, |bytes| {
            let (topic, payload) = halves(bytes);
            drop(parse(dialect, &topic, payload));
        });
    }
}

/// What our own edge node says, each message as its topic, a line feed and its payload.
fn sparkplug_corpus() -> Vec<Vec<u8>> {
    let plan = |alias, name: &str| MetricPlan {
        alias: Alias(alias),
        name: name.to_owned(),
        unit: "degC".to_owned(),
    };
    let devices = [("htst".to_owned(), vec![plan(0, "TT-101"), plan(1, "TT-102")])];
    let mut node = EdgeNode::new("akron", "n1", devices).unwrap();
    let death = node.connect(NOW_US);
    let mut messages = node.birth(|_| true, NOW_US);
    let reading = Reading::new(Alias(0), NOW_US, 72.5, Quality::GOOD);
    messages.extend(node.data(&[reading], false, NOW_US));
    messages.extend(node.data(&[Reading::bad(Alias(1), NOW_US, Quality::BAD)], true, NOW_US));
    messages.extend(node.device_death("htst", NOW_US));
    messages.push(death);
    let whole = messages
        .into_iter()
        .map(|it| [it.topic.as_bytes(), b"\n", &it.payload].concat());
    whole.collect()
}

#[test]
fn no_sparkplug_message_panics_whatever_was_heard_before() {
    let (corpus, mut host, mut heard) = (sparkplug_corpus(), Host::default(), 0u32);
    fuzz("sparkplug host", &corpus, |bytes| {
        let (topic, payload) = halves(bytes);
        heard += 1;
        if heard.is_multiple_of(500) {
            host = Host::default();
        }
        drop(host.hear(&topic, payload, NOW_US + i64::from(heard) * 1_000));
        drop(host.tick(NOW_US + i64::from(heard) * 1_000));
    });
    let node = EdgeNode::new("akron", "n1", []).unwrap();
    let us = HostSelf::new("foodflow", NOW_US).unwrap();
    fuzz("sparkplug payload, command and state", &corpus, |bytes| {
        let (topic, payload) = halves(bytes);
        drop(sparkplug::decode(payload));
        drop(node.command("spBv1.0/akron/NCMD/n1", payload));
        drop(us.heard(&topic, payload));
    });
}
