//! The `foodflow-edge` program: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    edge_agent::cli::main()
}
