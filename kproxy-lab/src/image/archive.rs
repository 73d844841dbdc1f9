//! An OCI image layout in a tar file.

use std::collections::HashMap;
use std::io::{Read as _, Write};

use anyhow::{Context as _, Result};
use flate2::{Compression, read::GzEncoder};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, HistoryBuilder, ImageConfigurationBuilder, ImageIndexBuilder,
    ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, RootFsBuilder, Sha256Digest,
};
use sha2::{Digest as _, Sha256};
use tar::Builder;

/// The archive while it is written. Nothing in it depends on when and where.
pub(super) struct Archive<W: Write> {
    tar: Builder<W>,
    layers: Vec<Descriptor>,
    /// Digests of the layers as they are unpacked.
    unpacked: Vec<String>,
    history: Vec<oci_spec::image::History>,
}

/// Header of a file of root's from the beginning of time.
pub(super) fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header
}

impl<W: Write> Archive<W> {
    pub(super) fn new(target: W) -> Result<Self> {
        let mut archive = Self {
            tar: Builder::new(target),
            layers: Vec::new(),
            unpacked: Vec::new(),
            history: Vec::new(),
        };
        let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;
        archive.file("oci-layout", &serde_json::to_vec(&layout)?)?;
        Ok(archive)
    }

    /// Adds a layer, a tar file; later ones cover earlier ones.
    pub(super) fn layer(&mut self, tar: Vec<u8>, what: &str) -> Result<()> {
        self.unpacked.push(format!("sha256:{}", digest(&tar)?.digest()));
        let mut packed = Vec::new();
        GzEncoder::new(&*tar, Compression::fast())
            .read_to_end(&mut packed)
            .context("compress a layer")?;
        let layer = self.blob(MediaType::ImageLayerGzip, &packed)?;
        self.layers.push(layer);
        self.history.push(HistoryBuilder::default().created_by(what).build()?);
        Ok(())
    }

    /// Adds what describes the image: its name, the processor, what runs in it.
    pub(super) fn finish(mut self, name: &str, arch: Arch, program: &str) -> Result<()> {
        let run = ConfigBuilder::default()
            .entrypoint(vec![program.to_owned()])
            .cmd(vec!["run".to_owned()])
            .build()?;
        let files = RootFsBuilder::default().diff_ids(self.unpacked.clone()).build()?;
        let config = ImageConfigurationBuilder::default()
            .architecture(arch)
            .os(Os::Linux)
            .config(run)
            .rootfs(files)
            .history(self.history.clone())
            .build()?;
        let config = self.blob(MediaType::ImageConfig, &serde_json::to_vec(&config)?)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(config)
            .layers(self.layers.clone())
            .build()?;
        let mut manifest = self.blob(MediaType::ImageManifest, &serde_json::to_vec(&manifest)?)?;
        // The first is the specification's, which has only the tag; the other is containerd's.
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifest.set_annotations(Some(HashMap::from([
            ("org.opencontainers.image.ref.name".to_owned(), tag.to_owned()),
            ("io.containerd.image.name".to_owned(), name.to_owned()),
        ])));
        let index = ImageIndexBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()?;
        self.file("index.json", &serde_json::to_vec(&index)?)?;
        self.tar.into_inner()?.flush()?;
        Ok(())
    }

    fn blob(&mut self, kind: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let digest = digest(bytes)?;
        self.file(&format!("blobs/sha256/{}", digest.digest()), bytes)?;
        Ok(Descriptor::new(kind, bytes.len() as u64, digest))
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let mut header = header(bytes.len() as u64, 0o644);
        self.tar.append_data(&mut header, path, bytes).with_context(|| format!("pack {path}"))
    }
}

fn digest(bytes: &[u8]) -> Result<Sha256Digest> {
    let digest = base16ct::lower::encode_string(&Sha256::digest(bytes));
    digest.parse().context("read a digest")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use oci_spec::image::{ImageConfiguration, ImageIndex, ImageManifest};

    use super::*;

    /// Every blob has the name of its digest, and each thing leads to the next.
    #[test]
    fn an_archive_leads_from_the_index_to_the_layers() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes).unwrap();
        archive.layer(b"first".repeat(1000), "one").unwrap();
        archive.layer(b"second".to_vec(), "two").unwrap();
        archive.finish("example.org/kproxy:1.2", Arch::ARM64, "/usr/bin/kproxy").unwrap();

        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(&*bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        let blob = |descriptor: &Descriptor| {
            let content = &files[&format!("blobs/sha256/{}", descriptor.digest().digest())];
            assert_eq!(content.len() as u64, descriptor.size());
            assert_eq!(digest(content).unwrap().digest(), descriptor.digest().digest());
            content.clone()
        };
        let index: ImageIndex = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest = &index.manifests()[0];
        let names = manifest.annotations().as_ref().unwrap();
        assert_eq!(names["io.containerd.image.name"], "example.org/kproxy:1.2");
        assert_eq!(names["org.opencontainers.image.ref.name"], "1.2");
        let manifest: ImageManifest = serde_json::from_slice(&blob(manifest)).unwrap();
        let config: ImageConfiguration = serde_json::from_slice(&blob(manifest.config())).unwrap();
        assert_eq!(*config.architecture(), Arch::ARM64);
        for (layer, unpacked) in manifest.layers().iter().zip(config.rootfs().diff_ids()) {
            let mut content = Vec::new();
            flate2::read::GzDecoder::new(&*blob(layer)).read_to_end(&mut content).unwrap();
            assert_eq!(format!("sha256:{}", digest(&content).unwrap().digest()), *unpacked);
        }
        assert_eq!((manifest.layers().len(), files.len()), (2, 6));
    }
}
