//! `foodflow-edge update`: which version runs and which ran before, a version installed by hand, and the two tools
//! with which a release is signed.
#![expect(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use ed25519_dalek::{Signer as _, SigningKey};

use crate::{
    config, durable,
    fleet::{
        gate::Vitals,
        update::{
            self,
            manifest::{self, Manifest, Version},
            versions,
        },
    },
    hex,
};

/// Look at installed versions, install one, sign one.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(subcommand)]
    command: UpdateCommand,
}

#[derive(Debug, Subcommand)]
enum UpdateCommand {
    /// Which version runs next, which before it, and how the newest trial ended.
    Status(StatusArgs),
    /// Install a signed version from a file; it is started when the service restarts.
    Apply(ApplyArgs),
    /// Make a key that signs releases; prints its public half for `update.trusted_keys`.
    Keygen(KeygenArgs),
    /// Sign a program: writes its manifest and signature.
    Sign(SignArgs),
}

#[derive(Debug, Args)]
struct StatusArgs {
    /// The agent's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ApplyArgs {
    /// The configuration, for the keys it trusts.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The agent's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The signed manifest; its signature lies beside it as `.sig`.
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,
    /// The program.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct KeygenArgs {
    /// Where the private key is written, for its owner only; never over an existing file.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct SignArgs {
    /// The private key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The program.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// Its version, like 1.2.3.
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// Where edges fetch it; at their hub, by its hash, when absent.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// What it runs on; this machine's when absent.
    #[arg(long, value_name = "TRIPLE", default_value_t = manifest::target())]
    target: String,
    /// The oldest version it can follow.
    #[arg(long, value_name = "VERSION")]
    min_version: Option<Version>,
    /// Day of the release, like 2026-11-20.
    #[arg(long, value_name = "DATE")]
    released: String,
    /// Where the manifest is written; the signature goes beside it as `.sig`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the subcommand.
pub fn run(args: &UpdateArgs) -> anyhow::Result<()> {
    match &args.command {
        UpdateCommand::Status(args) => status(args),
        UpdateCommand::Apply(args) => apply(args),
        UpdateCommand::Keygen(args) => keygen(&args.out),
        UpdateCommand::Sign(args) => sign(args),
    }
}

fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let state = versions::load(&args.data_dir)
        .with_context(|| format!("reading the versions in {}", args.data_dir.display()))?;
    let packaged = manifest::running();
    if args.json {
        let answer = serde_json::json!({ "this_program": packaged, "installed": state });
        println!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    let version = |installed: Option<&versions::Installed>| {
        installed.map_or_else(
            || "the packaged one".to_owned(),
            |installed| installed.version.to_string(),
        )
    };
    println!("this program: {packaged}");
    println!("current: {}", version(state.current.as_ref()));
    println!("before it: {}", version(state.previous.as_ref()));
    if let Some(trial) = &state.trial {
        println!("on trial: started {} times", trial.starts);
    }
    if let Some(concluded) = &state.concluded {
        let how = concluded.failure.as_deref().unwrap_or("it runs well");
        println!("newest trial: version {}: {how}", concluded.version);
    }
    Ok(())
}

fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let config = config::load(&args.config)?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let signature = hex::unhex(String::from_utf8_lossy(&read(&signature_path(&args.manifest))?).trim())
        .context("the signature is not in hexadecimal digits")?;
    let offered = update::admitted(&read(&args.manifest)?, &signature, &config.fleet.trusted_keys)?;
    let Some(offered) = offered else {
        return say_applied(args.json, None);
    };
    let part = versions::program(&args.data_dir, offered.version).with_extension("part");
    if let Some(directory) = part.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    fs::copy(&args.file, &part).with_context(|| format!("copying {}", args.file.display()))?;
    update::stage(&args.data_dir, &offered, None, Vitals::default())?;
    say_applied(args.json, Some(offered.version))
}

fn say_applied(json: bool, staged: Option<Version>) -> anyhow::Result<()> {
    if json {
        println!(
            "{}",
            serde_json::to_string(&serde_json::json!({ "staged": staged }))?
        );
    } else if let Some(version) = staged {
        println!("version {version} is started when the service restarts: systemctl restart foodflow-edge");
    } else {
        println!("this version runs already");
    }
    Ok(())
}

fn keygen(out: &Path) -> anyhow::Result<()> {
    if out.exists() {
        bail!(
            "{} exists: a key that signed releases is not written over",
            out.display()
        );
    }
    let key = SigningKey::from_bytes(&rand::random());
    let private = hex::hex(key.as_bytes());
    durable::perform(&durable::replace(out, private.into_bytes(), 0o600))?;
    println!("{}", hex::hex(key.verifying_key().as_bytes()));
    Ok(())
}

fn sign(args: &SignArgs) -> anyhow::Result<()> {
    let text = fs::read_to_string(&args.key).with_context(|| format!("reading {}", args.key.display()))?;
    let private = hex::unhex_array::<32>(&text);
    let key = SigningKey::from_bytes(&private.context("not a key that `update keygen` wrote")?);
    let size = fs::metadata(&args.program).with_context(|| format!("reading {}", args.program.display()))?;
    let manifest = Manifest {
        version: args.version,
        target: args.target.clone(),
        sha256: update::download::sha256_file(&args.program)?,
        size: size.len(),
        url: args.url.clone(),
        min_version: args.min_version,
        released: args.released.clone(),
    };
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    let signature = key.sign(&bytes).to_bytes();
    // What an edge would refuse is not signed.
    manifest::verify(&bytes, &signature, &[key.verifying_key()])?;
    durable::perform(&durable::replace(&args.out, bytes, 0o644))?;
    let signature = hex::hex(&signature).into_bytes();
    durable::perform(&durable::replace(&signature_path(&args.out), signature, 0o644))?;
    println!("{}", args.out.display());
    Ok(())
}

fn signature_path(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}
