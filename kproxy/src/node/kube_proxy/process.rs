//! Whether kube-proxy runs on this node, as far as that can be told: by its process, where the host's are to be seen;
//! by its metrics otherwise.

use std::{
    ffi::OsStr,
    fs, io,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

use procfs::process::{Process, all_processes};

/// Name of its binary.
const NAME: &str = "kube-proxy";
/// Where it tells its metrics unless told otherwise, and so does kproxy.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);
/// Longest wait for each piece of the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// What is read of the answer at most.
const ENOUGH: u64 = 16 << 20;

/// By what it is seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Running {
    /// Its process, of this network namespace.
    Process(i32),
    /// Whoever answers here has its metrics.
    Metrics(SocketAddr),
}

/// Looks for it.
pub(crate) fn running() -> Option<Running> {
    let process = process().map(Running::Process);
    process.or_else(|| is_kube_proxy(&ask(METRICS).ok()?).then_some(Running::Metrics(METRICS)))
}

fn process() -> Option<i32> {
    let own = fs::metadata("/proc/self/ns/net").ok()?;
    let is_here = |process: &Process| {
        let namespace = fs::metadata(format!("/proc/{}/ns/net", process.pid));
        namespace.is_ok_and(|other| (other.dev(), other.ino()) == (own.dev(), own.ino()))
    };
    let is_alive = |process: &Process| {
        let stat = process.stat();
        stat.is_ok_and(|stat| stat.comm == NAME && !matches!(stat.state, 'Z' | 'X'))
    };
    let is_other = |process: &Process| !process.exe().is_ok_and(|program| is_kproxy(&program));
    let mut processes = all_processes().ok()?.flatten();
    processes
        .find(|process| is_alive(process) && is_here(process) && is_other(process))
        .map(|process| process.pid)
}

/// Whether it is kproxy under kube-proxy's name, which is a link to its program then; replaced by another build it
/// has a name with a note behind it.
fn is_kproxy(program: &Path) -> bool {
    let name = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name == "kproxy" || name == "kproxy (deleted)"
}

/// kproxy has the metrics of kube-proxy and some of its own.
fn is_kube_proxy(metrics: &str) -> bool {
    let mut names = metrics.lines().filter(|line| !line.starts_with('#'));
    names.clone().any(|name| name.starts_with("kubeproxy_"))
        && !names.any(|name| name.starts_with("kproxy_"))
}

fn ask(at: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ENOUGH).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kproxy_is_not_taken_for_it() {
        let both = "# HELP x y\nkubeproxy_sync_proxy_rules_last_timestamp_seconds 1\n";
        assert!(is_kube_proxy(both));
        assert!(!is_kube_proxy(&format!("{both}kproxy_problems 0\n")));
        assert!(!is_kube_proxy("# HELP kubeproxy_x y\nnode_load1 1\n"));
        for (program, wanted) in [
            ("/usr/bin/kproxy", true),
            ("/usr/bin/kproxy (deleted)", true),
            ("/usr/local/bin/kube-proxy", false),
            ("/usr/bin/kproxy-lab", false),
        ] {
            assert_eq!(is_kproxy(Path::new(program)), wanted, "{program}");
        }
    }

    #[test]
    fn the_answer_is_read_to_its_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let read = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nkubeproxy_x 1\n").unwrap();
            request[..read].to_vec()
        });
        assert!(is_kube_proxy(&ask(at).unwrap()));
        assert!(server.join().unwrap().starts_with(b"GET /metrics HTTP/1.1\r\n"));
    }
}
