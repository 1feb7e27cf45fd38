//! What people call the things that maps have numbers for. Pure.

use crate::model::Model;
use crate::reconcile::Observed;
use crate::simulate::Names;

use super::engine::places;

/// Names of what is in a data plane; `interface` names the interface with an index of the kernel's.
pub fn names(model: &Model, observed: &Observed, interface: impl Fn(u32) -> String) -> Names {
    let mut names = Names::default();
    for ((service, address), (number, _)) in places(observed) {
        let known = model.services.iter().find(|known| known.id == service);
        let backend = known.and_then(|known| known.backends.iter().find(|b| b.address == address));
        if let Some(entry) = observed.backends.get(&number) {
            let name = known.map_or_else(|| service.to_string(), |known| known.name.clone());
            names.services.insert(entry.service, (name, service.to_string()));
        }
        names.addresses.insert(number, address);
        names.backends.insert(number, backend.and_then(|backend| backend.name.clone()));
    }
    names.ports = observed.ports.iter().map(|(number, port)| (*number, interface(port.ifindex))).collect();
    names
}
