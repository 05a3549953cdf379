//! `foodflow-edge trust`: which certificate does an OPC UA server show, and is it to be accepted? Also carries the agent's
//! own identity from one installation to the next.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{
    config,
    source::opcua::{
        config::Server,
        endpoint,
        pki::{self, Pki},
    },
};

/// Show and accept the certificate of an OPC UA server.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["export", "import"])]
    config: Option<PathBuf>,
    /// The agent's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The server's name in the configuration; without it, every server is listed and none is accepted.
    server: Option<String>,
    /// Accept only if the fingerprint is this one, in part or whole: as it was read at the server.
    #[arg(long, value_name = "HEX", requires = "server")]
    fingerprint: Option<String>,
    /// Only show the certificate.
    #[arg(long, requires = "server")]
    show: bool,
    /// Write the agent's identity and everything it trusts to this file. It holds the private key.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "import"])]
    export: Option<PathBuf>,
    /// Take over an identity that was exported.
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    import: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(args: TrustArgs) -> anyhow::Result<()> {
    let directory = args.data_dir.join("opcua-pki");
    if let Some(file) = &args.import {
        let pki = Pki::import(&directory, file)?;
        println!("taken over: {}", pki.application_uri());
        return Ok(());
    }
    let pki = Pki::open(&directory)?;
    if let Some(file) = &args.export {
        return export(&pki, file);
    }
    let file = args.config.as_deref().unwrap_or(Path::new(""));
    let config = config::load(file)?;
    let Some(name) = &args.server else {
        return list(&pki, &config.opcua);
    };
    let Some(server) = config.opcua.iter().find(|server| server.name == *name) else {
        let known: Vec<&str> = config.opcua.iter().map(|server| server.name.as_str()).collect();
        bail!(
            "no OPC UA server is named `{name}` in {}; there are: {}",
            file.display(),
            known.join(", ")
        );
    };
    accept(&pki, server, &args).await
}

fn export(pki: &Pki, file: &Path) -> anyhow::Result<()> {
    pki.ensure_own()?;
    let text = pki.export()?;
    let mut out = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("writing {}", file.display()))?;
    out.write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .with_context(|| format!("writing {}", file.display()))?;
    println!(
        "{} written; it holds the private key: keep it like a password",
        file.display()
    );
    Ok(())
}

fn list(pki: &Pki, servers: &[Server]) -> anyhow::Result<()> {
    println!("this agent: {}", pki.application_uri());
    match pki.own_facts() {
        Some(facts) => println!("  fingerprint {}", facts.fingerprint),
        None => println!("  no certificate yet: it is made for the first server with security"),
    }
    for server in servers {
        let state = match pki.trusted(&server.name)? {
            _ if !server.security.is_on() => "no security configured".to_owned(),
            Some(der) => format!("trusted: {}", pki::fingerprint(&der)),
            None => "not trusted yet".to_owned(),
        };
        println!("{} {}: {state}", server.name, server.url);
    }
    Ok(())
}

async fn accept(pki: &Pki, server: &Server, args: &TrustArgs) -> anyhow::Result<()> {
    if !server.security.is_on() {
        bail!(
            "`{}` has no security configured: there is no certificate to trust; set `security = \"Basic256Sha256\"`",
            server.name
        );
    }
    let endpoint = endpoint::find(server, pki).await?;
    let shown = endpoint.server_certificate.as_ref();
    let Some(facts) = pki::facts(shown) else {
        bail!("`{}` shows something that is no certificate", server.name);
    };
    println!("{} {}", server.name, server.url);
    println!("  subject     {}", facts.subject);
    println!(
        "  valid       {} to {}",
        pki::day(facts.not_before_us),
        pki::day(facts.not_after_us)
    );
    println!("  fingerprint {}", facts.fingerprint);
    let trusted = pki.trusted(&server.name)?;
    if trusted.as_deref() == Some(shown) {
        println!("  trusted already");
        return Ok(());
    }
    if let Some(trusted) = &trusted {
        println!("  changed: trusted was {}", pki::fingerprint(trusted));
    }
    if args.show {
        return Ok(());
    }
    if let Some(expected) = &args.fingerprint
        && !is_part_of(expected, &facts.fingerprint)
    {
        bail!(
            "the fingerprint is not {expected}: nothing was accepted; somebody may be between this machine and the server"
        );
    }
    pki.trust(&server.name, shown)?;
    println!("  accepted; a running agent connects within seconds");
    Ok(())
}

/// Whether the fingerprint begins with what was given, however it is spaced; at least eight digits.
fn is_part_of(given: &str, fingerprint: &str) -> bool {
    let digits = |text: &str| -> String {
        text.chars()
            .filter(char::is_ascii_hexdigit)
            .map(|c| c.to_ascii_lowercase())
            .collect()
    };
    let given = digits(given);
    given.len() >= 8 && digits(fingerprint).starts_with(&given)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_compared_however_it_is_written() {
        let fingerprint = "0a1b 2c3d 4e5f";
        assert!(is_part_of("0A:1B:2C:3D", fingerprint));
        assert!(is_part_of("0a1b2c3d4e5f", fingerprint));
        assert!(!is_part_of("0a1b", fingerprint), "too short to prove anything");
        assert!(!is_part_of("1b2c3d4e", fingerprint));
    }
}
