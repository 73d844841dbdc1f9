use super::*;
use crate::plan::tests::{endpoint, ip, service, slice};

fn touched(touched: Touched) -> Vec<String> {
    touched.into_iter().map(|name| name.name).collect()
}

#[test]
fn eps_16_the_same_object_again_touches_nothing() {
    let mut model = Model::new();
    assert_eq!(touched(model.apply_service(service("web", &["10.96.0.1"]))), ["web"]);
    assert!(model.apply_service(service("web", &["10.96.0.1"])).is_empty());
    let endpoints = [endpoint("10.0.0.1", "R")];
    assert_eq!(touched(model.apply_slice(slice("s", "web", 80, &endpoints))), ["web"]);
    assert!(model.apply_slice(slice("s", "web", 80, &endpoints)).is_empty());
    assert!(model.set_node(Node::default()).is_empty());
}

#[test]
fn eps_15_a_deleted_slice_takes_only_its_own() {
    let mut model = Model::new();
    let web = ServiceName::new("default", "web");
    model.apply_slice(slice("a", "web", 80, &[endpoint("10.0.0.1", "R")]));
    model.apply_slice(slice("b", "web", 80, &[endpoint("10.0.0.2", "R")]));
    assert_eq!(touched(model.delete_slice(&SliceName::new("default", "a"))), ["web"]);
    assert_eq!(model.slices(&web).count(), 1);
    assert!(model.delete_slice(&SliceName::new("default", "a")).is_empty());
}

#[test]
fn eps_17_slices_outlive_their_service() {
    let mut model = Model::new();
    let web = ServiceName::new("default", "web");
    model.apply_slice(slice("a", "web", 80, &[endpoint("10.0.0.1", "R")]));
    model.apply_service(service("web", &["10.96.0.1"]));
    assert_eq!(touched(model.delete_service(&web)), ["web"]);
    assert_eq!(model.slices(&web).count(), 1);
    assert!(model.delete_service(&web).is_empty());
}

#[test]
fn a_slice_whose_label_changes_moves() {
    let mut model = Model::new();
    model.apply_slice(slice("a", "web", 80, &[endpoint("10.0.0.1", "R")]));
    let moved = model.apply_slice(slice("a", "api", 80, &[endpoint("10.0.0.1", "R")]));
    assert_eq!(touched(moved), ["api", "web"]);
    assert_eq!(model.slices(&ServiceName::new("default", "web")).count(), 0);
    assert_eq!(model.slices(&ServiceName::new("default", "api")).count(), 1);
}

#[test]
fn a_reset_touches_what_is_gone_new_or_different() {
    let mut model = Model::new();
    for (name, addr) in [("gone", "10.96.0.1"), ("same", "10.96.0.2"), ("other", "10.96.0.3")] {
        model.apply_service(service(name, &[addr]));
    }
    let list = [("same", "10.96.0.2"), ("other", "10.96.0.4"), ("new", "10.96.0.5")];
    let list = list.iter().map(|(name, addr)| service(name, &[addr])).collect();
    assert_eq!(touched(model.reset_services(list)), ["gone", "new", "other"]);

    model.apply_slice(slice("a", "same", 80, &[endpoint("10.0.0.1", "R")]));
    model.apply_slice(slice("b", "other", 80, &[endpoint("10.0.0.1", "R")]));
    let list = vec![slice("b", "other", 80, &[endpoint("10.0.0.1", "R")])];
    assert_eq!(touched(model.reset_slices(list)), ["same"]);
}

#[test]
fn node_04_a_new_zone_touches_everything() {
    let mut model = Model::new();
    model.apply_service(service("a", &["10.96.0.1"]));
    model.apply_service(service("b", &["10.96.0.2"]));
    assert_eq!(
        touched(model.set_node(Node { zone: Some("a".to_owned()), ..Node::default() })),
        ["a", "b"]
    );
}

#[test]
fn a_new_address_of_the_node_touches_what_may_be_open_to_the_node() {
    let mut model = Model::new();
    model.apply_service(service("open", &["10.96.0.1"]));
    let mut restricted = service("restricted", &["10.96.0.2"]);
    restricted.source_ranges = vec!["192.0.2.0/24".parse().unwrap()];
    model.apply_service(restricted);
    let at = |text| Node { addresses: vec![ip(text)], ..Node::default() };
    assert_eq!(touched(model.set_node(at("192.0.2.1"))), ["restricted"]);
    assert!(model.set_node(at("192.0.2.1")).is_empty());
    assert_eq!(touched(model.set_node(at("192.0.2.2"))), ["restricted"]);
}

#[test]
fn services_are_found_by_cluster_ip() {
    let mut model = Model::new();
    model.apply_service(service("a", &["10.96.0.1", "fd00:10:96::1"]));
    model.apply_service(service("b", &["10.96.0.2"]));
    let at = |text| model.services_at(&[ip(text)].into());
    assert_eq!(touched(at("fd00:10:96::1")), ["a"]);
    assert_eq!(touched(at("10.96.0.3")), [""; 0]);
}
