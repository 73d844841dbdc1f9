//! The node that a proxy is started on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::binary;
use crate::layout::Names;
use crate::place::Place;

/// A node with the names of its lab.
pub(crate) struct Node<'a> {
    /// The lab's names.
    pub(crate) names: &'a Names,
    /// The node's host.
    pub(crate) host: Arc<Place>,
    /// Cgroup that holds all sockets of the node.
    pub(crate) cgroup: PathBuf,
}

impl Node<'_> {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.host.name()
    }

    /// Its folder, for logs and configuration.
    pub(super) fn dir(&self) -> PathBuf {
        self.names.node_dir(self.name())
    }

    /// A program on the node; behind `setpriv` when its capabilities are limited. For root the
    /// bounding set decides what exec() grants (capabilities(7)).
    pub(super) fn command(
        &self,
        program: &Path,
        capabilities: Option<&[String]>,
    ) -> Result<Command> {
        let Some(names) = capabilities else { return self.host.command(program) };
        let setpriv = binary::in_path("setpriv").context("find setpriv: install util-linux")?;
        let mut bounding = "--bounding-set=-all".to_owned();
        for name in names {
            bounding += &format!(",+{}", name.trim_start_matches("CAP_").to_lowercase());
        }
        let mut command = self.host.command(setpriv)?;
        command.args([&bounding, "--inh-caps=-all", "--ambient-caps=-all", "--"]).arg(program);
        Ok(command)
    }
}
