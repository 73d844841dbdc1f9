//! Floods, forged packets, and sockets that are led step by step.
//!
//! What sockets see, one thing after the other: `n2/a at web:80` is an answer of that backend which
//! came from there (`n2/a` over TCP), `web:80` a peer, `dropped` silence, anything else an error.
//! What is done and shows nothing is passed over.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use kproxy_lab::{Family, Flood, Forge, Seen, Step};
use parking_lot::Mutex;

use super::{
    names::Names,
    over::Over,
    sight::Sight,
    stage::{Led, Stage, transport},
    step_flow::{self, Act, Sockets},
    words,
};

/// Packets a second of a flood: as fast as most machines can, so that all come within a flow's time.
const RATE: u64 = 50_000;
/// Longest time that a flood may need.
const LONGEST: Duration = Duration::from_secs(20);

impl Stage<'_> {
    /// Sends packets that nothing follows.
    pub(super) fn flood(&self, flood: &step_flow::Flood) -> Result<()> {
        let place = self.world.lab.place(&flood.from)?;
        let sources = flood.source.as_ref().map(|source| self.names.destinations(source));
        let sources = sources.transpose()?;
        let to = flood.to.iter().map(|to| self.names.destinations(to));
        for to in to.collect::<Result<Vec<_>>>()?.concat() {
            let mut order =
                Flood::new(flood.packets, to, RATE).count(flood.count).duration(LONGEST);
            if let Some(sources) = &sources {
                let source = sources.iter().find(|source| source.is_ipv4() == to.is_ipv4());
                order = order.source(*source.with_context(|| format!("no source for {to}"))?);
            }
            let sent = place.flood(order).with_context(|| flood.flood.clone())?.sent;
            if sent < flood.count {
                bail!("{}: {sent} of {} packets to {to} in {LONGEST:?}", flood.flood, flood.count);
            }
        }
        Ok(())
    }

    /// Forges a packet on a connection of each place to each address.
    pub(super) fn forge(&self, forge: &step_flow::Forge) -> Result<Sight> {
        let expected = self.expected(&forge.see)?;
        let to = forge.to.iter().map(|to| self.names.destinations(to));
        let to = to.collect::<Result<Vec<_>>>()?.concat();
        let clients = forge.from.iter().flat_map(|from| to.iter().map(move |to| (from, *to)));
        let clients: Vec<Client<'_>> = clients.map(|(from, to)| Client { from, to }).collect();
        let wait = Duration::from_secs_f32(forge.wait);
        let seen = self.each(&expected, &clients, |client| {
            let place = self.world.lab.place(client.from)?;
            Ok(words::verdict(&place.forge(Forge::new(forge.packet, client.to).wait(wait))?))
        })?;
        Ok(self.sight(&forge.forge, &forge.ids, &forge.see, &expected, seen))
    }

    /// Leads sockets: new ones of each place and family, or those of an earlier step.
    pub(super) fn lead(&mut self, sockets: &Sockets) -> Result<Sight> {
        let expected = self.expected(&sockets.see)?;
        let clients = match &sockets.of {
            Some(of) => self.go_on(of, &sockets.acts)?,
            None => self.begin(sockets)?,
        };
        if clients.is_empty() {
            bail!("{}: no sockets", sockets.sockets);
        }
        let seen = self.each(&expected, &clients, |client| {
            let mut led = client.led.lock();
            if let Some(over) = client.over {
                // Looking again begins anew; the port has to be free for that.
                if let Some(old) = led.take() {
                    old.socket.close()?;
                }
                *led = Some(self.open(client, over, sockets)?);
            }
            let led = led.as_mut().context("no socket")?;
            for name in sockets.acts.iter().filter_map(Act::to) {
                let to = find(&self.names, name, client.family)?;
                led.dialled.extend(to.map(|to| (to, name.to_owned())));
            }
            let mut seen = Vec::new();
            for step in &client.steps {
                seen.extend(shown(led, led.socket.step(*step)?));
            }
            Ok(if seen.is_empty() { "done".to_owned() } else { seen.join(", ") })
        })?;
        self.sockets.extend(clients.into_iter().filter_map(|client| client.led.into_inner()));
        Ok(self.sight(&sockets.sockets, &sockets.ids, &sockets.see, &expected, seen))
    }

    fn open(&self, client: &Leading, over: Over, of: &Sockets) -> Result<Led> {
        let place = self.world.lab.place(&client.from)?;
        let bind: IpAddr = match (of.port, client.family) {
            (0, Family::V4) => Ipv4Addr::UNSPECIFIED.into(),
            (0, Family::V6) => Ipv6Addr::UNSPECIFIED.into(),
            (_, family) => place.ip(family),
        };
        let socket = place.socket(transport(over), (bind, of.port))?;
        let (from, family) = (client.from.clone(), client.family);
        Ok(Led { of: of.sockets.clone(), from, family, socket, dialled: BTreeMap::new() })
    }

    /// A socket of each place and of each family that all addresses have.
    fn begin(&self, sockets: &Sockets) -> Result<Vec<Leading>> {
        let over = sockets.over.context("`over` is missing: what the sockets are")?;
        let mut clients = Vec::new();
        for family in Family::ALL {
            let names = sockets.acts.iter().filter_map(Act::to);
            let all = names.map(|name| Ok(find(&self.names, name, family)?.is_some()));
            if !all.collect::<Result<Vec<_>>>()?.into_iter().all(|has| has) {
                continue;
            }
            for from in &sockets.from {
                let steps = steps(&self.names, &sockets.acts, family)?;
                let (from, led) = (from.clone(), Mutex::new(None));
                clients.push(Leading { from, family, over: Some(over), steps, led });
            }
        }
        Ok(clients)
    }

    /// The sockets of an earlier step.
    fn go_on(&mut self, of: &str, acts: &[Act]) -> Result<Vec<Leading>> {
        let is_theirs = |led: &mut Led| led.of == of;
        let theirs = self.sockets.extract_if(.., is_theirs);
        let names = &self.names;
        let lead = theirs.map(|led| {
            let (from, family) = (led.from.clone(), led.family);
            let steps = steps(names, acts, family)?;
            Ok(Leading { from, family, over: None, steps, led: Mutex::new(Some(led)) })
        });
        lead.collect()
    }
}

/// Address and port of a family that a name stands for, if it has one.
fn find(names: &Names, name: &str, family: Family) -> Result<Option<SocketAddr>> {
    let all = names.destinations(name)?;
    Ok(all.into_iter().find(|to| Family::of(to.ip()) == family))
}

/// What the sockets of a family do.
fn steps(names: &Names, acts: &[Act], family: Family) -> Result<Vec<Step>> {
    let at = |name: &String| {
        find(names, name, family)?.with_context(|| format!("`{name}` has no such address"))
    };
    let step = |act: &Act| {
        Ok(match act {
            Act::Connect(to) => Step::Connect(at(to)?),
            Act::Dissolve => Step::Dissolve,
            Act::Peer => Step::Peer,
            Act::Ask => Step::Ask,
            Act::AskAt(to) => Step::AskAt(at(to)?),
            Act::AskFrom(to, source) => Step::AskFrom(*source, at(to)?),
        })
    };
    acts.iter().map(step).collect()
}

/// What a step has shown, in words.
fn shown(led: &Led, seen: Seen) -> Option<String> {
    let name = |address: SocketAddr| match led.dialled.get(&address) {
        Some(name) => name.clone(),
        None => address.to_string(),
    };
    match seen {
        Seen::Done => None,
        Seen::Peer(peer) => Some(name(peer)),
        Seen::Answered { server, source: Some(source) } => {
            Some(format!("{server} at {}", name(source)))
        }
        Seen::Answered { server, source: None } => Some(server),
        Seen::Failed(error) if error == "timeout" => Some("dropped".to_owned()),
        Seen::Failed(error) => Some(error),
    }
}

/// Whose connection a packet is forged for.
struct Client<'a> {
    from: &'a str,
    to: SocketAddr,
}

impl fmt::Display for Client<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.from, self.to)
    }
}

/// A socket, and what it does next.
struct Leading {
    from: String,
    family: Family,
    /// What is opened; nothing for a socket that goes on.
    over: Option<Over>,
    steps: Vec<Step>,
    led: Mutex<Option<Led>>,
}

impl fmt::Display for Leading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.from, self.family)
    }
}
