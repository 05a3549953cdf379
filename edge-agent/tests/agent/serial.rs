//! Are units on a serial line read over RTU, and is a late reply, which carries no transaction there, told apart?

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use protocol::Quality;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_serial::{SerialPort as _, SerialStream};

use crate::support::{acquisition::Acquisition, edge::head};

/// A pseudo-terminal: what the agent opens, and the end at which the devices are.
struct Wire {
    path: String,
    /// Kept open, so that the devices' end does not see the line go; a plain file, which locks the port for nobody.
    _ours: std::fs::File,
    /// How late the next reply is, in milliseconds.
    delay_ms: Arc<AtomicU64>,
}

impl Wire {
    fn start() -> Self {
        let (theirs, mut ours) = SerialStream::pair().unwrap();
        ours.set_exclusive(false).unwrap();
        let path = ours.name().unwrap();
        let plain = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let delay_ms = Arc::new(AtomicU64::new(0));
        tokio::spawn(serve(theirs, delay_ms.clone()));
        Self {
            path,
            _ours: plain,
            delay_ms,
        }
    }

    fn config(&self) -> String {
        let unit = |unit: u8| {
            format!(
                "[[modbus]]\nname = \"unit{unit}\"\ntransport = \"rtu\"\nserial = \"{}\"\nbaud = 115200\nparity = \"none\"\n\
                 unit_id = {unit}\ntimeout = \"200ms\"\n[[modbus.group]]\nperiod = \"1s\"\n[[modbus.group.tag]]\n\
                 name = \"T-{unit}\"\naddress = 0\n",
                self.path
            )
        };
        head(None) + &unit(1) + &unit(2)
    }
}

/// Unit 1 answers with the number of the request; there is no other.
async fn serve(mut wire: SerialStream, delay_ms: Arc<AtomicU64>) {
    let mut request = [0u8; 8];
    let mut number = 0u16;
    while wire.read_exact(&mut request).await.is_ok() {
        assert_eq!(crc(&request[..6]), request[6..], "{request:?}");
        if request[0] != 1 {
            continue;
        }
        number += 1;
        let mut reply = vec![1, 3, 2];
        reply.extend_from_slice(&number.to_be_bytes());
        reply.extend_from_slice(&crc(&reply));
        tokio::time::sleep(Duration::from_millis(delay_ms.swap(0, SeqCst))).await;
        wire.write_all(&reply).await.unwrap();
    }
}

/// Modbus over serial line 6.2.2: polynomial 0xA001, low byte first.
fn crc(bytes: &[u8]) -> [u8; 2] {
    let crc = bytes.iter().fold(0xFFFFu16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xA001 } else { crc >> 1 }
        })
    });
    crc.to_le_bytes()
}

#[tokio::test]
async fn t12_units_on_a_serial_line_are_read_and_a_late_reply_answers_no_other_request() {
    let wire = Wire::start();
    let mut source = Acquisition::start(&wire.config());
    source
        .until("readings", |source| {
            source
                .of("T-1")
                .iter()
                .filter(|(value, _)| value.is_some())
                .count()
                >= 2
        })
        .await;
    for _ in 0..2 {
        let late = source.of("T-1").len();
        wire.delay_ms.store(300, SeqCst);
        source
            .until("the late reply", |source| {
                source.of("T-1")[late..].contains(&(None, Quality::BAD_TIMEOUT))
            })
            .await;
        source
            .until("a value again", |source| {
                source.of("T-1").last().is_some_and(|(value, _)| value.is_some())
            })
            .await;
    }
    let numbers: Vec<f64> = source
        .of("T-1")
        .into_iter()
        .filter_map(|(value, _)| value)
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(
        source
            .of("T-2")
            .iter()
            .all(|reading| *reading == (None, Quality::BAD_TIMEOUT))
    );
}
