//! The daemon's run folder: what others read of it. Its pid, the problems that it reports, who is opted
//! out of the socket path, where the timeouts of flows come from, and the socket where it answers probes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use procfs::process::Process;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::control::PROBLEMS_FILE;
use crate::model::Problem;
use crate::plan::OptOut;

/// What can go wrong with the files of the run folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another daemon uses the folder.
    #[error(
        "kproxy runs already as process {pid} (see {}); stop it first, or give another --run-dir \
         and --bpffs-root", run_dir.display()
    )]
    Running {
        /// Its pid.
        pid: i32,
        /// The folder.
        run_dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file or the folder cannot be written.
    #[error("write {}; give another --run-dir", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file does not hold what the daemon writes.
    #[error("{} cannot be understood; restart kproxy to have it written anew", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: serde_json::Error,
    },
}

/// Who is opted out of the socket path, as the daemon was told: the form of the file, a JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OptedOut {
    /// Ranges of pod addresses.
    pub pod_cidrs: Vec<String>,
    /// Kubernetes namespaces.
    pub namespaces: BTreeSet<String>,
}

/// How the daemon was started: the form of the file, a JSON object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Started {
    /// Its command line, its own name first.
    pub arguments: Vec<String>,
    /// The folder that it was started in.
    pub folder: PathBuf,
}

impl Started {
    /// As this process was.
    pub(crate) fn here() -> Self {
        let arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        Self { arguments: arguments.collect(), folder: std::env::current_dir().unwrap_or_default() }
    }
}

/// The run folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RunDir(PathBuf);

impl RunDir {
    /// The folder at `path`, which need not be there.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Pid of the daemon, in decimal.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.0.join("kproxy.pid")
    }

    /// Current problems, a JSON array of [`Problem`].
    pub(crate) fn problems_file(&self) -> PathBuf {
        self.0.join(PROBLEMS_FILE)
    }

    /// Where the daemon answers probes.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("kproxy.sock")
    }

    fn opt_out_file(&self) -> PathBuf {
        self.0.join("opt-out.json")
    }

    fn timeouts_file(&self) -> PathBuf {
        self.0.join("flow-timeouts.json")
    }

    fn map_limits_file(&self) -> PathBuf {
        self.0.join("map-limits.json")
    }

    fn started_file(&self) -> PathBuf {
        self.0.join("started.json")
    }

    /// Every file that the daemon keeps there.
    pub(crate) fn files(&self) -> [PathBuf; 7] {
        [
            self.pid_file(),
            self.problems_file(),
            self.socket(),
            self.opt_out_file(),
            self.timeouts_file(),
            self.map_limits_file(),
            self.started_file(),
        ]
    }

    /// Pid of the running daemon; `None` if there is none: no pid file, or its process is gone or no
    /// kproxy (pids are used again).
    ///
    /// # Errors
    /// The pid file cannot be read.
    pub(crate) fn running(&self) -> Result<Option<i32>, Error> {
        let text = read(self.pid_file())?.unwrap_or_default();
        let pid = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        Ok(pid.filter(|pid| is_kproxy(*pid)))
    }

    /// The problems that the daemon last reported; none if it has written no list.
    ///
    /// # Errors
    /// The list cannot be read or understood.
    pub(crate) fn problems(&self) -> Result<Vec<Problem>, Error> {
        read_json(self.problems_file())
    }

    /// Who is opted out; nobody where the file is missing.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub(crate) fn opted_out(&self) -> Result<OptedOut, Error> {
        read_json(self.opt_out_file())
    }

    /// Writes who is opted out, or removes the file where nobody is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_opted_out(&self, opt_out: &OptOut) -> Result<(), Error> {
        let pod_cidrs = opt_out.ranges.iter().map(ToString::to_string).collect();
        let opted_out = OptedOut { pod_cidrs, namespaces: opt_out.namespaces.clone() };
        write_json(self.opt_out_file(), (!opt_out.is_empty()).then_some(&opted_out))
    }

    /// Where the timeouts of flows come from that are not the defaults, by the name of the state.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub(crate) fn timeouts(&self) -> Result<BTreeMap<String, String>, Error> {
        read_json(self.timeouts_file())
    }

    /// Writes where timeouts come from, or removes the file where all are the defaults.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_timeouts(&self, from: &BTreeMap<String, String>) -> Result<(), Error> {
        write_json(self.timeouts_file(), (!from.is_empty()).then_some(from))
    }

    /// Entries that maps grow to at most, by the name of the map; none where the file is missing.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub(crate) fn map_limits(&self) -> Result<BTreeMap<String, u32>, Error> {
        read_json(self.map_limits_file())
    }

    /// Writes what maps grow to.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_map_limits(&self, limits: &BTreeMap<&str, u32>) -> Result<(), Error> {
        write_json(self.map_limits_file(), Some(limits))
    }

    /// How the daemon was last started; `None` where none has said so.
    ///
    /// # Errors
    /// The file cannot be read or understood.
    pub(crate) fn started(&self) -> Result<Option<Started>, Error> {
        let started: Started = read_json(self.started_file())?;
        Ok((!started.arguments.is_empty()).then_some(started))
    }

    /// Writes how the daemon was started, for nobody but root: an address may have a password in it. Without
    /// arguments, nobody knows.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write_started(&self, started: &Started) -> Result<(), Error> {
        let path = self.started_file();
        let is_known = !started.arguments.is_empty();
        write_json(path.clone(), is_known.then_some(started))?;
        if !is_known {
            return Ok(());
        }
        fs::set_permissions(&path, Permissions::from_mode(0o600))
            .map_err(|source| Error::Write { path, source })
    }

    /// When anything was last written there, by the times of its files and its own; `None`: never.
    pub(crate) fn last_written(&self) -> Option<SystemTime> {
        let times = self.files().into_iter().chain([self.0.clone()]);
        times.filter_map(|path| fs::metadata(path).ok()?.modified().ok()).max()
    }

    /// Claims the folder, which is made if it is missing, for this process.
    ///
    /// # Errors
    /// Another daemon runs, or the folder cannot be written.
    pub(crate) fn claim(&self) -> Result<PidFile, Error> {
        if let Some(pid) = self.running()? {
            return Err(Error::Running { pid, run_dir: self.0.clone() });
        }
        let write = |path: &Path, result: io::Result<()>| {
            result.map_err(|source| Error::Write { path: path.to_owned(), source })
        };
        write(&self.0, fs::create_dir_all(&self.0))?;
        let path = self.pid_file();
        write(&path, fs::write(&path, format!("{}\n", std::process::id())))?;
        Ok(PidFile(path))
    }
}

/// The pid file, removed at the end.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl Drop for PidFile {
    fn drop(&mut self) {
        // A pid file that stays is seen to be stale by its process.
        let _stays = fs::remove_file(&self.0);
    }
}

/// Whether a process is a kproxy that has not ended: Z and X wait for their parent (proc_pid_stat(5)).
/// The name there is readable for everyone, unlike /proc/PID/exe.
fn is_kproxy(pid: i32) -> bool {
    let stat = Process::new(pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.comm == "kproxy" && !matches!(stat.state, 'Z' | 'X'))
}

fn read_json<T: DeserializeOwned + Default>(path: PathBuf) -> Result<T, Error> {
    match read(path.clone())? {
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| Error::Content { path, source })
        }
        None => Ok(T::default()),
    }
}

/// Writes a file, or removes it where there is nothing to say.
fn write_json<T: Serialize>(path: PathBuf, content: Option<&T>) -> Result<(), Error> {
    let done = match content {
        Some(content) => serde_json::to_vec(content)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&path, bytes)),
        None => fs::remove_file(&path)
            .or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) }),
    };
    done.map_err(|source| Error::Write { path, source })
}

/// The bytes of a file; `None` if there is none.
fn read(path: PathBuf) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(source) => Err(Error::Read { path, source }),
    }
}

/// Whether an error says that there is no such file or folder.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(dir: &tempfile::TempDir) -> RunDir {
        RunDir::new(dir.path())
    }

    #[test]
    fn only_a_living_kproxy_counts_as_running() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(here(&dir).running().unwrap(), None);
        for text in ["", "x", "-1", "0", "99999999999", &std::process::id().to_string()] {
            fs::write(here(&dir).pid_file(), text).unwrap();
            assert_eq!(here(&dir).running().unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn the_pid_file_goes_with_its_claim() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(dir.path().join("run"));
        let claim = run_dir.claim().unwrap();
        let text = fs::read_to_string(run_dir.pid_file()).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
        drop(claim);
        assert!(!run_dir.pid_file().exists());
    }

    #[test]
    fn problems_are_read_as_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(here(&dir).problems().unwrap(), []);
        let all = vec![Problem::new("Service default/web", "port 0", "give it a port")];
        fs::write(here(&dir).problems_file(), serde_json::to_vec(&all).unwrap()).unwrap();
        assert_eq!(here(&dir).problems().unwrap(), all);
        fs::write(here(&dir).problems_file(), "{").unwrap();
        assert!(here(&dir).problems().is_err());
    }

    #[test]
    fn who_is_opted_out_is_read_as_it_is_written_and_gone_when_nobody_is() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = here(&dir);
        assert_eq!(run_dir.opted_out().unwrap(), OptedOut::default());
        let ranges = vec!["10.244.7.0/24".parse().unwrap()];
        let opt_out = OptOut { ranges, namespaces: ["mesh".to_owned()].into() };
        run_dir.write_opted_out(&opt_out).unwrap();
        let there = run_dir.opted_out().unwrap();
        assert_eq!(there.pod_cidrs, ["10.244.7.0/24"]);
        assert_eq!(there.namespaces, opt_out.namespaces);
        run_dir.write_opted_out(&OptOut::default()).unwrap();
        run_dir.write_opted_out(&OptOut::default()).unwrap();
        assert!(!run_dir.opt_out_file().exists());
        fs::write(run_dir.opt_out_file(), "{").unwrap();
        assert!(run_dir.opted_out().is_err());
    }
}
