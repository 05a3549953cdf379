//! How is any message wrapped? Magic, version, kind and checksum first, then a header that stays readable
//! when the body does not, then the compressed body.
//!
//! ```text
//! offset size  field
//!  0     2     magic "FF"
//!  2     1     version (1)
//!  3     1     kind (1 frame, 2 dictionary, 3 acknowledgements, 4 command)
//!  4     4     CRC32C of everything from offset 8, little endian
//!  8     varint length of the header, header (postcard)
//!  .     1     body form: 0 plain, 1 zstd
//!  .     rest  body (postcard)
//! ```
//! postcard is not self-describing: within a version enum variants are only appended, fields never change.

use serde::{Serialize, de::DeserializeOwned};

/// The only version written so far.
pub const VERSION: u8 = 1;
/// Most bytes an envelope may have on the wire.
pub const ENVELOPE_BYTES_MAX: usize = 1 << 20;
/// Most bytes a body may have after decompression; the bound on what any input can make the reader allocate.
pub const BODY_BYTES_MAX: usize = 8 << 20;

const MAGIC: [u8; 2] = *b"FF";
const HEADER_AT: usize = 8;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Level 3 costs a few microseconds a frame; higher levels gain under 3 % on these bodies.
const ZSTD_LEVEL: i32 = 3;

/// What an envelope carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Readings and events of one lane.
    Frame = 1,
    /// An edge's tags.
    Dictionary = 2,
    /// The hub's word on frames and dictionaries.
    Acknowledgement = 3,
    /// A request of the hub.
    Command = 4,
}

/// Why bytes are no message. None of them panics or allocates beyond [`BODY_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not an envelope at all.
    #[error("not a FoodFlow envelope: it must start with the bytes `FF` (46 46)")]
    NotAnEnvelope,
    /// Written by a newer program.
    #[error("envelope version {found} is not known here (newest known: {VERSION}); update this program")]
    UnknownVersion {
        /// The version byte found.
        found: u8,
    },
    /// A message of another kind was expected here.
    #[error("envelope holds kind {found}, expected {expected}")]
    WrongKind {
        /// The kind byte found.
        found: u8,
        /// The kind byte expected.
        expected: u8,
    },
    /// The checksum does not match: bytes changed on the way.
    #[error("checksum mismatch: envelope says {stated:08x}, bytes give {computed:08x}")]
    Checksum {
        /// CRC32C stated by the envelope.
        stated: u32,
        /// CRC32C of the bytes that came.
        computed: u32,
    },
    /// Larger than a message may be.
    #[error("{bytes} bytes exceed the limit of {limit}")]
    TooLarge {
        /// The size found or announced.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The bytes end early, or run on, or do not form the types of this version.
    #[error("malformed {part}")]
    Malformed {
        /// Which part: `header`, `body`, `time column`, …
        part: &'static str,
    },
    /// Well-formed, but saying something impossible.
    #[error("{0}")]
    Invalid(String),
}

/// Wraps a header and a body.
///
/// # Panics
/// Never for the message types of this crate: serialising them to memory cannot fail.
pub fn seal<H: Serialize, B: Serialize>(kind: Kind, header: &H, body: &B) -> Vec<u8> {
    let body = postcard::to_stdvec(body).expect("message types serialise to memory");
    let header = postcard::to_stdvec(header).expect("message types serialise to memory");
    let packed = zstd::bulk::compress(&body, ZSTD_LEVEL)
        .ok()
        .filter(|packed| packed.len() < body.len());
    let (form, body) = packed.map_or((PLAIN, body), |packed| (ZSTD, packed));

    let mut out = Vec::with_capacity(HEADER_AT + 5 + header.len() + 1 + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind as u8, 0, 0, 0, 0]);
    put_varint(&mut out, header.len());
    out.extend_from_slice(&header);
    out.push(form);
    out.extend_from_slice(&body);
    let crc = crc32c::crc32c(&out[HEADER_AT..]);
    out[4..HEADER_AT].copy_from_slice(&crc.to_le_bytes());
    out
}

/// An envelope whose checksum held and whose header can be read.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'a> {
    header: &'a [u8],
    form: u8,
    body: &'a [u8],
}

/// Checks magic, version, kind, size and checksum.
///
/// # Errors
/// The first thing that is wrong.
pub fn open(bytes: &[u8], kind: Kind) -> Result<Opened<'_>, DecodeError> {
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            bytes: bytes.len(),
            limit: ENVELOPE_BYTES_MAX,
        });
    }
    if bytes.len() < HEADER_AT || bytes[..2] != MAGIC {
        return Err(DecodeError::NotAnEnvelope);
    }
    if bytes[2] != VERSION {
        return Err(DecodeError::UnknownVersion { found: bytes[2] });
    }
    if bytes[3] != kind as u8 {
        return Err(DecodeError::WrongKind {
            found: bytes[3],
            expected: kind as u8,
        });
    }
    let stated = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let computed = crc32c::crc32c(&bytes[HEADER_AT..]);
    if stated != computed {
        return Err(DecodeError::Checksum { stated, computed });
    }
    let malformed = DecodeError::Malformed { part: "header" };
    let (length, rest) = take_varint(&bytes[HEADER_AT..]).ok_or(malformed.clone())?;
    if length >= rest.len() {
        return Err(malformed);
    }
    let (header, rest) = rest.split_at(length);
    Ok(Opened {
        header,
        form: rest[0],
        body: &rest[1..],
    })
}

impl Opened<'_> {
    /// The header, readable even when the body is not.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn header<H: DeserializeOwned>(&self) -> Result<H, DecodeError> {
        exact(self.header, "header")
    }

    /// The body, decompressed within [`BODY_BYTES_MAX`].
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] or [`DecodeError::TooLarge`].
    pub fn body<B: DeserializeOwned>(&self) -> Result<B, DecodeError> {
        match self.form {
            PLAIN => exact(self.body, "body"),
            ZSTD => exact(&decompress(self.body)?, "body"),
            _ => Err(DecodeError::Malformed { part: "body form" }),
        }
    }
}

fn decompress(packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let malformed = DecodeError::Malformed {
        part: "compressed body",
    };
    // `compress` always states the content size, so a frame without one is not ours.
    let size = zstd::zstd_safe::get_frame_content_size(packed)
        .ok()
        .flatten()
        .ok_or(malformed.clone())?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge {
            bytes: size,
            limit: BODY_BYTES_MAX,
        });
    }
    let body = zstd::bulk::decompress(packed, size).map_err(|_| malformed.clone())?;
    if body.len() == size {
        Ok(body)
    } else {
        Err(malformed)
    }
}

fn exact<T: DeserializeOwned>(bytes: &[u8], part: &'static str) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed { part }),
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0usize;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// Names any payload by its bytes, for acknowledging what could not be read.
pub fn payload_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}
