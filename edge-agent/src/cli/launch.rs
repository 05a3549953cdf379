//! `foodflow-edge launch`: the service's main process, which starts the agent and new versions of it.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::Args;

use super::ExitWith;
use crate::fleet::update::launch::{self, Launch};

/// Start the agent, and new versions of it.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the spool, the journal, the identity and installed versions are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// How many seconds a new version may take to report that it runs well.
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=600))]
    trial: u64,
}

/// Runs until the agent ends for good, with its exit code.
pub async fn run(args: LaunchArgs) -> anyhow::Result<()> {
    let words = ["run".into(), "--config".into(), args.config.into_os_string()];
    let mut arguments: Vec<OsString> = words.into();
    arguments.extend(["--data-dir".into(), args.data_dir.clone().into_os_string()]);
    if std::env::args_os().any(|argument| argument == "--log-json") {
        arguments.push("--log-json".into());
    }
    let launch = Launch {
        arguments,
        data_dir: args.data_dir,
        trial: Duration::from_secs(args.trial),
    };
    match launch::run(&launch).await? {
        0 => Ok(()),
        code => Err(ExitWith(code).into()),
    }
}
