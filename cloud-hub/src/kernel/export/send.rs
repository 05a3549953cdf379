//! How does a file reach a slow reader? In blocks, a few ahead of what was taken. One that takes nothing for minutes
//! is given up, so that it keeps no file and no place.

use std::{fs::File, io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use percent::encoded;
use tokio::{
    io::AsyncReadExt,
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;

use super::{DIGEST_HEADER, digest_header, slots::Slot};

const BLOCK_BYTES: usize = 1 << 16;
const BLOCKS_AHEAD: usize = 2;
/// Longest wait for a reader to take a block.
const STALL_MAX: Duration = Duration::from_mins(3);
/// Longest a file is sent.
const SENDING_MAX: Duration = Duration::from_hours(1);

/// A file and what its reader is told of it.
#[derive(Debug)]
pub struct Kept<'a> {
    /// At its start.
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// What it is.
    pub media_type: HeaderValue,
    /// Name to save it under.
    pub name: &'a str,
    /// Given back when it is sent.
    pub slot: Option<Slot>,
}

/// The answer that carries a file, to be saved and never shown in the page.
pub fn send(kept: Kept<'_>) -> Response {
    let (blocks, taken) = mpsc::channel(BLOCKS_AHEAD);
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(taken)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kept.media_type);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(kept.bytes));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    for (name, value) in [
        (DIGEST_HEADER, digest_header(&kept.sha256)),
        (header::CONTENT_DISPOSITION, disposition(kept.name)),
    ] {
        let value = HeaderValue::from_str(&value).expect("both are plain ASCII");
        headers.insert(name, value);
    }
    let (file, slot) = (kept.file, kept.slot);
    tokio::spawn(async move {
        if let Err(error) = feed(file, &blocks, STALL_MAX).await {
            tracing::info!(%error, "a download was given up");
            // The reader is told that this was not all.
            drop(blocks.try_send(Err(error)));
        }
        drop(slot);
    });
    response
}

async fn feed(file: File, blocks: &mpsc::Sender<io::Result<Bytes>>, stall_max: Duration) -> io::Result<()> {
    let mut file = tokio::fs::File::from_std(file);
    let until = Instant::now() + SENDING_MAX;
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        (&mut file)
            .take(BLOCK_BYTES as u64)
            .read_to_end(&mut block)
            .await?;
        if block.is_empty() {
            return Ok(());
        }
        let sending = timeout(stall_max, blocks.send(Ok(block.into())));
        match timeout_at(until, sending).await {
            Ok(Ok(Ok(()))) => {}
            // The reader has gone.
            Ok(Ok(Err(_))) => return Ok(()),
            Ok(Err(_)) | Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// `attachment` with the name in both forms (RFC 6266): plain for old readers, then whole.
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_. ".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{}",
        encoded(name)
    )
}

mod percent {
    use std::fmt::Write as _;

    /// As RFC 8187 wants it: everything but letters, digits and a few signs is percent-encoded UTF-8.
    pub(super) fn encoded(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for byte in text.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                write!(out, "%{byte:02X}").expect("a String takes all that is written to it");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_header() {
        assert_eq!(
            disposition("Zeugnis \"ä\"\r\n.pdf"),
            "attachment; filename=\"Zeugnis _____.pdf\"; filename*=UTF-8''Zeugnis%20%22%C3%A4%22%0D%0A.pdf"
        );
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &vec![7; 10 * BLOCK_BYTES]).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let (blocks, taken) = mpsc::channel(BLOCKS_AHEAD);
        let error = feed(file, &blocks, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(taken);
    }
}
