//! Who may know whom: libraries are kept to the module that adapts them, and modules import downwards only.

use super::Finding;
use super::imports::{Import, imports};
use super::source::Source;

/// A path that only some files may use.
struct Fence {
    rule: &'static str,
    /// The path's first segments; a last `*` stands for the rest of a word.
    paths: &'static [&'static [&'static str]],
    applies: fn(&str) -> bool,
    /// Whether test code is held to it.
    tests: Tests,
    message: &'static str,
}

#[derive(PartialEq, Eq)]
enum Tests {
    Too,
    Exempt,
}

const USER: &str = "lb-userspace/src/";

const FENCES: [Fence; 10] = [
    Fence {
        rule: "aya-outside-dataplane",
        paths: &[&["aya"], &["aya_log"], &["aya_obj"]],
        applies: |file| {
            let adapters = in_module(file, &["dataplane"]) || in_tree(file, "lb-common/src/abi");
            !adapters && !file.starts_with("tests/")
        },
        tests: Tests::Too,
        message: "only dataplane knows the kernel's maps and programs; go through its trait",
    },
    Fence {
        rule: "netlink-outside-netlink",
        paths: &[&["rtnetlink"], &["netlink_*"]],
        applies: |file| !in_module(file, &["netlink"]),
        tests: Tests::Too,
        message: "only netlink speaks netlink; add what you need to its interface",
    },
    Fence {
        rule: "yaml-outside-config",
        paths: &[&["serde_yaml*"], &["serde_saphyr*"], &["saphyr*"]],
        applies: |file| !in_module(file, &["config"]),
        tests: Tests::Too,
        message: "only config reads YAML; take a parsed value instead",
    },
    Fence {
        rule: "io-in-pure-module",
        paths: &[&["tokio"], &["aya"], &["rtnetlink"], &["netlink_*"], &["std", "fs"]],
        applies: |file| in_module(file, &["model", "reconcile"]),
        tests: Tests::Exempt,
        message: "model and reconcile are pure; do the I/O in the caller and pass the result in",
    },
    Fence {
        rule: "config-below-model",
        paths: &[&["crate", "config"]],
        applies: |file| in_module(file, &["model", "reconcile", "dataplane", "netlink"]),
        tests: Tests::Too,
        message: "config becomes model, and nothing below looks back; use the model's type",
    },
    Fence {
        rule: "daemon-from-below",
        paths: &[&["crate", "daemon"], &["lb_userspace", "daemon"]],
        applies: |file| file.starts_with("lb-userspace/") && !in_module(file, &["cli", "daemon"]),
        tests: Tests::Too,
        message: "the daemon knows everyone and nobody knows the daemon; take what you need as a parameter",
    },
    Fence {
        rule: "simulate-above-the-engine",
        paths: &[
            &["crate", "config"],
            &["crate", "daemon"],
            &["crate", "dataplane"],
            &["crate", "netlink"],
            &["tokio"],
        ],
        applies: |file| in_module(file, &["simulate"]),
        tests: Tests::Too,
        message: "simulate knows packets, files and what the engine notes; cli and daemon bring the tables",
    },
    Fence {
        rule: "std-in-no-std",
        paths: &[&["std"]],
        applies: |file| in_tree(file, "lb-common/src"),
        tests: Tests::Exempt,
        message: "lb-common also runs in the kernel; use core",
    },
    Fence {
        rule: "floor-above-abi",
        paths: &[&["crate", "wire"], &["crate", "datapath"]],
        applies: |file| in_tree(file, "lb-common/src/abi"),
        tests: Tests::Too,
        message: "abi is the lowest floor; move the shared part down into it",
    },
    Fence {
        rule: "floor-above-wire",
        paths: &[&["crate", "datapath"]],
        applies: |file| in_tree(file, "lb-common/src/wire"),
        tests: Tests::Too,
        message: "wire knows bytes, not decisions; move the shared part down",
    },
];

pub fn check(source: &Source<'_>) -> Vec<Finding> {
    let file = source.path.split_once("src/").map_or(source.path, |(_, file)| file);
    let imports = imports(&source.code, file);
    let mut findings = Vec::new();
    for fence in FENCES.iter().filter(|fence| (fence.applies)(source.path)) {
        for import in imports.iter().filter(|import| fence.catches(import)) {
            if fence.tests == Tests::Too || !source.is_test(import.line) {
                let message = format!("{}: {}", import.segments.join("::"), fence.message);
                findings.push(Finding {
                    path: source.path.into(),
                    line: import.line,
                    rule: fence.rule,
                    message,
                });
            }
        }
    }
    findings
}

impl Fence {
    fn catches(&self, import: &Import) -> bool {
        // A lone word is as likely a variable.
        import.segments.len() > 1
            && self.paths.iter().any(|path| match path {
                [word] if word.ends_with('*') => import.segments[0].starts_with(word.trim_end_matches('*')),
                path => import.starts_with(path),
            })
    }
}

/// In one of lb-userspace's top modules, `name.rs` or `name/…`.
fn in_module(file: &str, modules: &[&str]) -> bool {
    file.starts_with(USER) && modules.iter().any(|module| in_tree(file, &format!("{USER}{module}")))
}

fn in_tree(file: &str, tree: &str) -> bool {
    file.strip_prefix(tree).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::check;

    fn rules(path: &str, code: &str) -> Vec<&'static str> {
        check(&Source::parse(path, code)).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn each_fence_catches_and_lets_through() {
        let caught = [
            ("lb-userspace/src/cli/mod.rs", "use aya::Ebpf;", "aya-outside-dataplane"),
            ("lb-common/src/wire/ip.rs", "unsafe impl aya::Pod for X {}", "aya-outside-dataplane"),
            ("lb-userspace/src/nic.rs", "use rtnetlink::new_connection;", "netlink-outside-netlink"),
            ("lb-userspace/src/daemon.rs", "netlink_packet_route::link::X", "netlink-outside-netlink"),
            ("lb-userspace/src/cli.rs", "serde_yaml::from_str(x)", "yaml-outside-config"),
            ("lb-userspace/src/model/a.rs", "use std::{fs, io};", "io-in-pure-module"),
            ("lb-userspace/src/reconcile.rs", "tokio::spawn(x)", "io-in-pure-module"),
            ("lb-userspace/src/model/a.rs", "use super::super::config::C;", "config-below-model"),
            ("lb-userspace/src/dataplane/a.rs", "use crate::config;", "config-below-model"),
            ("lb-userspace/src/health.rs", "use crate::{daemon::D, model};", "daemon-from-below"),
            ("lb-userspace/src/simulate/a.rs", "use crate::netlink::X;", "simulate-above-the-engine"),
            ("lb-common/src/wire/ip.rs", "use std::net::IpAddr;", "std-in-no-std"),
            ("lb-common/src/abi.rs", "use crate::wire::X;", "floor-above-abi"),
            ("lb-common/src/wire/ip.rs", "use crate::datapath::X;", "floor-above-wire"),
        ];
        for (path, code, rule) in caught {
            assert_eq!(rules(path, code), [rule], "{path}: {code}");
        }
        let passed = [
            ("lb-userspace/src/dataplane/real.rs", "use aya::Ebpf;"),
            ("lb-common/src/abi/pod.rs", "unsafe impl aya::Pod for X {}"),
            ("tests/tests/load.rs", "use aya::Ebpf;"),
            ("lb-userspace/src/netlink/link.rs", "use rtnetlink::Handle;"),
            ("lb-userspace/src/config/mod.rs", "use serde_yaml::Value;"),
            ("lb-userspace/src/model/a.rs", "use std::net::IpAddr; let aya = 1;"),
            ("lb-userspace/src/model/a.rs", "// tokio::spawn\nlet a = \"tokio::spawn\";"),
            ("lb-userspace/src/cli/run.rs", "use crate::daemon::run;"),
            ("lb-ebpf/src/main.rs", "use aya_ebpf::macros::xdp;"),
            ("lb-userspace/build.rs", "aya_build::build_ebpf(x)"),
            ("lb-common/src/wire/ip.rs", "use core::fmt; use crate::abi::X;"),
            ("lb-common/src/wire/ip.rs", "#[cfg(test)]\nmod tests {\n    use std::vec::Vec;\n}"),
        ];
        for (path, code) in passed {
            assert!(rules(path, code).is_empty(), "{path}: {code}: {:?}", rules(path, code));
        }
    }
}
