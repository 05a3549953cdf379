//! Who keeps PostgreSQL alive? One thread that starts it, waits for it, and starts it again when it dies.
//!
//! The thread lives as long as the hub: the kernel ends PostgreSQL when the *thread* that started it ends.

use std::{
    io,
    os::unix::process::CommandExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use nix::{
    sys::{prctl, signal::Signal},
    unistd::Pid,
};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A handle on the thread.
#[derive(Debug)]
pub(super) struct Keeper {
    /// 0 while there is none.
    pid: Arc<AtomicI32>,
    /// Dropping it says: stop.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the thread; `command` makes the command anew for every start.
    pub(super) fn start(command: impl Fn() -> io::Result<Command> + Send + 'static) -> io::Result<Self> {
        let pid = Arc::new(AtomicI32::new(0));
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("postgres-keeper".to_owned())
            .spawn({
                let pid = Arc::clone(&pid);
                move || keep(&command, &pid, &stopped)
            })?;
        Ok(Self {
            pid,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The server's process id while it runs.
    pub(super) fn pid(&self) -> Option<i32> {
        Some(self.pid.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// Stops the server (its fast shutdown: open transactions are rolled back) and waits for it.
    pub(super) fn stop(mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the keeper of PostgreSQL panicked");
        }
    }

    fn ask_to_stop(&mut self) {
        drop(self.stop.take());
        if let Some(pid) = self.pid() {
            signal(pid, Signal::SIGINT);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

fn keep(command: &dyn Fn() -> io::Result<Command>, pid: &AtomicI32, stopped: &mpsc::Receiver<()>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let started = std::time::Instant::now();
        match command().and_then(|mut command| die_with_parent(&mut command).spawn()) {
            Ok(mut child) => {
                pid.store(child.id().cast_signed(), Ordering::Release);
                if is_told_to_stop(stopped, Duration::ZERO) {
                    // Told while it was being started: whoever told us saw no process to signal.
                    signal(child.id().cast_signed(), Signal::SIGINT);
                }
                let ended = child.wait();
                pid.store(0, Ordering::Release);
                if is_told_to_stop(stopped, Duration::ZERO) {
                    return;
                }
                tracing::error!(?ended, "PostgreSQL ended by itself; starting it again");
            }
            Err(error) => tracing::error!(%error, "PostgreSQL cannot be started; trying again"),
        }
        if started.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        if is_told_to_stop(stopped, backoff) {
            return;
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn is_told_to_stop(stopped: &mpsc::Receiver<()>, wait: Duration) -> bool {
    matches!(
        stopped.recv_timeout(wait),
        Err(mpsc::RecvTimeoutError::Disconnected) | Ok(())
    )
}

/// Asks the kernel to shut the server down when the hub dies, however it dies, and keeps a terminal's Ctrl-C
/// from reaching it before the hub has drained.
fn die_with_parent(command: &mut Command) -> &mut Command {
    command.process_group(0);
    #[expect(
        unsafe_code,
        reason = "prctl is async-signal-safe, and the only way to bind a child's life to ours"
    )]
    // SAFETY: the closure makes one system call and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGINT)?))
    }
}

/// Sends a signal; a process that is gone already is no fault.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Err(error) = nix::sys::signal::kill(Pid::from_raw(pid), signal) {
        tracing::debug!(pid, %error, "nobody to signal");
    }
}
