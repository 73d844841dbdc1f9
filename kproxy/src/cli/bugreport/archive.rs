//! The parts as a compressed archive.

use std::io::{self, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::parts::{Part, columns};
use crate::cli::render::{Look, table};
use crate::cli::version::Version;
use crate::timing;

/// One archive with a folder of this name, its summary first.
///
/// # Errors
/// None in memory, but the formats could refuse a name.
pub(super) fn archive(folder: &str, parts: &[Part]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    add(&mut tar, folder, "summary.txt", &summary(parts)?)?;
    for part in parts {
        if let Ok(content) = &part.content {
            add(&mut tar, folder, part.name, content.as_bytes())?;
        }
    }
    tar.into_inner()?.finish()
}

fn summary(parts: &[Part]) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let Version { version, abi_version } = Version::THIS;
    writeln!(text, "kproxy {version} (map layout version {abi_version})\n")?;
    table::write(&mut text, &Look::PLAIN, &columns(), true, parts)?;
    Ok(text)
}

fn add<W: io::Write>(
    tar: &mut Builder<W>,
    folder: &str,
    name: &str,
    content: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(timing::since_1970().as_secs());
    tar.append_data(&mut header, format!("{folder}/{name}"), content)
}
