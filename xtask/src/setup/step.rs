//! The steps of set-up.

use std::{ffi::OsString, process::Command};

/// One thing to install.
#[derive(Debug)]
pub(crate) struct Step {
    /// The thing.
    pub(crate) what: String,
    /// What it is for.
    pub(crate) why: &'static str,
    /// How to get it.
    pub(crate) commands: Vec<Action>,
    /// The commands need root.
    pub(crate) root: bool,
    /// About how long it takes, if long.
    pub(crate) slow: Option<&'static str>,
}

/// A command of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Action {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
}

impl Action {
    pub(crate) fn new(program: &str, arguments: &[&str]) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            environment: Vec::new(),
        }
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(crate) fn build(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command
    }
}
