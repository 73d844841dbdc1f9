//! How each kind of object gets into the model.

use crate::model::{Model, Pod, Service, ServiceCidr, Slice, Touched};
use crate::source::Object;

/// A kind of object that the model stores.
pub(super) trait Stored: Object {
    /// Whether plans come from objects of this kind: one that cannot be read may be part of them.
    const IS_PLANNED: bool = true;
    fn get<'m>(model: &'m Model, key: &Self::Key) -> Option<&'m Self>;
    fn apply(model: &mut Model, object: Self) -> Touched;
    fn delete(model: &mut Model, key: &Self::Key) -> Touched;
    fn reset(model: &mut Model, objects: Vec<Self>) -> Touched;
}

impl Stored for Service {
    fn get<'m>(model: &'m Model, key: &Self::Key) -> Option<&'m Self> {
        model.service(key)
    }
    fn apply(model: &mut Model, object: Self) -> Touched {
        model.apply_service(object)
    }
    fn delete(model: &mut Model, key: &Self::Key) -> Touched {
        model.delete_service(key)
    }
    fn reset(model: &mut Model, objects: Vec<Self>) -> Touched {
        model.reset_services(objects)
    }
}

impl Stored for ServiceCidr {
    fn get<'m>(model: &'m Model, key: &Self::Key) -> Option<&'m Self> {
        model.service_cidr(key)
    }
    fn apply(model: &mut Model, object: Self) -> Touched {
        model.apply_service_cidr(object);
        Touched::new()
    }
    fn delete(model: &mut Model, key: &Self::Key) -> Touched {
        model.delete_service_cidr(key);
        Touched::new()
    }
    fn reset(model: &mut Model, objects: Vec<Self>) -> Touched {
        model.reset_service_cidrs(objects);
        Touched::new()
    }
}

impl Stored for Pod {
    const IS_PLANNED: bool = false;
    fn get<'m>(model: &'m Model, key: &Self::Key) -> Option<&'m Self> {
        model.pod(key)
    }
    fn apply(model: &mut Model, object: Self) -> Touched {
        model.apply_pod(object);
        Touched::new()
    }
    fn delete(model: &mut Model, key: &Self::Key) -> Touched {
        model.delete_pod(key);
        Touched::new()
    }
    fn reset(model: &mut Model, objects: Vec<Self>) -> Touched {
        model.reset_pods(objects);
        Touched::new()
    }
}

impl Stored for Slice {
    fn get<'m>(model: &'m Model, key: &Self::Key) -> Option<&'m Self> {
        model.slice(key)
    }
    fn apply(model: &mut Model, object: Self) -> Touched {
        model.apply_slice(object)
    }
    fn delete(model: &mut Model, key: &Self::Key) -> Touched {
        model.delete_slice(key)
    }
    fn reset(model: &mut Model, objects: Vec<Self>) -> Touched {
        model.reset_slices(objects)
    }
}
