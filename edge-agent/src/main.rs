//! The `foodflow-edge` program: arguments in, exit code out.

/// Memory that is given back. Reading a configuration of 100,000 tags takes 460 MB for a second; glibc keeps most of it
/// for ever (180 MB resident, of which 50 are in use), jemalloc returns it (66 MB). A small agent costs the same on both.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc's options (its manual, TUNING): unused pages go back to the system within a second, at once where they
/// were given back lazily before, and two arenas serve all threads.
#[allow(
    unsafe_code,
    reason = "jemalloc reads its options from a symbol of this name before main"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: &[u8; 47] = b"dirty_decay_ms:1000,muzzy_decay_ms:0,narenas:2\0";

fn main() -> std::process::ExitCode {
    edge_agent::cli::main()
}
