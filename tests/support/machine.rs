//! What needs root: networks that can be cut, disks whose power can be cut, a process whose syncs
//! do nothing. Prepared and cleaned up by `scripts/torture.sh`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program that must succeed; what it printed.
#[track_caller]
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Network namespaces `PREFIX0`, `PREFIX1`, … with the addresses 10.77.0.1, .2, …, each with an
/// `eth0` whose other end `PREFIXv0`, … hangs on a bridge of 10.77.0.254, where clients are.
pub struct Network {
    pub prefix: String,
}

impl Network {
    pub fn host(place: usize) -> String {
        format!("10.77.0.{}", place + 1)
    }

    /// The process will run in the place's namespace.
    pub fn enter(&self, place: usize, command: &mut Command) {
        let name = format!("/run/netns/{}{place}", self.prefix);
        let namespace = File::open(&name).unwrap_or_else(|e| panic!("{name}: {e}"));
        // SAFETY: setns is a system call that touches no memory of the process.
        unsafe {
            command.pre_exec(move || {
                match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
    }

    /// Cuts a node off from everybody, or lets it back.
    pub fn cut_off(&self, place: usize, cut: bool) {
        let link = format!("{}v{place}", self.prefix);
        run(
            "ip",
            &["link", "set", &link, if cut { "down" } else { "up" }],
        );
    }

    /// What `from` sends to `to` goes nowhere: the neighbour's hardware address is made up.
    pub fn drop_from(&self, from: usize, to: usize) {
        let (inside, to) = (format!("{}{from}", self.prefix), Network::host(to));
        let nowhere = [
            "lladdr",
            "02:00:00:00:00:99",
            "dev",
            "eth0",
            "nud",
            "permanent",
        ];
        let line = ["-n", &inside, "neigh", "replace", &to];
        run("ip", &[&line[..], &nowhere].concat());
    }

    /// Undoes `drop_from` and `cut_off` everywhere.
    pub fn heal(&self, places: usize) {
        for from in 0..places {
            self.cut_off(from, false);
            let inside = format!("{}{from}", self.prefix);
            let flush = ["neigh", "flush", "dev", "eth0", "nud", "permanent"];
            run("ip", &[&["-n", &inside][..], &flush].concat());
        }
    }
}

/// A file system in a file, mounted on a loop device.
pub struct LoopDisk {
    image: PathBuf,
    mounted: PathBuf,
}

/// `FS_IOC_SHUTDOWN` of ext4 and XFS, and its flag that nothing in memory is written any more, the
/// journal neither.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
const WITHOUT_THE_LOG: u32 = 2;

impl LoopDisk {
    /// A new journaled ext4 of so many MiB, mounted.
    pub fn make(dir: &Path, name: &str, mib: u64) -> LoopDisk {
        let disk = LoopDisk {
            image: dir.join(format!("{name}.img")),
            mounted: dir.join(name),
        };
        let file = File::create(&disk.image).unwrap();
        file.set_len(mib << 20).unwrap();
        std::fs::create_dir_all(&disk.mounted).unwrap();
        run("mkfs.ext4", &["-q", &disk.image.display().to_string()]);
        disk.mount();
        disk
    }

    pub fn path(&self) -> &Path {
        &self.mounted
    }

    fn mount(&self) {
        let (image, at) = (
            self.image.display().to_string(),
            self.mounted.display().to_string(),
        );
        run("mount", &["-o", "loop", &image, &at]);
    }

    /// From now on nothing reaches the disk, and what had not is lost. Whoever uses it must be
    /// killed before the power returns.
    pub fn cut_power(&self) {
        let top = File::open(&self.mounted).unwrap();
        // SAFETY: the request reads one u32 behind the pointer.
        let done = unsafe { libc::ioctl(top.as_raw_fd(), SHUTDOWN as _, &WITHOUT_THE_LOG) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Mounted anew, with the journal played back.
    pub fn return_power(&self) {
        run("umount", &[&self.mounted.display().to_string()]);
        self.mount();
    }
}

/// Whether loop devices can be mounted here.
pub fn can_mount() -> bool {
    let root = run("id", &["-u"]).trim() == "0";
    let dir = tempfile::tempdir().unwrap();
    let (image, at) = (dir.path().join("try"), dir.path().join("tried"));
    std::fs::create_dir(&at).unwrap();
    File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let try_to = |program: &str, args: &[&std::ffi::OsStr]| {
        let tried = Command::new(program).args(args).output();
        tried.is_ok_and(|output| output.status.success())
    };
    root && try_to("mkfs.ext4", &["-q".as_ref(), image.as_ref()])
        && try_to(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()],
        )
        && try_to("umount", &[at.as_ref()])
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Lazily: a process that uses it may just be dying.
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

/// The process's fsync, fdatasync, msync, syncfs and sync_file_range do nothing and say it worked:
/// what a disk does that lies, and a program that forgot them.
pub fn without_syncs(command: &mut Command) {
    const CALLS: [libc::c_long; 5] = [
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_msync,
        libc::SYS_syncfs,
        libc::SYS_sync_file_range,
    ];
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut filter = vec![step(LOAD, 0, 0)];
    for (at, call) in CALLS.iter().enumerate() {
        // To the last step.
        let skip = (CALLS.len() - at) as u8;
        filter.push(step(JUMP_IF_EQUAL, skip, *call as u32));
    }
    filter.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    // An error of number 0 is success.
    filter.push(step(RETURN, 0, libc::SECCOMP_RET_ERRNO));
    // SAFETY: two system calls; the filter lives in the closure until they have read it.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut(),
            };
            let set = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0;
            match set {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        });
    }
}
