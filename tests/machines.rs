//! Nodes on machines with a full disk or a wrong clock. The disk needs root and loop devices, the
//! clock a C compiler and a program that is linked dynamically (a debug build): where something is
//! missing the test says so and proves nothing.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::cluster::{Cluster, HEALTHY_WITHIN};
use support::machine::{LoopDisk, can_mount};
use support::{bytes, until};

/// Room for a node's reserve and logs, and little more than it wants to have free.
const DISK_MIB: u64 = 2_500;

const TEN_YEARS_DAYS: i64 = 3_652;

fn health(cluster: &Cluster) -> String {
    let ran = cluster.dfs(&["--json", "status"]);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
    format!("{} {}", status["health"], status["reasons"])
}

/// Takes all but so many MiB of a file system.
fn fill(disk: &LoopDisk, leave_mib: u64) {
    let filler = disk.path().join("filler");
    let df = support::machine::run(
        "stat",
        &["-f", "-c", "%a %S", &disk.path().display().to_string()],
    );
    let numbers: Vec<u64> = (df.split_whitespace())
        .map(|n| n.parse().unwrap())
        .collect();
    let len = (numbers[0] * numbers[1]).saturating_sub(leave_mib << 20);
    let (len, filler) = (len.to_string(), filler.display().to_string());
    support::machine::run("fallocate", &["-l", &len, &filler]);
}

#[test]
fn a_full_node_refuses_and_the_others_take_over() {
    if !can_mount() {
        eprintln!("SKIPPED: a full disk needs root and loop devices");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = LoopDisk::make(dir.path(), "small", DISK_MIB);
    let mut cluster = Cluster::empty(&[]);
    cluster.join();
    cluster.join();
    let full = cluster.add("n2", &support::cluster::free_address(), &[]);
    cluster.members[full].data = disk.path().join("data");
    cluster.enter(full);
    cluster.until_settled();
    for at in 0..6u64 {
        cluster.write(
            &format!("tree/f{at}"),
            &bytes(at, [900, 90_000, 1_500_000][at as usize % 3]),
        );
    }
    cluster.dfs(&["put", "-q", "-r", "tree", "/before"]).ok();
    cluster.until_health("green", HEALTHY_WITHIN);

    // The one that leads: else it would refuse for all.
    until(HEALTHY_WITHIN, "the node with the small disk leads", || {
        let leader = cluster.leader(1);
        if leader != full {
            cluster.stop(leader);
            cluster.run(leader);
            cluster.until_health("green", HEALTHY_WITHIN);
        }
        cluster.leader(1) == full
    });
    // Too little for new data, then next to nothing.
    for (leave_mib, name) in [(500, "low"), (1, "none")] {
        let _ = std::fs::remove_file(disk.path().join("filler"));
        fill(&disk, leave_mib);
        until(HEALTHY_WITHIN, "the status says so", || {
            health(&cluster).contains("takes no new data")
        });
        // Nothing is damaged by that.
        let found = cluster.dfs(&["fsck"]);
        assert!(!found.stdout.contains("takes no new data"), "{found:?}");
        let remote = format!("/{name}");
        for through in 0..3 {
            let to = format!("{remote}{through}");
            cluster
                .dfs_at(through, &["put", "-q", "-r", "tree", &to])
                .ok();
            cluster.same_tree((through + 1) % 3, "tree", &to);
        }
        cluster.dfs(&["rm", "-r", &format!("{remote}0")]).ok();
        cluster
            .dfs_at(full, &["rm", "-r", &format!("{remote}1")])
            .ok();
        cluster.same_tree(0, "tree", "/before");
    }
    assert_eq!(cluster.ended_by_itself(full), None);
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    cluster.until_health("green", Duration::from_secs(120));
    for reader in 0..3 {
        cluster.same_tree(reader, "tree", "/before");
        cluster.same_tree(reader, "tree", "/none2");
    }
    cluster.dfs(&["fsck"]).ok();
    drop(cluster);
}

/// A library that lets a program's wall clock run so many days ahead, or behind, or none where it
/// cannot be made.
fn wrong_clock(dir: &Path, days: i64) -> Option<String> {
    let source = dir.join("clock.c");
    let text = format!(
        "#define _GNU_SOURCE\n#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
        int clock_gettime(clockid_t id, struct timespec *t) {{\n\
        int r = syscall(SYS_clock_gettime, id, t);\n\
        if (r == 0 && id == CLOCK_REALTIME) t->tv_sec += {days}L * 86400;\n\
        return r; }}\n"
    );
    std::fs::write(&source, text).unwrap();
    let library = dir.join("clock.so").display().to_string();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-o", &library])
        .arg(&source)
        .status();
    let links = Command::new("ldd").arg(support::program()).output().ok()?;
    let dynamic = String::from_utf8_lossy(&links.stdout).contains("libc.so");
    (made.is_ok_and(|made| made.success()) && dynamic).then_some(library)
}

#[test]
fn a_clock_ten_years_ahead_harms_nobody_else_and_passes() {
    harms_nobody_else_and_passes(TEN_YEARS_DAYS);
}

#[test]
fn a_clock_ten_years_behind_harms_nobody_else_and_passes() {
    harms_nobody_else_and_passes(-TEN_YEARS_DAYS);
}

/// The leader comes back with a clock that is so many days wrong, and later with the right one.
fn harms_nobody_else_and_passes(days: i64) {
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = wrong_clock(dir.path(), days) else {
        eprintln!("SKIPPED: a wrong clock needs cc and a program that is linked dynamically");
        return;
    };
    let mut cluster = Cluster::start(3);
    cluster.write("tree/f", &bytes(1, 1_500_000));
    cluster.write("tree/g", &bytes(2, 900));
    cluster.dfs(&["put", "-q", "-r", "tree", "/before"]).ok();
    let wrong = cluster.leader(1);
    let others: Vec<_> = (0..3).filter(|place| *place != wrong).collect();
    cluster.kill(wrong);
    let mut serving = cluster.serve(wrong);
    serving.env("LD_PRELOAD", &library).stdout(Stdio::null());
    let mut serving = serving.spawn().unwrap();
    // The others do not believe it, nor it them: they go on without it.
    for round in 0..3 {
        let to = format!("/round{round}");
        cluster
            .dfs_at(others[0], &["put", "-q", "-r", "tree", &to])
            .ok();
        cluster.same_tree(others[1], "tree", &to);
        assert!(
            serving.try_wait().unwrap().is_none(),
            "{}",
            cluster.log(wrong)
        );
    }
    // A user whose clock is wrong is told what is wrong.
    let mut user = cluster.command_at(others[0], &["--timeout", "5s", "ls", "/"]);
    let output = user.env("LD_PRELOAD", &library).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(5 | 6)), "{said}");
    assert!(said.contains("clock"), "{said}");
    serving.kill().unwrap();
    serving.wait().unwrap();
    cluster.run(wrong);
    cluster.until_health("green", HEALTHY_WITHIN);
    cluster.same_tree(wrong, "tree", "/round2");
    cluster.dfs(&["fsck"]).ok();
}
