//! Does any packet make the front end panic? The codec, and the rules behind it, are given whole packets and mutations
//! of them, as often as `FOODFLOW_FUZZ` says (20,000 by default, 700,000 under `FOODFLOW_SOAK=1`).
#![allow(clippy::print_stdout, reason = "the count is what the run is for")]

use bytes::BytesMut;

use super::{
    codec::{Inbound, Version, read_connect, read_packet},
    limits::Limits,
    open::{inside_filter, is_open_topic, outside},
    rules::{Device, may_publish, may_subscribe},
};

/// Packets as clients send them: CONNECT with a will and without, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, PUBACK, PINGREQ, DISCONNECT.
const CORPUS: &[&[u8]] = &[
    b"\x10\x13\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x06edge-1",
    b"\x10\x12\x00\x04MQTT\x04\x02\x00\x0a\x00\x06edge-1",
    b"\x10\x24\x00\x04MQTT\x05\xC6\x00\x0a\x00\x00\x01c\x00\x00\x03a/b\x00\x01x\x00\x03a/b\x00\x03pwd",
    b"\x32\x0b\x00\x03a/b\x01\x02\x00xyz",
    b"\x30\x08\x00\x03a/b\x00xy",
    b"\x82\x09\x00\x01\x00\x00\x03a/b\x01",
    b"\x82\x08\x00\x01\x00\x03a/#\x00",
    b"\xA2\x08\x00\x01\x00\x00\x03a/b",
    b"\x40\x02\x00\x07",
    b"\xC0\x00",
    b"\xE0\x02\x04\x00",
];

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

fn mutated(random: &mut Random) -> Vec<u8> {
    let mut packet = CORPUS[random.below(CORPUS.len())].to_vec();
    for _ in 0..random.below(6) {
        let at = random.below(packet.len());
        match random.below(5) {
            0 => packet[at] ^= 1 << random.below(8),
            1 => packet[at] = random.next() as u8,
            2 => packet.insert(at, random.next() as u8),
            3 if packet.len() > 2 => drop(packet.remove(at)),
            _ => packet.extend_from_slice(CORPUS[random.below(CORPUS.len())]),
        }
    }
    // Half of them get a right length, so that their bodies are read.
    if packet.len() > 2 && packet.len() < 120 && random.below(2) == 0 {
        packet[1] = (packet.len() - 2) as u8;
    }
    packet
}

fn take(version: Version, packet: &[u8], device: &Device) {
    let limits = Limits::default();
    let mut inbox = BytesMut::from(packet);
    while let Ok(Some(read)) = read_packet(version, &mut inbox, &limits) {
        match read {
            Inbound::Publish { topic, .. } => {
                assert!(
                    !(may_publish(device, &topic) && is_open_topic(&topic)),
                    "{topic} is one or the other"
                );
            }
            Inbound::Subscribe { filters, .. } => {
                for (filter, _) in filters
                    .iter()
                    .filter(|(filter, _)| !may_subscribe(device, filter))
                {
                    let inside = inside_filter(device, filter);
                    assert!(inside.is_none_or(|it| it.starts_with("int/akron/")), "{filter}");
                }
            }
            _ => {}
        }
    }
    let mut connect = BytesMut::from(packet);
    drop(read_connect(&mut connect, &limits));
    let _topic = outside(packet);
}

#[test]
fn no_packet_makes_the_front_end_panic_or_leave_its_tenant() {
    let given = std::env::var("FOODFLOW_FUZZ")
        .ok()
        .and_then(|count| count.parse().ok());
    let soak = std::env::var_os("FOODFLOW_SOAK").is_some();
    let executions: u64 = given.unwrap_or(if soak { 700_000 } else { 20_000 });
    let device = Device {
        tenant: "akron".to_owned(),
        name: "e1".to_owned(),
    };
    // rumqttd's own panics on foreign packets are caught where they are decoded; they need not fill the log here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let outcome = std::panic::catch_unwind(|| {
        let mut random = Random(0x00F0_0DF1_0000_0002);
        for _ in 0..executions {
            let packet = mutated(&mut random);
            for version in [Version::V4, Version::V5] {
                let taken = std::panic::catch_unwind(|| take(version, &packet, &device));
                assert!(taken.is_ok(), "{packet:02x?}");
            }
        }
    });
    std::panic::set_hook(hook);
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    println!(
        "broker codec: {executions} executions over {} packets, no panic",
        CORPUS.len()
    );
}
