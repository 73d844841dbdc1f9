//! Puts pins in place, takes them away, locks their folder, and gives pinned links another program.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use aya::pin::PinError;
use nix::fcntl::{Flock, FlockArg};

use crate::dataplane::{
    error::Error,
    kernel::bpf::{self, Access, LinkPlace},
};

/// Makes a folder for pins, which nobody else enters.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(Error::of_pin("make", path))
}

/// Locks a folder for this process; the kernel unlocks it when the process ends, however it ends.
pub(crate) fn lock(folder: &Path) -> Result<Flock<File>, Error> {
    make_folder(folder)?;
    let file = File::open(folder).map_err(Error::of_pin("open", folder))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::Error::EWOULDBLOCK => Error::Busy { path: folder.to_owned() },
        errno => Error::of_pin("lock", folder)(io::Error::from(errno)),
    })
}

/// Whether the lock is on this very folder, and not on one that has gone and been made again.
pub(crate) fn is_on(lock: &File, folder: &Path) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (lock.metadata(), fs::metadata(folder)) {
        (Ok(locked), Ok(there)) => place(locked) == place(there),
        _ => false,
    }
}

/// Pins under another name first, so that a pin that is there is replaced in one step.
pub(super) fn replace<T>(
    path: &Path,
    pin: impl FnOnce(&Path) -> Result<T, PinError>,
) -> Result<(), Error> {
    let fresh = fresh_name(path);
    remove(&fresh)?;
    pin(&fresh).map_err(Error::of_pin("pin", path))?;
    rename(&fresh, path)
}

/// Gives a pin its place, whatever is there.
pub(super) fn rename(fresh: &Path, path: &Path) -> Result<(), Error> {
    fs::rename(fresh, path).map_err(Error::of_pin("pin", path))
}

/// Where what is to be pinned at `path` is pinned first.
pub(super) fn fresh_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("~");
    name.into()
}

/// Whether a pin has a name that [`fresh_name`] gives.
pub(super) fn is_fresh_name(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"~")
}

/// Removes a pin; whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::of_pin("remove", path)(error)),
    }
}

/// Gives a pinned link the program. `false`: there is no such link, or it leads elsewhere (another
/// cgroup, a device that is gone or came back under its name), so a new one is needed.
pub(super) fn update_link(
    path: &Path,
    place: LinkPlace,
    program: BorrowedFd<'_>,
) -> io::Result<bool> {
    let link = match bpf::open_pin(path, Access::ReadWrite) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let info = bpf::link_info(link.as_fd())?;
    if info.place != place {
        return Ok(false);
    }
    if bpf::program_id(program)? == info.program_id {
        return Ok(true);
    }
    match bpf::update_link(link.as_fd(), program) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        Err(error) => Err(error),
    }
}
