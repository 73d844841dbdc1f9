//! `kproxy status --ready` and `--live`: the daemon's own word, for the probes of its pod.

use std::io::{ErrorKind, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cli::exit::Exit;

/// Longest wait for the daemon, which answers at once when it is well.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the daemon at `socket` for `path` and prints what it says.
///
/// # Errors
/// The socket is not the daemon's or cannot be used, and those of the writer.
pub(super) fn run(socket: &Path, path: &str, out: &mut dyn Write) -> Result<Exit> {
    send(socket, &format!("GET {path}"), PATIENCE, out)
}

/// Has the daemon at `socket` look at the kernel anew, and prints what it says.
///
/// # Errors
/// The socket is not the daemon's or cannot be used, and those of the writer.
pub(in crate::cli) fn repair(socket: &Path, out: &mut dyn Write) -> Result<Exit> {
    // Longer than it keeps a connection.
    send(socket, "POST /repair", 3 * PATIENCE, out)
}

fn send(socket: &Path, what: &str, patience: Duration, out: &mut dyn Write) -> Result<Exit> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            writeln!(out, "no daemon listens at {}", socket.display())?;
            return Ok(Exit::No);
        }
        Err(error) => bail!("ask {}: {error}", socket.display()),
    };
    // Not as its cause: a broken pipe is no error where standard output breaks.
    let answer = match ask(&mut stream, what, patience) {
        Ok(answer) => answer,
        Err(error) => bail!("ask {}: {error}", socket.display()),
    };
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{} has answered no HTTP", socket.display());
    };
    writeln!(out, "{}", body.trim_end())?;
    Ok(if head.split(' ').nth(1) == Some("200") { Exit::Fine } else { Exit::No })
}

/// Why the daemon at `socket` says that it is not in step with the cluster, or what keeps it from answering;
/// `None`: it is in step.
pub(in crate::cli) fn why_not_ready(socket: &Path) -> Option<String> {
    let mut told = Vec::new();
    match run(socket, "/readyz", &mut told) {
        Ok(Exit::Fine) => None,
        Ok(Exit::No) => Some(String::from_utf8_lossy(&told).trim_end().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn ask(stream: &mut UnixStream, what: &str, patience: Duration) -> std::io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let request = format!("{what} HTTP/1.1\r\nHost: kproxy\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_daemons_word_is_the_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("kproxy.sock");
        let mut said = Vec::new();
        assert_eq!(run(&socket, "/readyz", &mut said).unwrap(), Exit::No);
        assert!(String::from_utf8_lossy(&said).contains("no daemon listens"));
        let listener = UnixListener::bind(&socket).unwrap();
        for (status, exit) in [("200 OK", Exit::Fine), ("503 Service Unavailable", Exit::No)] {
            let mut said = Vec::new();
            let answered = std::thread::scope(|scope| {
                let answer = || {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = [0; 128];
                    let read = stream.read(&mut request).unwrap();
                    assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                    write!(stream, "HTTP/1.1 {status}\r\nA: b\r\n\r\nas it is\n").unwrap();
                };
                scope.spawn(answer);
                run(&socket, "/readyz", &mut said).unwrap()
            });
            assert_eq!((answered, &said[..]), (exit, &b"as it is\n"[..]));
        }
        // Its process has ended, the file is still there.
        drop(listener);
        // A program that another test is just starting has a copy of the listener for a moment.
        let mut asked = (0..1_000).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            run(&socket, "/livez", &mut Vec::new())
        });
        assert_eq!(asked.find_map(Result::ok), Some(Exit::No));
    }
}
