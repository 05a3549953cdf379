//! The hub's program: arguments, log, command, exit code.

use std::process::ExitCode;

use clap::Parser;
use cloud_hub::cli::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    cli::start_log(&arguments);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime cannot start");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(cli::run(arguments))
}
