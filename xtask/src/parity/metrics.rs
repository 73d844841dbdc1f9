//! Looks at the metrics of a proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};

use super::{
    scrape::{Scrape, Series},
    sight::Sight,
    stage::Stage,
    step::{Metrics, Show},
};

/// Where both proxies tell their metrics unless told otherwise.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);

impl Stage<'_> {
    fn scrape_now(&self, node: &str) -> Result<Scrape> {
        Ok(Scrape::parse(&self.world.lab.place(node)?.http_get(ADDRESS, "/metrics")?))
    }

    /// Remembers what the proxy of a node tells now.
    pub(super) fn scrape(&mut self, node: &str) -> Result<()> {
        let scrape = self.scrape_now(node)?;
        self.scrapes.insert(node.to_owned(), scrape);
        Ok(())
    }

    pub(super) fn look_at_metrics(&self, metrics: &Metrics) -> Result<Sight> {
        let expected = self.expected(&metrics.see)?;
        let seen = self.each(&expected, &metrics.of, |of| {
            let now = self.scrape_now(&metrics.on)?;
            let series = Series::parse(of)?;
            let by = metrics.by.as_deref();
            let before = || self.scrapes.get(&metrics.on).context("no scrape before");
            Ok(match metrics.show {
                Show::Kind => now.kind(&series.name),
                Show::Growth => now.growth(before()?, &series, by),
                Show::More => {
                    let sum = |scrape: &Scrape| scrape.sums(&series, None).values().sum::<f64>();
                    let more = sum(&now) > sum(before()?);
                    if more { "more" } else { "no more" }.to_owned()
                }
            })
        })?;
        Ok(self.sight(&metrics.metrics, &metrics.ids, &metrics.see, &expected, seen))
    }
}
