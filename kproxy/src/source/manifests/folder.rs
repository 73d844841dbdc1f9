//! The files of a folder together.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::file::{self, Contents, Item, Key};
use super::settings::Settings;
use crate::model::Problem;
use crate::source::{Event, Update};

/// A file that was written within this time may still be on its way: it is looked at again.
pub(super) const SETTLE: Duration = Duration::from_millis(20);
/// Half of a file often parses, as less than the whole: what looks like half of one counts when its
/// writer has been quiet for this long.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// The folder as it was read.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    node_name: String,
    /// Namespaces whose Pods count.
    namespaces: BTreeSet<String>,
    files: BTreeMap<String, Known>,
    /// What was sent for each object.
    sent: BTreeMap<Key, Arc<Item>>,
    /// The origins of problems that were sent and not taken back.
    complained: BTreeSet<String>,
    /// Files that have had a broken part ever since they were first read.
    unread: BTreeSet<String>,
    /// Files that look like half of one, and when they were written.
    halves: BTreeMap<String, SystemTime>,
    complete: bool,
}

#[derive(Debug)]
struct Known {
    /// Hash of the bytes that `contents` came from; `None` if they could not be read.
    hash: Option<u64>,
    contents: Contents,
}

/// The answer of [`Folder::scan`].
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) events: Vec<Event>,
    /// A file is still being written: scan again soon.
    pub(super) unsettled: bool,
}

impl Folder {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { dir, node_name, namespaces } = settings;
        Self {
            dir,
            node_name,
            namespaces,
            files: BTreeMap::new(),
            sent: BTreeMap::new(),
            complained: BTreeSet::new(),
            unread: BTreeSet::new(),
            halves: BTreeMap::new(),
            complete: false,
        }
    }

    /// Reads what changed in the folder. The first scan that can list it gives the complete lists,
    /// later ones only differences. A folder that cannot be listed leaves everything as it was.
    pub(super) fn scan(&mut self) -> Scan {
        let mut scan = Scan::default();
        let origin = format!("manifests {}", self.dir.display());
        let names = match list(&self.dir) {
            Ok(names) => names,
            Err(error) => {
                let problem = Problem::new(
                    origin.as_str(),
                    format!("the folder cannot be read: {error}; what it held stays in force"),
                    "make the folder readable again",
                );
                self.complain(origin, vec![problem], &mut scan);
                return scan;
            }
        };
        self.complain(origin, Vec::new(), &mut scan);
        let gone: Vec<_> =
            self.files.keys().filter(|name| !names.contains(*name)).cloned().collect();
        self.halves.retain(|name, _| names.contains(name));
        for name in gone {
            self.files.remove(&name);
            self.set_unread(&name, false, &mut scan);
            self.complain(format!("manifest {name}"), Vec::new(), &mut scan);
        }
        for name in names {
            self.read(name, &mut scan);
        }
        self.complain_of_doubles(&mut scan);
        self.send_objects(&mut scan);
        scan
    }

    fn read(&mut self, name: String, scan: &mut Scan) {
        let path = self.dir.join(&name);
        // Taken before the bytes are: what is written after them makes the file newer.
        let written = path.metadata().and_then(|meta| meta.modified()).ok();
        // Truncated and not yet written is a valid empty file: wait for the writer.
        let fresh = |time| self.complete && written.is_some_and(|at| is_younger(at, time));
        let half = self.halves.get(&name).copied();
        if fresh(SETTLE) || (fresh(QUIET) && half.is_some() && half == written) {
            scan.unsettled = true;
            return;
        }
        let in_writing = written.filter(|_| fresh(QUIET));
        self.halves.remove(&name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // Gone since it was listed: the next scan will know.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                scan.unsettled = true;
                return;
            }
            Err(error) => {
                let contents = file::unreadable(&name, &error.to_string());
                return self.keep(name, None, contents, scan);
            }
        };
        let hash = hash(&bytes);
        if self.files.get(&name).is_some_and(|known| known.hash == Some(hash)) {
            return;
        }
        let contents = match std::str::from_utf8(&bytes) {
            Ok(text) => file::read(&name, text),
            Err(error) => file::unreadable(&name, &error.to_string()),
        };
        if let Some(at) = in_writing
            && self.looks_like_half(&name, &bytes, &contents)
        {
            self.halves.insert(name, at);
            scan.unsettled = true;
            return;
        }
        self.keep(name, Some(hash), contents, scan);
    }

    /// Whether more may be to come: something is broken or gone, or the last line is cut off.
    fn looks_like_half(&self, name: &str, bytes: &[u8], contents: &Contents) -> bool {
        let lacks = |known: &Known| {
            known.contents.items.keys().any(|key| !contents.items.contains_key(key))
        };
        // JSON has an end of its own.
        let cut_off = !name.ends_with(".json") && !bytes.ends_with(b"\n");
        contents.broken || cut_off || self.files.get(name).is_some_and(lacks)
    }

    /// Takes the new contents of a file. If part of it is broken, objects that it does not show
    /// any more may be in that part: they stay.
    fn keep(&mut self, name: String, hash: Option<u64>, mut contents: Contents, scan: &mut Scan) {
        let counts = |key: &Key| match key {
            Key::Pod(name) => self.namespaces.contains(&name.namespace),
            _ => true,
        };
        contents.items.retain(|key, _| counts(key));
        let before = self.files.remove(&name);
        let unread = contents.broken && (before.is_none() || self.unread.contains(&name));
        self.set_unread(&name, unread, scan);
        if let Some(before) = before.filter(|_| contents.broken) {
            for (key, item) in before.contents.items {
                contents.items.entry(key).or_insert(item);
            }
        }
        self.complain(format!("manifest {name}"), contents.problems.clone(), scan);
        self.files.insert(name, Known { hash, contents });
    }

    /// Objects that more than one file holds.
    fn complain_of_doubles(&mut self, scan: &mut Scan) {
        let mut first: BTreeMap<&Key, &str> = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, known) in &self.files {
            for key in known.contents.items.keys() {
                let holder = *first.entry(key).or_insert(name);
                if holder != name {
                    problems.push(Problem::new(
                        format!("manifest {name}"),
                        format!("has {key}, which {holder} has too; {holder} counts"),
                        "keep each object in one file",
                    ));
                }
            }
        }
        self.complain("manifests in two files".to_owned(), problems, scan);
    }

    fn send_objects(&mut self, scan: &mut Scan) {
        let mut now: BTreeMap<&Key, &Arc<Item>> = BTreeMap::new();
        for known in self.files.values() {
            for (key, item) in &known.contents.items {
                if !matches!(key, Key::Node(name) if *name != self.node_name) {
                    now.entry(key).or_insert(item);
                }
            }
        }
        if std::mem::replace(&mut self.complete, true) {
            let gone = self.sent.keys().filter(|key| !now.contains_key(key)).map(delete);
            scan.events.extend(gone);
            let differs = |(key, item): &(&&Key, &&Arc<Item>)| {
                self.sent.get(**key).is_none_or(|sent| !Arc::ptr_eq(sent, item) && sent != **item)
            };
            scan.events.extend(now.iter().filter(differs).map(|(_, item)| apply(item)));
        } else {
            scan.events.extend(reset(now.values().map(|item| &***item)));
        }
        self.sent = now.into_iter().map(|(key, item)| (key.clone(), Arc::clone(item))).collect();
    }

    fn set_unread(&mut self, name: &str, unread: bool, scan: &mut Scan) {
        let changed =
            if unread { self.unread.insert(name.to_owned()) } else { self.unread.remove(name) };
        if changed {
            scan.events.push(Event::Unread { origin: format!("manifest {name}"), unread });
        }
    }

    /// Replaces the problems of an origin.
    fn complain(&mut self, origin: String, problems: Vec<Problem>, scan: &mut Scan) {
        let before = if problems.is_empty() {
            self.complained.remove(&origin)
        } else {
            self.complained.insert(origin.clone());
            true
        };
        if before {
            scan.events.push(Event::Problems { origin, problems });
        }
    }
}

/// Names of the manifest files of a folder, sorted. Hidden files (editors' swap files, the
/// `..data` of a mounted ConfigMap) are passed over.
pub(super) fn list(dir: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let extension = Path::new(&name).extension().and_then(|e| e.to_str());
        let fits = matches!(extension, Some("yaml" | "yml" | "json")) && !name.starts_with('.');
        if fits && entry.path().is_file() {
            names.insert(name);
        }
    }
    Ok(names)
}

/// A clock that stands before the file's time is no reason to wait.
fn is_younger(written: SystemTime, than: Duration) -> bool {
    written.elapsed().is_ok_and(|age| age < than)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn reset<'a>(items: impl Iterator<Item = &'a Item>) -> [Event; 5] {
    let (mut services, mut slices, mut node) = (Vec::new(), Vec::new(), None);
    let (mut service_cidrs, mut pods) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Service(parsed) => services.push(parsed.clone()),
            Item::Slice(parsed) => slices.push(parsed.clone()),
            Item::ServiceCidr(parsed) => service_cidrs.push(parsed.clone()),
            Item::Node(own) => node = Some(own.clone()),
            Item::Pod(parsed) => pods.push(parsed.clone()),
        }
    }
    [
        Event::Node(node),
        Event::ServiceCidrs(Update::Reset(service_cidrs)),
        Event::Pods(Update::Reset(pods)),
        Event::Services(Update::Reset(services)),
        Event::Slices(Update::Reset(slices)),
    ]
}

fn apply(item: &Item) -> Event {
    match item {
        Item::Service(parsed) => Event::Services(Update::Apply(parsed.clone())),
        Item::Slice(parsed) => Event::Slices(Update::Apply(parsed.clone())),
        Item::ServiceCidr(parsed) => Event::ServiceCidrs(Update::Apply(parsed.clone())),
        Item::Node(node) => Event::Node(Some(node.clone())),
        Item::Pod(parsed) => Event::Pods(Update::Apply(parsed.clone())),
    }
}

fn delete(key: &Key) -> Event {
    match key {
        Key::Service(name) => Event::Services(Update::Delete(name.clone())),
        Key::Slice(name) => Event::Slices(Update::Delete(name.clone())),
        Key::ServiceCidr(name) => Event::ServiceCidrs(Update::Delete(name.clone())),
        Key::Node(_) => Event::Node(None),
        Key::Pod(name) => Event::Pods(Update::Delete(name.clone())),
    }
}
