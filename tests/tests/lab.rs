//! A lab comes up whole, works, and goes without a trace.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;

use lb_userspace::lab::{Interrupt, LabConfig, LabError, Role, Spread, State, Topology, unique_prefix};

const SMALL: u64 = 3 << 20;

#[test]
fn the_client_reaches_every_backend_through_the_router() {
    let start = Instant::now();
    let lab = Topology::builder(unique_prefix()).big_bytes(SMALL).build().unwrap();
    println!("up in {:?}", start.elapsed());
    for number in 1..=3 {
        let url = format!("http://{}/", lab.backend_addr(number));
        let page = lab.exec(Role::Client, "curl", ["-s", "--max-time", "3", &url]).unwrap();
        assert!(page.starts_with(&format!("backend b{number}\nclient 198.51.100.2:")), "{page}");
    }
    let download = lab.dir().join("got");
    let url = format!("http://{}/slow/big?rate=50m", lab.backend_addr(2));
    lab.exec(Role::Client, "curl", ["-s", "--max-time", "9", "-o", download.to_str().unwrap(), &url])
        .unwrap();
    assert!(fs::read(&download).unwrap() == fs::read(lab.big_file()).unwrap());
}

#[test]
fn every_request_is_a_connection_of_its_own() {
    let lab = Topology::builder(unique_prefix()).big_bytes(SMALL).build().unwrap();
    let spread = Spread::measure(&lab, lab.backend_addr(1), 200, &Interrupt::never()).unwrap();
    spread.check_complete().unwrap();
    assert_eq!(spread.of("b1"), 200);
}

#[test]
fn service_addresses_stay_silent_until_somebody_balances() {
    let lab = Topology::builder(unique_prefix()).big_bytes(SMALL).build().unwrap();
    for vip in [lab.vip_l2(), lab.vip_ipip()] {
        let spread = Spread::measure(&lab, vip, 1, &Interrupt::never()).unwrap();
        assert_eq!(spread.answered(), 0, "{vip}");
        let neighbour = lab.exec(Role::Router, "ip", ["neigh", "show", &vip.to_string()]).unwrap();
        assert!(!neighbour.contains("lladdr"), "{neighbour}");
    }
}

/// What the balancer will do by MAC rewrite, here by hand: the backend takes the packet and answers directly.
#[test]
fn a_backend_serves_a_service_address_that_is_sent_its_way() {
    let lab = Topology::builder(unique_prefix()).big_bytes(SMALL).build().unwrap();
    let (vip, via) = (lab.vip_l2().to_string(), lab.backend_addr(3).to_string());
    lab.exec(Role::Router, "ip", ["route", "add", &vip, "via", &via]).unwrap();
    let spread = Spread::measure(&lab, lab.vip_l2(), 20, &Interrupt::never()).unwrap();
    spread.check_complete().unwrap();
    assert_eq!(spread.of("b3"), 20);
}

#[test]
fn dropping_leaves_nothing_also_of_what_was_started_by_hand() {
    let lab = Topology::builder(unique_prefix()).backends(2).big_bytes(SMALL).build().unwrap();
    let traces = Traces::of(&lab);
    assert_eq!(
        traces.left().len(),
        6 + 2 + 1,
        "6 namespaces, directory, record, processes: {:?}",
        traces.left()
    );
    let mut stray = lab.command(Role::Balancer, "sleep").arg("1000").spawn().unwrap();
    let start = Instant::now();
    drop(lab);
    println!("down in {:?}", start.elapsed());
    assert!(!stray.wait().unwrap().success());
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn a_panic_cleans_up_too() {
    let name = unique_prefix();
    let lab = Topology::builder(&name).backends(1).big_bytes(SMALL).build().unwrap();
    let traces = Traces::of(&lab);
    std::thread::spawn(move || {
        let _lab = lab;
        panic!("on purpose");
    })
    .join()
    .unwrap_err();
    assert_eq!(traces.left(), Vec::<String>::new());
}

#[test]
fn labs_side_by_side_do_not_meet() {
    let build = || Topology::builder(unique_prefix()).backends(1).big_bytes(SMALL).build().unwrap();
    let first = std::thread::spawn(build);
    let (second, first) = (build(), first.join().unwrap());
    let (one, two) = (Traces::of(&first), Traces::of(&second));
    let names: BTreeSet<_> = one.netns.iter().chain(&two.netns).collect();
    assert_eq!(names.len(), 10);
    drop(first);
    assert_eq!(one.left(), Vec::<String>::new());
    let spread = Spread::measure(&second, second.backend_addr(1), 20, &Interrupt::never()).unwrap();
    spread.check_complete().unwrap();
}

#[test]
fn a_taken_name_is_refused_and_the_lab_that_has_it_stays() {
    let lab = Topology::builder(unique_prefix()).backends(1).big_bytes(SMALL).build().unwrap();
    let again = Topology::builder(lab.name()).backends(1).big_bytes(SMALL).build();
    assert!(matches!(again, Err(LabError::AlreadyUp(_))));
    assert!(State::load(lab.name()).unwrap().unwrap().is_up());
    assert_eq!(
        fs::read_dir(std::env::temp_dir()).unwrap().flatten().filter(|e| is_dir_of(&lab, e)).count(),
        1
    );
}

#[test]
fn a_failure_half_way_removes_the_first_half() {
    let name = unique_prefix();
    let blocker = format!("{name}-router");
    assert!(std::process::Command::new("ip").args(["netns", "add", &blocker]).status().unwrap().success());
    let error = Topology::builder(&name).build().unwrap_err();
    assert!(error.to_string().contains(&blocker), "{error}");
    let left = fs::read_dir("/run/netns").unwrap().flatten();
    assert_eq!(left.filter(|e| e.file_name().to_string_lossy().starts_with(&format!("{name}-"))).count(), 0);
    assert!(State::load(&name).unwrap().is_none());
}

#[test]
fn a_released_lab_outlives_its_builder_until_it_is_taken_down() {
    let lab = Topology::builder(unique_prefix()).backends(1).big_bytes(SMALL).kept().build().unwrap();
    let traces = Traces::of(&lab);
    LabConfig::even(1).write(&lab.dir().join("lb.yaml")).unwrap();
    let state = lab.release().unwrap();
    assert!(state.is_up() && !state.is_owned());
    lb_userspace::lab::down(&state).unwrap();
    lb_userspace::lab::down(&state).unwrap(); // again is fine
    assert_eq!(traces.left(), Vec::<String>::new());
}

fn is_dir_of(lab: &Topology, entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(&format!("lb-lab-{}-", lab.name()))
}

/// Where a lab shows in the system.
struct Traces {
    netns: Vec<String>,
    inodes: Vec<u64>,
    files: Vec<PathBuf>,
}

impl Traces {
    fn of(lab: &Topology) -> Self {
        let state = State::load(lab.name()).unwrap().unwrap();
        let inodes = state.namespaces().iter().map(|n| fs::metadata(n.path()).unwrap().ino()).collect();
        let record = PathBuf::from(format!("/run/lb/lab/{}.json", state.name));
        Self { netns: state.netns, inodes, files: vec![state.dir, record] }
    }

    fn left(&self) -> Vec<String> {
        let spaces = self.netns.iter().map(|name| format!("/run/netns/{name}")).map(PathBuf::from);
        let mut left: Vec<_> = spaces
            .chain(self.files.clone())
            .filter(|p| p.exists())
            .map(|p| p.display().to_string())
            .collect();
        let inside = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
            fs::metadata(entry.path().join("ns/net")).is_ok_and(|meta| self.inodes.contains(&meta.ino()))
                && entry.file_name().to_string_lossy().parse::<u32>().is_ok()
        });
        if inside.count() > 0 {
            left.push("processes".into());
        }
        left
    }
}
