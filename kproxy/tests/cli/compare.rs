//! `kproxy verify` and `kproxy diff` on real maps, without a daemon and without a source.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use super::kproxy;
use super::maps::{fill, with_own_bpffs};

/// What the maps hold, as a manifest.
const CART: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  type: NodePort
  clusterIP: 10.96.0.7
  externalTrafficPolicy: Local
  ports: [{name: http, port: 80, nodePort: 30080}]
";
const SLICE: &str = "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.2.9], conditions: {ready: true}, nodeName: other}
";

/// Exit code, standard output, standard error.
fn run(words: &[&str], bpffs: &Path, stdin: &str) -> (i32, String, String) {
    let run_dir = TempDir::new().unwrap();
    let mut command = kproxy();
    command.args(words).arg("--bpffs-root").arg(bpffs).arg("--run-dir").arg(run_dir.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn verify_tells_contradictions_where_there_is_no_source() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        let (code, said, _) = run(&["verify"], bpffs, "");
        assert_eq!(code, 1, "{said}");
        for part in [
            "address filter 10.96.0.7:80/TCP: is a frontend, and the filter lets nobody through to it",
            "address 10.96.0.7: is a ClusterIP, and is not known as one",
            "hook at devices: no program is attached to any",
            "; not compared with a plan",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let (code, _, stderr) = run(&["verify", "--repair"], bpffs, "");
        assert!(code == 2 && stderr.contains("name the source with the options"), "{stderr}");
        // A source that does not answer is told after what the maps themselves say.
        let (code, said, stderr) = run(&["verify", "--manifests", "/nonexistent"], bpffs, "");
        assert!(code == 2 && said.contains("address filter"), "{said}");
        assert!(stderr.contains("nothing was compared with a plan"), "{stderr}");
    });
}

#[test]
fn diff_compares_what_the_files_hold_and_names_what_is_bad() {
    with_own_bpffs(|bpffs| {
        fill(bpffs);
        let (code, said, stderr) = run(&["diff", "-f", "-"], bpffs, CART);
        assert!(
            code == 0 && said.starts_with("nothing would change: 1 service ports"),
            "{code} {said}{stderr}"
        );
        assert!(stderr.contains("the files alone are compared"), "{stderr}");

        // What the API server gives stays, as when it is applied.
        let bare = CART.replace("  clusterIP: 10.96.0.7\n", "").replace(", nodePort: 30080", "");
        let (code, said, _) = run(&["diff", "-f", "-"], bpffs, &bare);
        assert!(code == 0 && said.starts_with("nothing would change"), "{said}");

        // Another ClusterIP, and one endpoint that is gone.
        let changed = CART.replace("10.96.0.7", "10.96.0.8") + SLICE;
        let (code, said, _) = run(&["diff", "-f", "-"], bpffs, &changed);
        assert_eq!(code, 1, "{said}");
        for line in [
            "~ shop/cart:http TCP/IPv4",
            "  + frontend 10.96.0.8:80/TCP: ClusterIP",
            "  - frontend 10.96.0.7:80/TCP: ClusterIP",
            "  - backend 10.244.1.5:8080: in both sets, on this node; open flows: 1, go on",
            "service ports: 0 added, 1 changed, 0 removed, 0 as they are",
        ] {
            assert!(said.lines().any(|found| found == line), "{line}: {said}");
        }

        // A folder with a bad file: the others count.
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a.yaml"), "kind: [\n---\n".to_owned() + CART).unwrap();
        fs::write(
            folder.path().join("b.yaml"),
            CART.replace("port: 80,", "port: no,").replace("cart", "bad"),
        )
        .unwrap();
        let new =
            CART.replace("cart", "new").replace("10.96.0.7", "10.96.0.9").replace("30080", "30090");
        fs::write(folder.path().join("c.json"), "{}").unwrap();
        fs::write(folder.path().join("d.yaml"), new + SLICE.replace("cart", "nobody").as_str())
            .unwrap();
        let folder = folder.path().display().to_string();
        let (code, said, stderr) =
            run(&["diff", "-f", &folder, "-f", "/nonexistent.yaml", "-o", "json"], bpffs, "");
        assert_eq!(code, 2, "{said}{stderr}");
        for part in
            ["a.yaml:", "Service shop/bad", "c.json:1", "Service shop/nobody", "/nonexistent.yaml"]
        {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let services = said["services"].as_array().unwrap();
        assert_eq!(services.len(), 1, "{said}");
        assert_eq!(
            (&services[0]["change"], &services[0]["service"]["name"]),
            (&"added".into(), &"new".into())
        );
    });
}
