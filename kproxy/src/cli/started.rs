//! What `verify`, `diff` and `bugreport` take for the daemon's settings: what is typed, else what it was last
//! started with, which stands in its run folder.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::parser::ValueSource;
use clap::{
    ArgMatches, Args as _, Command as Clap, CommandFactory as _, FromArgMatches as _, Parser as _,
};

use super::args::{Cli, Command, KubeProxyCli, RunArgs};
use super::kube_proxy_flags::{is_kube_proxy, with_hyphens};
use super::run;
use super::values::BPFFS_ROOT;
use crate::daemon::{RunDir, Settings, Source, Started};

/// Options of `run` that say where the daemon is, and not what it does.
const PLACES: [&str; 2] = ["bpffs_root", "run_dir"];

/// Where the daemon and its source are.
pub(super) struct Place {
    /// BPF file system with the pins.
    pub bpffs_root: PathBuf,
    /// The daemon's run folder.
    pub run_dir: RunDir,
    /// What the daemon is run with; `None`: nobody has said.
    pub settings: Option<Settings>,
}

/// Finds out. `matches`: of the verb that has the options of `run`.
///
/// # Errors
/// What was typed, or what the daemon was started with, cannot be used.
pub(super) fn place(run: RunArgs, matches: &ArgMatches) -> Result<Place> {
    let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let run_dir = RunDir::new(&run.run_dir.run_dir);
    let command = RunArgs::augment_args(Clap::new("run"));
    let mut ids = command.get_arguments().map(|arg| arg.get_id().as_str());
    if !ids.any(|id| !PLACES.contains(&id) && is_typed(id)) {
        let bpffs_root = is_typed("bpffs_root").then_some(run.pins.bpffs_root);
        return Place::of_daemon(run_dir, bpffs_root);
    }
    let bpffs_root = run.pins.bpffs_root.clone();
    let config = run::in_force(&run)?.config;
    let mut settings = run::settings(run, config)?;
    // This is no start of a daemon.
    settings.started = run_dir.started()?.unwrap_or_default();
    Ok(Place { bpffs_root, run_dir, settings: Some(settings) })
}

impl Place {
    /// As the daemon of this run folder was last started. `bpffs_root`: where its pins are said to be instead.
    ///
    /// # Errors
    /// What it was started with cannot be used.
    pub(super) fn of_daemon(run_dir: RunDir, bpffs_root: Option<PathBuf>) -> Result<Self> {
        let Some(started) = run_dir.started()? else {
            let bpffs_root = bpffs_root.unwrap_or_else(|| BPFFS_ROOT.into());
            return Ok(Self { bpffs_root, run_dir, settings: None });
        };
        let mut settings = settings_of(&started)
            .context("understand how the daemon was started (started.json in its run folder)")?;
        if let Some(root) = bpffs_root {
            settings.dataplane.bpffs_root = root;
        }
        settings.run_dir = run_dir.clone();
        let bpffs_root = settings.dataplane.bpffs_root.clone();
        Ok(Self { bpffs_root, run_dir, settings: Some(settings) })
    }
}

/// What a daemon is run with that nobody has said anything to.
///
/// # Errors
/// This node has no name.
pub(super) fn defaults() -> Result<Settings> {
    let Command::Run(args) = Cli::try_parse_from(["kproxy", "run"])?.command else {
        bail!("`kproxy run` is another command")
    };
    let config = run::in_force(&args)?.config;
    run::settings(*args, config)
}

/// The arguments of `run` on a command line, and the same as clap has them. Paths are made whole.
///
/// # Errors
/// It is none of a daemon.
pub(super) fn parsed(started: &Started) -> Result<(RunArgs, ArgMatches)> {
    let words: Vec<_> = started.arguments.iter().map(Into::into).collect();
    let (mut args, matches) = if is_kube_proxy(words.first()) {
        let matches = KubeProxyCli::command().try_get_matches_from(with_hyphens(words))?;
        (KubeProxyCli::from_arg_matches(&matches)?.run, matches)
    } else {
        let matches = Cli::command().try_get_matches_from(words)?;
        let (Command::Run(args), Some(of_run)) =
            (Cli::from_arg_matches(&matches)?.command, matches.subcommand_matches("run"))
        else {
            bail!("{:?} starts no daemon", started.arguments)
        };
        (*args, of_run.clone())
    };
    for path in [&mut args.manifests, &mut args.config].into_iter().flatten() {
        *path = started.folder.join(&path);
    }
    Ok((args, matches))
}

fn settings_of(started: &Started) -> Result<Settings> {
    let (args, _) = parsed(started)?;
    let config = run::in_force(&args)?.config;
    let mut settings = run::settings(args, config)?;
    if let Source::ApiServer { kubeconfig: Some(path), .. } = &mut settings.source {
        *path = started.folder.join(&path);
    }
    settings.started = started.clone();
    Ok(settings)
}

/// The source in words.
pub(super) fn source(source: &Source) -> String {
    match source {
        Source::Manifests(folder) => format!("the folder {}", folder.display()),
        Source::ApiServer { kubeconfig: Some(path), .. } => {
            format!("the API server of {}", path.display())
        }
        Source::ApiServer { kubeconfig: None, .. } => {
            "the API server of this pod's service account".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_was_started_with_is_understood_again() {
        let folder = tempfile::tempdir().unwrap();
        let run_dir = RunDir::new(folder.path());
        assert!(Place::of_daemon(run_dir.clone(), None).unwrap().settings.is_none());
        for words in [
            &[
                "/usr/bin/kproxy",
                "--log-level",
                "debug",
                "run",
                "--manifests",
                "m",
                "--hostname-override",
                "n1",
            ][..],
            &["kube-proxy", "--manifests=m", "--hostname_override=n1", "-v=2"],
        ] {
            let arguments = words.iter().map(|word| (*word).to_owned()).collect();
            let started = Started { arguments, folder: "/etc/kproxy".into() };
            run_dir.write_started(&started).unwrap();
            let place = Place::of_daemon(run_dir.clone(), Some("/b".into())).unwrap();
            let settings = place.settings.unwrap();
            assert_eq!(settings.source, Source::Manifests("/etc/kproxy/m".into()));
            assert_eq!(settings.node_name, "n1");
            assert_eq!(settings.dataplane.bpffs_root, PathBuf::from("/b"));
            assert_eq!((settings.run_dir, settings.started), (run_dir.clone(), started));
        }
        let arguments = ["kproxy", "status"].map(str::to_owned).to_vec();
        run_dir.write_started(&Started { arguments, folder: "/".into() }).unwrap();
        assert!(Place::of_daemon(run_dir, None).is_err());
    }
}
