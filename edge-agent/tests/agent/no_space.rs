//! T7: do acquisition and alarms go on when the disk takes nothing, and does everything come right by itself?
//!
//! Small file systems are mounted for it, which needs root; without, each test says so and passes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use protocol::event::Event;

use crate::support::{
    edge::{Edge, count, device, head},
    hub::{Hub, Policy},
    plc::{Behaviour, Plc},
};

/// A mounted file system of its own; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None, loudly, where nothing may be mounted.
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("NOT RUN: nothing can be mounted here (root is needed): {mounted:?}");
        None
    }
}

/// Runs a program of the system; whether it worked.
fn works(program: &str, args: &[&str]) -> bool {
    let output = Command::new(program).args(args).output();
    let worked = output.as_ref().is_ok_and(|output| output.status.success());
    if !worked {
        eprintln!("{program} {args:?}: {output:?}");
    }
    worked
}

/// Makes the kernel find an error in the file system at a place, on which it turns read-only.
fn turn_read_only(at: &Path) -> bool {
    let found = Command::new("findmnt")
        .args(["-no", "SOURCE"])
        .arg(at)
        .output()
        .unwrap();
    let device = String::from_utf8_lossy(&found.stdout).trim().replace("/dev/", "");
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "by a test").is_ok()
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

fn config(hub: &Hub, plc: &Plc) -> String {
    head(Some(hub.address))
        + "[spool]\nquota = \"64MiB\"\n"
        + &device("plc", plc.address, "50ms", "800ms", &[0, 1])
        + "[[ccp]]\ncode = \"CCP-1\"\ntag = \"plc-0\"\nlow = 72.0\ndelay = \"100ms\"\ncheck_every = \"1s\"\n"
}

async fn plant() -> (Hub, Plc) {
    let hub = Hub::start(Policy::RefuseConnection).await;
    let plc = Plc::start(Behaviour {
        values: BTreeMap::from([(0, 73)]),
        ..Behaviour::default()
    })
    .await;
    (hub, plc)
}

/// Fills what is left of a file system.
fn fill(at: &Path) -> PathBuf {
    use std::io::Write as _;
    let path = at.join("ballast");
    let mut file = std::fs::File::create(&path).unwrap();
    let mut block = vec![7u8; 64 << 10];
    while !block.is_empty() {
        match file.write(&block) {
            Ok(written) if written > 0 => {}
            _ => block.truncate(block.len() / 2),
        }
    }
    path
}

#[tokio::test]
async fn t7_a_full_disk_stops_no_judgement_and_what_it_cost_is_told_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mounted) = Mounted::tmpfs(&directory.path().join("data"), "size=12m") else {
        return;
    };
    let (hub, plc) = plant().await;
    let edge = Edge::start(directory.path(), &config(&hub, &plc)).await;
    edge.until("control", |status| status["ccps"][0]["state"] == "in_control")
        .await;
    let ballast = fill(&edge.data_dir);
    edge.until("refused writes", |status| {
        count(&status["spool_write_errors"]) > 2
    })
    .await;
    plc.behave(|behaviour| behaviour.values.extend([(0, 71)]));
    let status = edge
        .until("the deviation, judged with a full disk", |status| {
            status["ccps"][0]["state"] == "deviation"
        })
        .await;
    let acquired = count(&status["acquired"]);
    edge.until("readings that go on", |status| {
        count(&status["acquired"]) > acquired + 20
    })
    .await;
    std::fs::remove_file(ballast).unwrap();
    let errors = count(&edge.status().await["spool_write_errors"]);
    hub.set_policy(Policy::Store);
    hub.until("the deviation", |stored| {
        stored
            .events()
            .iter()
            .any(|event| matches!(event, Event::Deviation(_)))
    })
    .await;
    // Everything acquired is at the hub, or a gap says that it is not.
    let status = edge
        .until("a drained spool", |status| count(&status["backlog_frames"]) <= 2)
        .await;
    assert!(count(&status["spool_write_errors"]) <= errors + 1, "{status:#}");
    let acquired = count(&status["acquired"]) as usize;
    hub.until("all that was acquired", |stored| {
        let lost = stored.events().into_iter().map(|event| {
            if let Event::Gap(gap) = event {
                gap.readings
            } else {
                0
            }
        });
        stored.readings() + lost.sum::<u64>() as usize >= acquired
    })
    .await;
    assert_eq!(edge.stop().await, Some(0));
}

#[tokio::test]
async fn t7_an_agent_that_starts_on_a_full_disk_judges_and_stores_once_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let Some(_mounted) = Mounted::tmpfs(&data_dir, "size=12m") else {
        return;
    };
    let (hub, plc) = plant().await;
    // Where the page is must be known: nothing can say so on a full disk.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = config(&hub, &plc).replace("127.0.0.1:0", &free.to_string());
    let edge = Edge::start(directory.path(), &config).await;
    edge.until("a backlog", |status| count(&status["backlog_frames"]) > 3)
        .await;
    edge.kill();
    let ballast = fill(&data_dir);
    let edge = Edge::start_silent(directory.path(), free).await;
    edge.until("control", |status| status["ccps"][0]["state"] == "in_control")
        .await;
    let status = edge
        .until("refused writes", |status| {
            count(&status["spool_write_errors"]) > 0
        })
        .await;
    assert!(count(&status["backlog_frames"]) > 3, "{status:#}");
    std::fs::remove_file(ballast).unwrap();
    hub.set_policy(Policy::Store);
    edge.until("stored readings", |status| count(&status["acknowledged"]) > 20)
        .await;
}

#[tokio::test]
async fn t7_a_disk_that_turns_read_only_stops_no_judgement_and_keeps_what_it_had() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let (image, place) = (directory.path().join("image"), data_dir.to_str().unwrap());
    std::fs::create_dir_all(&data_dir).unwrap();
    std::fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
    let image = image.to_str().unwrap();
    let mount = ["-o", "loop,errors=remount-ro", image, place];
    if !works("mkfs.ext4", &["-q", "-O", "^has_journal", image]) || !works("mount", &mount) {
        eprintln!("NOT RUN: no file system can be made and mounted here (root is needed)");
        return;
    }
    let mounted = Mounted(data_dir.clone());
    let (hub, plc) = plant().await;
    let edge = Edge::start(directory.path(), &config(&hub, &plc)).await;
    let before = edge
        .until("a backlog in control", |status| {
            count(&status["backlog_frames"]) > 5 && status["ccps"][0]["state"] == "in_control"
        })
        .await;
    if !turn_read_only(&data_dir) {
        eprintln!("NOT RUN: this kernel lets nobody trigger an error of a file system");
        return;
    }
    edge.until("refused writes", |status| {
        count(&status["spool_write_errors"]) > 1
    })
    .await;
    plc.behave(|behaviour| behaviour.values.extend([(0, 71)]));
    edge.until("the deviation", |status| {
        status["ccps"][0]["state"] == "deviation"
    })
    .await;
    edge.kill();
    drop(mounted);
    // 1: errors were corrected.
    let checked = Command::new("e2fsck").args(["-fy", image]).output().unwrap();
    assert!(matches!(checked.status.code(), Some(0 | 1)), "{checked:?}");
    assert!(works("mount", &mount));
    let _mounted = Mounted(data_dir);
    hub.set_policy(Policy::Store);
    let edge = Edge::start(directory.path(), &config(&hub, &plc)).await;
    let stored = count(&before["spooled"]) as usize;
    hub.until("what was stored before", |hub| hub.readings() >= stored)
        .await;
    hub.until("the deviation, judged again", |hub| {
        hub.events()
            .iter()
            .any(|event| matches!(event, Event::Deviation(_)))
    })
    .await;
    assert_eq!(edge.stop().await, Some(0));
}
