//! The answers, for one thing that is dialled and each sender.

use std::net::IpAddr;

use serde::Serialize;

use super::dialled::Dialled;
use super::nearest;
use super::state::State;
use super::steps::{Step, advice, simulated, steps};
use crate::dataplane::Error;
use crate::dataplane::explain::{Explanation, Question, Sender, Verdict, View, decide};
use crate::dataplane::simulate::{Simulated, simulate};

/// All that is told. The JSON keys are promised in `docs/cli.md`: more may be added, none is renamed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Answers {
    /// One for each address, port and protocol.
    pub dialled: Vec<OfDialled>,
    /// Whether the maps are kept in step.
    pub state: State,
}

/// What becomes of connections to one address and port.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OfDialled {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// `namespace/name:port`; `None`: it belongs to no Service.
    pub service: Option<String>,
    /// What may have been meant, where it belongs to no Service.
    pub nearest: Vec<String>,
    /// One for each sender.
    pub answers: Vec<Answer>,
}

/// What becomes of one sender's connections.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Answer {
    /// Who dials.
    pub from: Sender,
    /// The facts.
    #[serde(flatten)]
    pub told: Explanation,
    /// The same in words.
    pub steps: Vec<Step>,
    /// What to do, where it is not answered.
    pub advice: Vec<String>,
    /// What the programs do; `None`: they were not run, or the sender's address is not known and matters.
    pub simulated: Option<Simulated>,
    #[serde(skip)]
    question: Question,
}

impl Answers {
    /// Decides all questions.
    pub(crate) fn of(view: &View, dialled: &[Dialled], senders: &[Sender], state: State) -> Self {
        let one = |of: &Dialled| {
            let answer = |from: &Sender| {
                let question = Question { to: of.at, protocol: of.protocol, from: *from };
                let told = decide(view, &question);
                let (steps, advice) = (steps(view, &question, &told), advice(&question, &told));
                Answer { from: *from, told, steps, advice, simulated: None, question }
            };
            let answers: Vec<_> = senders.iter().map(answer).collect();
            let is_known = answers.iter().any(|answer| answer.told.frontend().is_some());
            OfDialled {
                address: of.at.ip(),
                port: of.at.port(),
                protocol: of.protocol.name(),
                service: of.service.as_ref().map(|id| id.text()),
                nearest: if is_known { Vec::new() } else { nearest::frontends_like(view, of) },
                answers,
            }
        };
        Self { dialled: dialled.iter().map(one).collect(), state }
    }

    /// Has the programs decide, too.
    ///
    /// # Errors
    /// They cannot be run.
    pub(super) fn simulate(&mut self, view: &View) -> Result<(), Error> {
        for answer in self.dialled.iter_mut().flat_map(|dialled| &mut dialled.answers) {
            answer.simulated = simulate(view, &answer.question, &answer.told)?;
            answer.steps.extend(answer.simulated.as_ref().map(simulated));
        }
        Ok(())
    }

    /// Whether every sender is answered, as far as the maps tell.
    pub(super) fn all_answered(&self) -> bool {
        let answers = self.dialled.iter().flat_map(|dialled| &dialled.answers);
        let mut verdicts = answers.map(|answer| answer.told.verdict);
        verdicts.all(|verdict| matches!(verdict, Verdict::Answered | Verdict::Depends))
    }
}
