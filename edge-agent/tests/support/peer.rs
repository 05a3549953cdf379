//! A Python program that stands for somebody else's software: told what to do by lines, it answers by lines.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// Nothing that a peer does takes nearly as long.
const WITHIN: Duration = Duration::from_mins(1);

/// A running peer; killed when dropped.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Starts a script of `tests/peers`.
    pub fn start(python: &Path, script: &str, arguments: &[&str]) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let mut child = Command::new(python)
            .arg(scripts.join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines }
    }

    pub async fn say(&mut self, text: &str) {
        self.input
            .write_all(format!("{text}\n").as_bytes())
            .await
            .unwrap();
    }

    /// The next line that it says.
    pub async fn line(&mut self) -> String {
        tokio::time::timeout(WITHIN, self.lines.next_line())
            .await
            .expect("the peer is silent")
            .unwrap()
            .expect("the peer ended")
    }

    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// The interpreter of a virtual environment in the user's cache.
///
/// # Panics
/// When it is missing; says what to run.
pub fn python(environment: &str, remedy: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    let python = cache.join("foodflow").join(environment).join("bin/python");
    assert!(python.exists(), "{}: missing; {remedy}", python.display());
    python
}
