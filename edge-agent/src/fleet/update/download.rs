//! Does all of a signed program arrive, and nothing else? A download that goes on where it was cut, never longer than
//! signed, never started on a disk without room, and never named a program before its hash fits.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{StatusCode, header};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::manifest::Manifest;
use crate::uplink::{backoff::Backoff, identity::Identity};
use crate::{durable, hex};

/// Left free for the spool: a program never takes the last of the disk.
const RESERVE_BYTES: u64 = 64 << 20;
/// Attempts in a row that bring nothing before it is given up.
const ATTEMPTS_MAX: u32 = 8;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Why a program did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is no room.
    #[error("{needed} bytes are needed and {free} are free beside the {RESERVE_BYTES} kept for the spool")]
    NoRoom {
        /// Bytes to come.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// It could not be fetched.
    #[error("{url}: {reason}")]
    Unreachable {
        /// From where.
        url: String,
        /// Why, the last time.
        reason: String,
    },
    /// It is not what was signed.
    #[error("what came is not what was signed: {0}")]
    Wrong(String),
    /// The disk refuses.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where a program lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its address.
    pub url: String,
    /// What is shown there; none to strangers.
    pub identity: Option<Identity>,
}

/// What one attempt came to.
enum Failed {
    /// Another attempt may help.
    Passing(String),
    /// None will.
    Final(DownloadError),
}

fn part_path(program: &Path) -> PathBuf {
    program.with_extension("part")
}

fn disk(path: &Path) -> impl Fn(io::Error) -> DownloadError + '_ {
    move |source| DownloadError::Disk {
        path: path.to_owned(),
        source,
    }
}

/// Fetches a program to its `.part`, going on with what is there. Complete at once when the program is there.
///
/// # Errors
/// [`DownloadError`]; what came stays for the next time, unless it is wrong.
pub async fn fetch(
    manifest: &Manifest,
    place: &Place,
    program: &Path,
    ca_file: Option<&Path>,
) -> Result<(), DownloadError> {
    let part = part_path(program);
    if program.exists() {
        return Ok(());
    }
    let directory = program.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(disk(directory))?;
    let client = client(ca_file)?;
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    let mut attempts = 0;
    loop {
        let before = have(&part);
        if before == manifest.size {
            return Ok(());
        }
        has_room(
            free_bytes(directory).map_err(disk(directory))?,
            manifest.size - before.min(manifest.size),
        )?;
        let reason = match attempt(&client, manifest, place, &part).await {
            Ok(()) => continue,
            Err(Failed::Final(error)) => return Err(error),
            Err(Failed::Passing(reason)) => reason,
        };
        attempts = if have(&part) > before { 1 } else { attempts + 1 };
        if attempts >= ATTEMPTS_MAX {
            return Err(DownloadError::Unreachable {
                url: place.url.clone(),
                reason,
            });
        }
        tracing::warn!(%reason, attempts, "the download goes on later");
        let pause = backoff.next(&mut rand::rng());
        tokio::time::sleep(pause).await;
    }
}

fn client(ca_file: Option<&Path>) -> Result<reqwest::Client, DownloadError> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_WITHIN)
        .read_timeout(READ_WITHIN);
    if let Some(path) = ca_file {
        let pem = fs::read(path).map_err(disk(path))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| DownloadError::Wrong(format!("{}: {error}", path.display())))?;
        builder = authorities
            .into_iter()
            .fold(builder, reqwest::ClientBuilder::add_root_certificate);
    }
    builder
        .build()
        .map_err(|error| DownloadError::Wrong(error.to_string()))
}

fn have(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |metadata| metadata.len())
}

/// Whether a program of which `needed` bytes are still to come leaves the spool its room. Pure.
///
/// # Errors
/// [`DownloadError::NoRoom`], with the figures.
pub fn has_room(free: u64, needed: u64) -> Result<(), DownloadError> {
    let free = free.saturating_sub(RESERVE_BYTES);
    if needed <= free {
        Ok(())
    } else {
        Err(DownloadError::NoRoom { needed, free })
    }
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(directory)?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

async fn attempt(
    client: &reqwest::Client,
    manifest: &Manifest,
    place: &Place,
    part: &Path,
) -> Result<(), Failed> {
    let passing = |error: reqwest::Error| Failed::Passing(error.to_string());
    let from = have(part);
    let request = client.get(&place.url);
    let request = match &place.identity {
        Some(identity) => request.basic_auth(&identity.mqtt_username, Some(&identity.mqtt_password)),
        None => request,
    };
    let request = if from > 0 {
        request.header(header::RANGE, format!("bytes={from}-"))
    } else {
        request
    };
    let mut response = request.send().await.map_err(passing)?;
    let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
        && response
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|range| range.to_str().ok())
            .is_some_and(|range| range.starts_with(&format!("bytes {from}-")));
    if !goes_on && response.status() != StatusCode::OK {
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            drop(fs::remove_file(part));
        }
        return Err(Failed::Passing(format!(
            "the server answered {}",
            response.status()
        )));
    }
    let on_disk = |source| Failed::Final(disk(part)(source));
    let mut file = tokio::fs::OpenOptions::new()
        .create(true)
        .write(true)
        .append(goes_on)
        .truncate(!goes_on)
        .open(part)
        .await
        .map_err(on_disk)?;
    let mut length = if goes_on { from } else { 0 };
    while let Some(chunk) = response.chunk().await.map_err(passing)? {
        length += chunk.len() as u64;
        if length > manifest.size {
            drop(fs::remove_file(part));
            let message = format!("more than the {} bytes that were signed", manifest.size);
            return Err(Failed::Final(DownloadError::Wrong(message)));
        }
        file.write_all(&chunk).await.map_err(on_disk)?;
    }
    file.sync_all().await.map_err(on_disk)?;
    if length < manifest.size {
        return Err(Failed::Passing(format!(
            "cut after {length} of {} bytes",
            manifest.size
        )));
    }
    Ok(())
}

/// Gives a complete `.part` its program's name, when it is what was signed.
///
/// # Errors
/// [`DownloadError::Wrong`]: then it is removed.
pub fn finish(program: &Path, manifest: &Manifest) -> Result<(), DownloadError> {
    let part = part_path(program);
    let path = if program.exists() { program } else { &part };
    let found = sha256_file(path).map_err(disk(path))?;
    if found != manifest.sha256.to_lowercase() {
        fs::remove_file(path).map_err(disk(path))?;
        return Err(DownloadError::Wrong(format!(
            "SHA-256 {found}, signed {}; it was removed",
            manifest.sha256
        )));
    }
    if path == part {
        let named = fs::set_permissions(&part, fs::Permissions::from_mode(0o755))
            .and_then(|()| File::open(&part)?.sync_all())
            .and_then(|()| fs::rename(&part, program))
            .and_then(|()| durable::sync_directory(program));
        named.map_err(disk(program))?;
    }
    Ok(())
}

/// SHA-256 of a file, lower-case hex, in constant memory.
///
/// # Errors
/// The disk's.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests;
