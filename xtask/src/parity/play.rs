//! Plays one case: makes its objects, asks, and removes what it has made.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result};
use kproxy_lab::{Outcome, poll_until};

use super::{
    case::Case,
    expected::Who,
    over::Over,
    sight::Sight,
    stage::{PATIENCE, PAUSE, Stage, Undo, transport},
    step::{self, Step},
};

/// How long a change may need to show in a case that has failed.
const LITTLE_PATIENCE: Duration = Duration::from_secs(2);

impl Stage<'_> {
    /// Plays a case, and removes what it has made. A step that fails is seen like anything else.
    pub(super) fn play(mut self, case: &Case) -> Vec<Sight> {
        let mut sights = Vec::new();
        for step in &case.steps {
            match self.step(step) {
                Ok(sight) => {
                    if sight.as_ref().is_some_and(|sight| !sight.is_expected()) {
                        self.patience = LITTLE_PATIENCE;
                    }
                    sights.extend(sight);
                }
                Err(error) => {
                    sights.push(Sight::failure("a step", &format!("{error:#}")));
                    break;
                }
            }
        }
        if let Err(error) = self.clear() {
            sights.push(Sight::failure("clearing up", &format!("{error:#}")));
        }
        sights
    }

    fn clear(mut self) -> Result<()> {
        for undo in std::mem::take(&mut self.undo).into_iter().rev() {
            match undo {
                Undo::Command { on, words } => self.run(&on, &words)?,
                Undo::Start => {
                    self.world.proxies.iter().try_for_each(|proxy| proxy.start())?;
                    self.world.proxies.iter().try_for_each(|proxy| proxy.wait_ready())?;
                }
                Undo::Patch { kind, name, fields } => {
                    self.patch(&kind, &name, &fields)?;
                }
            }
        }
        for led in std::mem::take(&mut self.sockets) {
            led.socket.close()?;
        }
        for (_, held) in std::mem::take(&mut self.held) {
            held.stop()?;
        }
        let objects: Vec<(String, String)> = self.objects.keys().cloned().collect();
        for (kind, name) in objects {
            self.delete(&kind, &name)?;
        }
        for (place, port) in &self.servers {
            self.world.lab.place(place)?.stop_serving(*port)?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<Option<Sight>> {
        match step {
            Step::Service(service) => self.service(service)?,
            Step::Endpoints(endpoints) => self.endpoints(endpoints)?,
            Step::Apply(apply) => self.apply(apply)?,
            Step::Patch(patch) => {
                let (kind, name) = (&patch.patch, &patch.name);
                self.patch(kind, name, &patch.fields)?;
                self.undo.extend(patch.undo.iter().map(|fields| Undo::Patch {
                    kind: kind.clone(),
                    name: name.clone(),
                    fields: fields.clone(),
                }));
            }
            Step::Delete(delete) => {
                for name in &delete.names {
                    self.delete(&delete.delete, name)?;
                }
            }
            Step::Probe(probe) => return self.probe(probe).map(Some),
            Step::Http(http) => return self.http(http).map(Some),
            Step::Scrape(scrape) => self.scrape(&scrape.scrape)?,
            Step::Metrics(metrics) => return self.look_at_metrics(metrics).map(Some),
            Step::Hold(hold) => self.hold(hold)?,
            Step::Held(held) => return self.look_at_held(held).map(Some),
            Step::Remember(remember) => self.remember(remember)?,
            Step::Serve(serve) => {
                let place = self.world.lab.place(&serve.serve)?;
                if serve.mptcp {
                    place.serve_mptcp(serve.port)?;
                } else if serve.addresses.is_empty() {
                    place.serve(serve.port)?;
                } else {
                    place.serve_at(&serve.addresses, serve.port, None)?;
                }
                self.servers.push((serve.serve.clone(), serve.port));
            }
            Step::Run(run) => {
                self.run(&run.on, &run.run)?;
                let undo = run.undo.iter().cloned();
                self.undo.extend(undo.map(|words| Undo::Command { on: run.on.clone(), words }));
            }
            Step::Wait(wait) => match wait.wait {
                Some(seconds) => sleep(Duration::from_secs_f32(seconds)),
                None => self.settle()?,
            },
            Step::Flood(flood) => self.flood(flood)?,
            Step::Forge(forge) => return self.forge(forge).map(Some),
            Step::Sockets(sockets) => return self.lead(sockets).map(Some),
            Step::Kill => {
                self.world.proxies.iter().try_for_each(|proxy| proxy.kill())?;
                self.undo.push(Undo::Start);
            }
            Step::Restart => {
                for proxy in &self.world.proxies {
                    proxy.kill()?;
                    proxy.start()?;
                }
            }
        }
        Ok(None)
    }

    fn run(&self, on: &str, words: &str) -> Result<()> {
        let words = self.names.fill_in(words)?;
        let words: Vec<&str> = words.split(' ').collect();
        let (program, arguments) = words.split_first().context("an empty command")?;
        self.world.lab.place(on)?.run(program, arguments).map(drop)
    }

    /// Waits until every change has been seen. For looks at what must stay as it is: too short a
    /// wait would miss a wrong change, never a right one.
    fn settle(&self) -> Result<()> {
        sleep(Duration::from_millis(500));
        if self.world.who != Who::Kproxy {
            self.world.proxies.iter().try_for_each(|proxy| proxy.wait_ready())?;
        }
        Ok(())
    }

    fn hold(&mut self, hold: &step::Hold) -> Result<()> {
        for from in &hold.from {
            for to in hold.to.iter().map(|to| self.names.destinations(to)) {
                for (to, over) in
                    to?.into_iter().flat_map(|to| hold.over.iter().map(move |over| (to, over)))
                {
                    let mut connection = kproxy_lab::Hold::new(transport(*over), to).pause(PAUSE);
                    if *over != Over::Tcp {
                        connection = connection.timeout(PAUSE * 5);
                    }
                    if let Some(port) = hold.port {
                        connection = connection.port(port);
                    }
                    if hold.unanswered {
                        connection = connection.even_unanswered();
                    }
                    let held = self.world.lab.place(from)?.hold(connection);
                    let held = held.with_context(|| hold.hold.clone())?;
                    self.held.push((hold.hold.clone(), held));
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, remember: &step::Remember) -> Result<()> {
        let to = self.names.destinations(&remember.to)?;
        let to = *to.first().context("nothing to ask")?;
        let place = self.world.lab.place(&remember.from)?;
        let probe = kproxy_lab::Probe::new(transport(remember.over.unwrap_or(Over::Tcp)), to);
        let ask = || place.probe(probe.clone());
        let outcome = poll_until(PATIENCE, PAUSE, ask, Outcome::all_answered)?;
        let answer = outcome.answers().next();
        let answer = answer.with_context(|| format!("nobody answers at {to}: {outcome}"))?;
        self.names.remember(&remember.remember, &answer.server);
        Ok(())
    }
}
