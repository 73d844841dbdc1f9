//! What a process without rights can do to the data path: nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Cluster, vips};
use kproxy_lab::Probe;

#[test]
fn who_has_no_rights_neither_reads_nor_changes_anything() {
    let cluster = Cluster::new(&["n1/a"]);
    let bpffs = cluster.lab.bpffs("n1");
    let pins = bpffs.join("kproxy");
    let mode = fs::metadata(&pins).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "only root enters {}", pins.display());
    // As a process of a pod is, and although it sees the node's files, which a pod does not.
    let program = kproxy_lab::kproxy().unwrap();
    let (program, bpffs) = (program.to_str().unwrap(), bpffs.to_str().unwrap());
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"];
    let (pod, run_dir) = (cluster.lab.pod("n1", "b"), cluster.lab.run_dir("n1"));
    for command in [&["dump", "services"][..], &["status"], &["cleanup", "--force"]] {
        let mut arguments = [&nobody[..], &["--inh-caps=-all", program], command].concat();
        arguments.extend(["--bpffs-root", bpffs]);
        if command[0] != "dump" {
            arguments.extend(["--run-dir", run_dir.to_str().unwrap()]);
        }
        let error = pod.run("setpriv", &arguments).unwrap_err().to_string();
        let refused = ["no permission", "Permission denied", "permission denied", "not permitted"];
        assert!(refused.iter().any(|words| error.contains(words)), "{command:?}: {error}");
    }
    assert!(pod.probe(Probe::tcp(vips()[0]).count(4)).unwrap().all_answered());
}
