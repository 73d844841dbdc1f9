//! What is said when there are no pins to read.

use std::{fs, path::Path};

use kproxy_common::abi::ABI_VERSION;

use super::{error::OpenError, pins::Pins};
use crate::{
    dataplane::{cleanup, sandbox::sandboxed},
    node,
};

#[test]
fn pins_of_another_version_are_told_apart() {
    sandboxed(|sandbox| {
        node::bpffs::ensure(&sandbox.bpffs).unwrap();
        fs::create_dir_all(sandbox.bpffs.join("kproxy/v99/maps")).unwrap();
        let error = Pins::open(&sandbox.bpffs).err().unwrap();
        assert!(
            matches!(&error, OpenError::OtherVersion { found, wanted: ABI_VERSION } if found == "99")
        );
        let done = cleanup(&sandbox.bpffs);
        assert!(done.errors.is_empty() && !Path::exists(&sandbox.bpffs.join("kproxy")), "{done:?}");
    });
}
