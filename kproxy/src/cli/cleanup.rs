//! `kproxy cleanup`: takes every trace of kproxy off this node.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use kproxy_common::abi::program;

use super::args::CleanupArgs;
use super::render::note;
use super::{Exit, daemon};
use crate::dataplane::pins::PinDirs;
use crate::node::nft;

/// Removes links, programs, maps, the nftables table and the files of the run folder, and prints
/// what it removed. What fails is said and does not stop the rest.
///
/// # Errors
/// A running daemon (unless forced), what could not be removed, and those of the writer.
pub fn run(args: CleanupArgs, out: &mut dyn Write) -> Result<Exit> {
    let CleanupArgs { force, pins, run_dir } = args;
    let run_dir = run_dir.run_dir;
    if let (Some(pid), false) = (daemon::running(&run_dir)?, force) {
        bail!(
            "the daemon is running (pid {pid}) and would go on serving half of what is removed; \
             stop it first, or use --force"
        );
    }
    let mut cleaner = Cleaner { out, removed: 0, failed: 0 };
    cleaner.pins(&PinDirs::new(&pins.bpffs_root))?;
    cleaner.nftables()?;
    cleaner.run_dir(&run_dir)?;
    let Cleaner { removed, failed, .. } = cleaner;
    match failed {
        0 if removed == 0 => writeln!(out, "nothing to remove")?,
        0 => {}
        1 => bail!("1 thing could not be removed, see above; it needs root"),
        _ => bail!("{failed} things could not be removed, see above; it needs root"),
    }
    Ok(Exit::Fine)
}

/// Removes things one by one. Its errors are those of the writer.
struct Cleaner<'a> {
    out: &'a mut dyn Write,
    removed: usize,
    failed: usize,
}

impl Cleaner<'_> {
    /// Tells what became of the removal of `what`. Its absence is success.
    fn tell(&mut self, what: impl std::fmt::Display, result: io::Result<()>) -> io::Result<()> {
        match result {
            Ok(()) => {
                self.removed += 1;
                writeln!(self.out, "removed {what}")
            }
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => {
                self.failed += 1;
                note(format_args!("kproxy: remove {what}: {error}"));
                Ok(())
            }
        }
    }

    /// The pins of every version. A program is detached when the pin of its link is gone.
    fn pins(&mut self, dirs: &PinDirs) -> io::Result<()> {
        // The way there before the way back, so that no socket is left translated one way only.
        for program in program::CGROUP.iter().rev() {
            let link = dirs.cgroup_link(program);
            self.tell(link.display(), fs::remove_file(&link))?;
        }
        self.tree(&dirs.base)
    }

    /// A folder and all that is in it; links come first, as their folder sorts before the others.
    fn tree(&mut self, folder: &Path) -> io::Result<()> {
        let mut entries: Vec<PathBuf> = match fs::read_dir(folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(error) => return self.tell(folder.display(), Err(error)),
        };
        entries.sort();
        for path in entries {
            if path.is_dir() {
                self.tree(&path)?;
            } else {
                self.tell(path.display(), fs::remove_file(&path))?;
            }
        }
        self.tell(folder.display(), fs::remove_dir(folder))
    }

    fn nftables(&mut self) -> io::Result<()> {
        const TABLE: &str = "nftables table inet kproxy";
        match nft::is_present() {
            // Without nft there is no table of its making either.
            Ok(false) | Err(nft::Error::NoNft(_)) => Ok(()),
            Ok(true) => self.tell(TABLE, nft::remove().map_err(io::Error::other)),
            Err(error) => self.tell(TABLE, Err(io::Error::other(error))),
        }
    }

    /// The files that the daemon keeps, and the folder if nothing else is in it.
    fn run_dir(&mut self, run_dir: &Path) -> io::Result<()> {
        for file in [daemon::pid_file(run_dir), daemon::problems_file(run_dir)] {
            self.tell(file.display(), fs::remove_file(&file))?;
        }
        match fs::remove_dir(run_dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(()),
            result => self.tell(run_dir.display(), result),
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
